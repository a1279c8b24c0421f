"""The exchange between programs that truly run at once, and that this test would see it broken."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from forked import of_script
from paths import ROOT

SCRIPT = ROOT / "tests" / "support" / "kernels" / "programs_at_once.py"
SPEC = {
    "seed": 0, "cell": "rnn-tanh", "steps": 5, "batch": 3, "hidden": 64, "dtype": "float32", "programs": 4, "repetitions": 1,
    "parts": 1, "w_first": False, "exchange": "sentinel", "reset": False, "clip": None, "nan": False, "deadline": 300.0,
}  # fmt: skip


def run(package: Path = ROOT, **changed: Any) -> dict[str, Any]:
    return run_all([changed], package)[0]


def run_all(changes: list[dict[str, Any]], package: Path = ROOT) -> list[dict[str, Any]]:
    return of_script(SCRIPT, json.dumps([SPEC | changed for changed in changes]), package)


@pytest.fixture(scope="module")
def four() -> dict[str, float]:
    """The errors of four programs at once, each way: in one child, whose imports take longer than a way does."""
    ways = {
        "sentinel": {"exchange": "sentinel"},
        "counter": {"exchange": "counter"},
        "shared": {"cell": "lstm", "parts": 4, "w_first": True, "dtype": "float64"},
    }
    return {way: result["errors"][0] for way, result in zip(ways, run_all(list(ways.values())), strict=True)}


@pytest.mark.parametrize("exchange", ["sentinel", "counter"])
def test_four_programs_at_once(exchange: str, four: dict[str, float]) -> None:
    """Outputs, states and gradients are those of the eager backend."""
    assert four[exchange] < 2e-6


def test_four_programs_that_share_k(four: dict[str, float]) -> None:
    """Each reads a quarter of the gates' gradients, and the parts of the sums meet; W is the products' first operand."""
    assert four["shared"] < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["sentinel", "counter"])
@pytest.mark.parametrize(
    "changed",
    [
        {"cell": "lstm", "programs": 8, "parts": 4, "batch": 17, "reset": True, "repetitions": 2},  # 2 groups, 2 batch tiles
        {"cell": "gru", "programs": 4, "parts": 4, "reset": True, "repetitions": 4, "steps": 8},
        {"cell": "lstm", "programs": 8, "parts": 2, "w_first": True, "hidden": 50, "repetitions": 2},
        {"cell": "lstm", "programs": 4, "parts": 4, "steps": 1, "repetitions": 2},
        {"cell": "lstm", "programs": 4, "parts": 4, "clip": ["norm", 2.0], "reset": True, "repetitions": 2},
        {"cell": "gru", "programs": 4, "parts": 4, "clip": ["value", 0.5], "repetitions": 2},
    ],
    ids=lambda c: c["cell"],
)
def test_shared_k_many_times(exchange: str, changed: dict[str, Any]) -> None:
    """Another order of events each time, the same numbers, to float64's rounding."""
    errors = run(exchange=exchange, dtype="float64", **changed)["errors"]
    assert len(errors) == changed["repetitions"]
    assert max(errors) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "changed",
    [{"cell": "lstm", "parts": 4}, {"cell": "gru", "parts": 4, "w_first": True}, {"cell": "rnn-tanh", "w_first": True}],
    ids=lambda c: c["cell"],
)
def test_error_of_shared_k_is_at_most_about_twice_that_of_eager(dtype: str, changed: dict[str, Any]) -> None:
    """The same arguments in float64 are the truth; of every result and gradient."""
    assert max(run(dtype=dtype, repetitions=3, **changed)["ratios"]) < 2


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn-tanh", "rnn-relu", "rnn-sigmoid", "rnn-identity", "lstm", "gru"])
def test_w_as_the_first_operand(cell: str) -> None:
    """Both directions of every cell, a batch of two tiles, a width that is padded."""
    (error,) = run(cell=cell, programs=1, w_first=True, dtype="float64", batch=20, hidden=50, steps=3, reset=True)["errors"]
    assert error < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["sentinel", "counter"])
@pytest.mark.parametrize(
    "changed",
    [
        {"cell": "lstm", "programs": 8, "batch": 17, "reset": True, "repetitions": 4},  # two batch tiles
        {"cell": "gru", "programs": 2, "reset": True, "repetitions": 8, "steps": 8},
        {"cell": "rnn-relu", "programs": 4, "dtype": "float64", "repetitions": 8, "steps": 8},
        {"cell": "lstm", "programs": 4, "hidden": 50, "steps": 1, "repetitions": 4},
        {"cell": "lstm", "programs": 4, "clip": ["norm", 2.0], "reset": True, "repetitions": 4},
        {"cell": "gru", "programs": 4, "clip": ["norm", 2.0], "repetitions": 4},
    ],
    ids=lambda c: c["cell"],
)
def test_many_times(exchange: str, changed: dict[str, Any]) -> None:
    """Another order of events each time, the same numbers."""
    errors = run(exchange=exchange, **changed)["errors"]
    assert len(errors) == changed["repetitions"]
    assert max(errors) < (1e-12 if changed.get("dtype") == "float64" else 3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["sentinel", "counter"])
@pytest.mark.parametrize(("cell", "parts"), [("rnn-identity", 1), ("lstm", 1), ("lstm", 4)])
def test_a_nan_ends(exchange: str, cell: str, parts: int) -> None:
    """A NaN at step 3, with every bit set as in what is not written yet, arrives where it belongs and stops nobody."""
    (error,) = run(exchange=exchange, cell=cell, parts=parts, nan=True, dtype="float64")["errors"]
    assert error < 1e-12


PARTS = {"cell": "lstm", "parts": 4, "dtype": "float64", "deadline": 30.0, "repetitions": 4}
MUTANTS = {
    "sentinel: no wait": ("exchange.py", "while (_missing(tiles, COUNT, PACK) > 0) & (target > 0):", "while False:", {}),
    "sentinel: only the first tile is looked at": (
        "exchange.py",
        "for k in tl.static_range(1, COUNT):\n            missing",
        "for k in tl.static_range(1, 1):\n            missing",
        {"repetitions": 4},
    ),
    "sentinel: the buffer is not filled": ("scan.py", "tl.where(at < ones, -1, 0)", "tl.where(at < 0, -1, 0)", {}),
    "sentinel: NaN stored as it is": (
        "exchange.py",
        "tl.where(bits == -1, -2, bits)",
        "bits",
        {"nan": True, "dtype": "float64", "cell": "rnn-identity", "deadline": 30.0},
    ),
    "counter: no wait": ("exchange.py", "< target", "< 0", {}),
    "counter: target off by one": ("exchange.py", "< target", "< target - 1", {"repetitions": 4}),
    "counter: arrival before the store": (
        "scan.py",
        "put(p_hs + now * step_of_h, own, h, mask, EXCHANGE)\n            arrive(p_arrivals + tile, EXCHANGE)",
        "arrive(p_arrivals + tile, EXCHANGE)\n            put(p_hs + now * step_of_h, own, h, mask, EXCHANGE)",
        {"repetitions": 4},
    ),
    "counter: not reset": ("scan.py", "_fill(p_zeros, 0, zeros,", "_fill(p_zeros, zeros, zeros,", {"deadline": 30.0}),
    "counter: target one too many": ("exchange.py", "< target", "< target + 1", {"deadline": 30.0}),
    "sentinel: parts, no wait": ("exchange.py", "while _of_another_lap(met, lap, COUNT) > 0:", "while False:", PARTS),
    "sentinel: parts, one place instead of two": (
        "exchange.py",
        ("(step % 2) * batch", "lap = (step // 2 + 1) % 2"),
        ("0 * batch", "lap = (step + 1) % 2"),
        PARTS,
    ),
    "sentinel: parts, every lap is the first": ("exchange.py", "lap = (step // 2 + 1) % 2", "lap = 1", PARTS),
    "sentinel: parts, the lap is not stored": ("exchange.py", "(bits & -2) | lap", "bits", PARTS),
    "sentinel: parts, the places are not cleared": (
        "scan.py", "_fill(p_zeros, 0, zeros,", "_fill(p_zeros, zeros, zeros,", PARTS,
    ),
    "sentinel: parts, only the first is looked at": (
        "exchange.py", "tl.static_range(1, PARTS):", "tl.static_range(1, 1):", PARTS,
    ),
    "counter: parts, target off by one": ("exchange.py", "(step + 1) * PARTS", "(step + 1) * PARTS - 1", PARTS),
    "counter: parts, arrival before the store": (
        "exchange.py",
        "tl.store(p_now + place, value, mask=mask)\n        arrive(p_arrivals, EXCHANGE)",
        "arrive(p_arrivals, EXCHANGE)\n        tl.store(p_now + place, value, mask=mask)",
        PARTS,
    ),
    "counter: parts, groups share a counter": (
        "scan.py", "tile * (HIDDEN // N) + group", "tile * (HIDDEN // N)", PARTS | {"programs": 8},
    ),
}  # fmt: skip


def test_the_lines_to_break_exist() -> None:
    for file, rights, _, _ in MUTANTS.values():
        source = (ROOT / "kernels" / "rnn" / file).read_text()
        assert [line for line in ((rights,) if isinstance(rights, str) else rights) if line not in source] == []


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_exchange_is_seen(mutant: str, tmp_path: Path) -> None:
    """Each of the ways to get an exchange wrong gives wrong numbers or hangs here."""
    file, rights, wrongs, changed = MUTANTS[mutant]
    for folder in ("kernels", "recurrent_lm"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    broken = tmp_path / "kernels" / "rnn" / file
    source = broken.read_text()
    pairs = [(rights, wrongs)] if isinstance(rights, str) else zip(rights, wrongs, strict=True)
    for right, wrong in pairs:
        assert right in source, "the line to break is gone"
        source = source.replace(right, wrong)
    broken.write_text(source)
    exchange = mutant.partition(":")[0]
    result = run(tmp_path, **{"exchange": exchange, "steps": 8} | changed)
    assert "hang" in result or max(result["errors"]) > 1e-3
