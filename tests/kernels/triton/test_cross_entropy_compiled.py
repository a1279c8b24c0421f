"""The loss's bodies compiled for GPUs that need not be there: no spills, tiles that fit, loads of 128 bits.

One process a compile, without the interpreter: a compiler that aborts fails one test.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton.backends.nvidia")
HERE = Path(__file__).parent
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # bytes a program may have
ROWS, TILES = ("rows_forward", "rows_backward"), ("tiles_forward", "tiles_backward")


def needs(body: str, capability: int, v: int, d: int, dtype: str, *debug: str) -> dict[str, Any]:
    environment = {k: value for k, value in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[2]), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "compile_loss.py"), body, str(capability), str(v), str(d), dtype, *debug]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def check(body: str, capability: int, v: int, d: int, dtype: str = "bfloat16") -> None:
    found = needs(body, capability, v, d, dtype)
    assert found["stack"] == 0, found
    assert found["registers"] <= 255, found
    assert found["shared"] <= SHARED[capability], found
    wide = found["loads"].get("128", 0)
    assert wide >= (2 if body in ROWS else 4), found
    assert not found["loads"].get("U16", 0) > 1, found  # one logit of each row's class, and nothing else, by itself


@pytest.mark.parametrize(
    ("body", "capability", "v", "d"), [("rows_forward", 90, 10_000, 0), ("tiles_forward", 80, 10_000, 200)]
)
def test_compiles(body: str, capability: int, v: int, d: int) -> None:
    """One body of each kind; the features (200) are no multiple of 16 elements, only of 16 bytes."""
    check(body, capability, v, d)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("v", [10_000, 32_000, 128_256, 262_144])
@pytest.mark.parametrize(
    ("body", "d"), [*((b, 0) for b in ROWS), *((b, d) for b in TILES for d in (200, 512, 2048)), ("tiles_combine", 512)]
)
def test_compiles_for_every_size(body: str, d: int, v: int, capability: int) -> None:
    """Vocabularies and features of language models on three generations of GPUs."""
    if body == "tiles_combine":
        found = needs(body, capability, v, d, "bfloat16")
        assert found["stack"] == 0
        assert found["shared"] <= 1024
    else:
        check(body, capability, v, d)


@pytest.mark.slow
@pytest.mark.parametrize("body", ["rows_forward", "tiles_forward"])
def test_wrong_targets_stop_a_debug_build(body: str) -> None:
    """With TRITON_DEBUG=1 a target that is no class is a device assertion; without it there is none to pay for."""
    assert needs(body, 90, 10_000, 200, "bfloat16", "debug")["asserts"]
    assert not needs(body, 90, 10_000, 200, "bfloat16")["asserts"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("body", [*ROWS, *TILES])
def test_compiles_for_every_dtype(body: str, dtype: str) -> None:
    """The other types of logits and products."""
    check(body, 90, 10_000, 512, dtype)
