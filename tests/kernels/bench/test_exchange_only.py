"""The exchange alone: right among programs that run at once, seen when broken, compiled for GPUs, and what its floor says."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import of_script
from paths import ROOT, SUPPORT

import recurrent_lm.kernels.rnn.plan
from recurrent_lm.kernels import CONSTANTS, ESTIMATES, ExchangeRun, constant, exchange_floor, explain
from recurrent_lm.kernels.bench.exchange_only import slices
from recurrent_lm.kernels.rnn.plan import DEVICES, choose, predict

SPEC = {
    "exchange": "sentinel",
    "programs": 3,
    "bytes": 8192,
    "steps": 5,
    "dtype": "float16",
    "repetitions": 1,
    "deadline": 300.0,
}
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


def run(package: Path = ROOT, **changed: Any) -> dict[str, Any]:
    return of_script(SUPPORT / "kernels" / "exchange_at_once.py", json.dumps(SPEC | changed), package)


def test_three_programs_at_once() -> None:
    """Four tiles of which the last program's slice is the shortest; every element is that of float64."""
    (error,) = run(steps=3)["errors"]
    assert error < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["sentinel", "counter", "none"])
@pytest.mark.parametrize(
    "changed",
    [{"programs": 5, "bytes": 64}, {"programs": 4, "dtype": "float32", "bytes": 1024}, {"programs": 1, "bytes": 32768}],
    ids=["a program without elements", "float32", "alone, two rounds of loads"],
)
def test_many_times(exchange: str, changed: dict[str, Any]) -> None:
    errors = run(exchange=exchange, repetitions=3, **changed)["errors"]
    assert len(errors) == 3
    assert max(errors) < (1e-6 if changed.get("dtype") == "float32" else 2e-3)


MUTANTS = {
    "sentinel: no wait": ("exchange.py", "while (_missing(tiles, COUNT, PACK) > 0) & (target > 0):", "while False:", {}),
    "counter: target off by one": ("exchange_only.py", "t * tl.num_programs(0)", "t * tl.num_programs(0) - 1", {}),
    "counter: not reset": ("exchange_run.py", "self.arrivals.zero_()", "self.arrivals.fill_(99)", {}),
    "sentinel: the buffer is not filled": ("exchange_run.py", 'fresh("sentinel", *self.h.shape, like=self.h)', "0.0", {}),
    "sentinel: a slice is not stored": ("exchange_only.py", "(inner < own_elements) &", "(inner < own_elements - 8) &",
                                        {"deadline": 10.0}),
}  # fmt: skip


def test_the_lines_to_break_exist() -> None:
    for file, right, *_ in MUTANTS.values():
        (path,) = (ROOT / "kernels").rglob(file)
        assert right in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_exchange_is_seen(mutant: str, tmp_path: Path) -> None:
    file, right, wrong, changed = MUTANTS[mutant]
    for folder in ("kernels", "recurrent_lm"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (path,) = (tmp_path / "kernels").rglob(file)
    source = path.read_text()
    assert right in source, "the line to break is gone"
    path.write_text(source.replace(right, wrong))
    result = run(tmp_path, **{"exchange": mutant.partition(":")[0], "repetitions": 4, "steps": 8} | changed)
    assert "hang" in result or max(result["errors"]) > 1e-2


def compiled(*arguments: object) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(ROOT), "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, SUPPORT / "kernels" / "compile_exchange.py", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(("programs", "size"), [(132, 65536), (8, 262144), (16, 1024)])
@pytest.mark.parametrize("exchange", ["sentinel", "counter"])
def test_compiles(exchange: str, programs: int, size: int, capability: int) -> None:
    """No spill; a sentinel needs no fence and no atomic, a counter both; wide loads wherever there is enough to load."""
    found = compiled(capability, exchange, programs, size)
    assert found["stack"] == 0 and found["registers"] <= 255 and found["shared"] <= SHARED[capability]
    assert found["cooperative"]
    assert (found["arrivals"] > 0) == (found["fences"] > 0) == (exchange == "counter")
    state_loads = found["count"] * (2 if exchange == "sentinel" else 1)  # asked for once, and again while some are missing
    assert found["loads"] >= state_loads
    assert found["wide"] == (state_loads if size > 1024 else 0)


@pytest.mark.parametrize("programs", [1, 3, 8, 132])
@pytest.mark.parametrize("elements", [32, 512, 2048, 131072])
def test_slices_cover_the_state(programs: int, elements: int) -> None:
    sizes = slices(programs, elements, 2)
    assert programs * sizes.own >= elements and sizes.own % 8 == 0
    assert elements % (sizes.block * sizes.count) == 0
    assert all(n & (n - 1) == 0 for n in (sizes.slice, sizes.block, sizes.count))
    assert sizes.slice <= max(sizes.block, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("flag", 4, 1024, 4), "exchange must be one of sentinel, counter, none, not 'flag'"),
        (("sentinel", 133, 1024, 4), "programs must be from 1 to 132"),
        (("sentinel", 4, 1000, 4), "state_bytes must be a power of two from 64 on, not 1000"),
    ],
)
def test_what_no_launch_can_have_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExchangeRun(*arguments, dtype=torch.float16, device="cpu")


def test_what_is_expected_is_the_recurrence_step_by_step() -> None:
    alone = ExchangeRun("sentinel", 2, 64, 4, torch.float32, device="cpu")
    x = torch.arange(16) / 16
    h = [x]
    for _ in range(3):
        h.append(x + h[-1].mean() / 2)
    assert torch.allclose(alone.expected(), torch.stack(h))
    alone.refill()
    assert alone.error() == float("inf")  # nothing was written yet
    alone.h.copy_(torch.stack(h))
    assert alone.error() < 1e-6
    alone.h[2, 3] += 0.5
    assert alone.error() == pytest.approx(0.5)


MEASURED = {"LAUNCH": 3.0, "WAIT.sentinel": 0.5, "WAIT.counter": 2.0, "L2_BYTES": 4e6}


@pytest.fixture
def sm_90_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"sm_90": {name: {"value": value} for name, value in MEASURED.items()}}))
    monkeypatch.setattr(recurrent_lm.kernels.rnn.plan, "MEASURED", path)
    recurrent_lm.kernels.rnn.plan._read.cache_clear()
    yield  # type: ignore[misc]
    recurrent_lm.kernels.rnn.plan._read.cache_clear()


def test_plans_predict_by_what_was_measured_and_say_so(sm_90_measured: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert [constant("sm_90", name, ESTIMATES[name]) for name in CONSTANTS] == list(MEASURED.values())
    assert [constant("sm_80", name, ESTIMATES[name]) for name in CONSTANTS] == list(ESTIMATES.values())
    sizes = (16, 100, 512, "rnn-tanh", "bfloat16")
    explain(16, 100, 512, "rnn-tanh")
    assert "predicted from measured constants" in capsys.readouterr().out
    fast = predict(*sizes, DEVICES["sm_90"])["cooperative"]
    slow = predict(*sizes, DEVICES["sm_90"], exchange="counter")["cooperative"]
    assert fast.forward is not None and slow.forward is not None
    assert slow.forward - fast.forward >= 100 * 1.5 * 0.99


def test_the_floor_is_wait_and_loads_by_hand(sm_90_measured: None) -> None:
    """Elman, B = 16, H = 512 in bfloat16: every program reads 16 rows of 512 units of 2 bytes each step, either way."""
    plan = choose(16, 1, 512, "rnn-tanh", "bfloat16", DEVICES["sm_90"], "cooperative")
    by_hand = tuple(0.5 + 512 // tiles.block_h * 16 * 512 * 2 / 4e6 for tiles in (plan.forward, plan.backward))
    assert exchange_floor(16, 512, "rnn-tanh", "bfloat16") == pytest.approx(by_hand)


def test_the_floor_of_programs_that_share_k_has_two_exchanges(sm_90_measured: None) -> None:
    """LSTM backward: each of four programs reads a quarter of the 4,096 numbers of a row, and parts of sums in float32."""
    tiles = choose(16, 1, 1024, "lstm", "bfloat16", DEVICES["sm_90"], "cooperative").backward
    assert tiles.parts == 4
    each = tiles.block_b * 4096 // 4 * 2 + 2 * tiles.block_b * tiles.block_h * 4 * 4
    _, backward = exchange_floor(16, 1024, "lstm", "bfloat16")
    assert backward == pytest.approx(2 * 0.5 + 1024 // tiles.block_h * each / 4e6)


def test_no_floor_without_a_measurement() -> None:
    for device in {"sm_70", *DEVICES} - {d for d in DEVICES if recurrent_lm.kernels.rnn.plan.measured(d)}:
        assert all(math.isnan(value) for value in exchange_floor(16, 512, "lstm", "bfloat16", device))


def test_what_is_shipped_holds_every_constant() -> None:
    shipped = (
        json.loads(recurrent_lm.kernels.rnn.plan.MEASURED.read_text())
        if recurrent_lm.kernels.rnn.plan.MEASURED.exists()
        else {}
    )
    for device, found in shipped.items():
        assert device in DEVICES
        for name in CONSTANTS:
            assert 0 < found[name]["low"] <= found[name]["value"] <= found[name]["high"]
