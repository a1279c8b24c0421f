"""Plans as a table, and what the planner refuses. No GPU, no torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import CELLS, explain
from kernels.plan import DEVICES, STRATEGIES, Plan, Tiles, choose, faster_than_library, padded, predict

SM_90 = DEVICES["sm_90"]


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [(1, 16), (16, 16), (17, 32), (50, 64), (200, 256), (256, 256), (257, 320), (650, 704), (768, 768), (1024, 1024)],
)
def test_padded(hidden: int, expected: int) -> None:
    """A power of two while one program may own all units, then whole tiles of 64."""
    assert padded(hidden) == expected


# (device, batch, hidden, cell, dtype): the strategy that runs, and whether it is preferred to the library.
TABLE = [
    ("sm_90", 16, 768, "lstm", "bfloat16", "cooperative", True),
    ("sm_90", 64, 1024, "lstm", "bfloat16", "cooperative", True),
    ("sm_90", 128, 2048, "lstm", "bfloat16", "stepwise", False),  # 32 MB do not fit, the product is the library's
    ("sm_90", 16, 256, "lstm", "float32", "cooperative", True),
    ("sm_90", 16, 1024, "lstm", "float32", "stepwise", False),  # without tensor cores K = 4096 spills
    ("sm_90", 20, 100, "rnn-tanh", "bfloat16", "resident", True),
    ("sm_90", 20, 650, "gru", "bfloat16", "cooperative", True),
    ("sm_100", 20, 650, "gru", "bfloat16", "cooperative", True),
    ("sm_80", 20, 200, "lstm", "float16", "cooperative", True),
]


@pytest.mark.parametrize(("device", "batch", "hidden", "cell", "dtype", "strategy", "preferred"), TABLE)
def test_table(device: str, batch: int, hidden: int, cell: str, dtype: str, strategy: str, preferred: bool) -> None:
    """What runs where."""
    assert choose(batch, 100, hidden, cell, dtype, DEVICES[device]).strategy == strategy
    assert faster_than_library(batch, 100, hidden, cell, dtype, DEVICES[device]) == preferred


def test_tiles_of_one_plan() -> None:
    """LSTM, B = 16, H = 1024, sm_90: 128 programs forward, 64 backward, K divided over the warps."""
    assert choose(16, 100, 1024, "lstm", "bfloat16", SM_90) == Plan(
        "cooperative", "sentinel", 1024, Tiles(16, 8, 128, 8, 1, 8), Tiles(16, 16, 128, 8, 2, 8)
    )


@given(
    device=st.sampled_from(list(DEVICES.values())),
    batch=st.integers(1, 300),
    hidden=st.integers(1, 4096),
    cell=st.sampled_from(sorted(CELLS)),
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
)
@settings(deadline=None)
def test_every_plan_holds(device, batch: int, hidden: int, cell: str, dtype: str) -> None:
    """Tiles cover all units and all of K, W fits the device, programs of an exchange all run at once."""
    slots, size = CELLS[cell].slots, 4 if dtype == "float32" else 2
    found = predict(batch, 35, hidden, cell, dtype, device)
    assert found["stepwise"].plan is not None
    for name in STRATEGIES:
        plan = found[name].plan
        if plan is None:
            continue
        units = plan.hidden
        assert units >= hidden
        for tiles, k, per_unit in ((plan.forward, units, slots), (plan.backward, units * slots, 1)):
            assert units % tiles.block_h == 0
            assert k % (tiles.block_k * tiles.split) == 0
            assert tiles.block_k >= 16
            assert tiles.block_b in (16, 32, 64)
            if name != "stepwise":
                assert k * tiles.block_h * per_unit * size <= device.shared
            if name == "cooperative":
                assert units // tiles.block_h <= device.multiprocessors
            if name == "resident":
                assert (tiles.block_h, tiles.block_k, tiles.split) == (units, k, 1)


def test_a_plan_that_does_not_fit_says_what_does() -> None:
    """The sentence names the device, the size of W_h and the plans that fit."""
    with pytest.raises(ValueError, match=r"'resident' does not fit sm_90: W_h of 1024 lstm units in bfloat16 takes 8192 KB.*"
                       r"these fit: cooperative, stepwise"):  # fmt: skip
        choose(16, 100, 1024, "lstm", "bfloat16", SM_90, "resident")
    with pytest.raises(ValueError, match="plan must be one of stepwise, resident, cooperative, not 'persistent'"):
        choose(16, 100, 1024, "lstm", "bfloat16", SM_90, "persistent")
    with pytest.raises(ValueError, match="exchange must be one of sentinel, counter, not 'flag'"):
        choose(16, 100, 1024, "lstm", "bfloat16", SM_90, exchange="flag")


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    """What runs, the time of each strategy, and the sentence for what is left open."""
    explain(16, 1024, 768)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "lstm, B = 16, T = 1024, H = 768 (padded to 768), bfloat16, sm_90: W_h 4608 KB"
    assert [line.split()[0] for line in lines[1:5]] == ["cooperative", "torch", "stepwise", "resident"]
    assert "does not fit" in lines[4]
    assert "triton runs cooperative" in lines[5]
    assert "predicted to be faster than the library" in lines[6]
    with pytest.raises(ValueError, match="device must be one of sm_80, sm_90, sm_100, not 'sm_70'"):
        explain(16, 1024, 768, device="sm_70")


def test_kernels_import_without_torch() -> None:
    """What is compiled alone, and the planner, need Triton at most."""
    code = """
import sys
sys.modules["torch"] = None  # importing it fails
import kernels.scan, kernels.exchange, kernels.cells, kernels.plan, kernels.compiled
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
