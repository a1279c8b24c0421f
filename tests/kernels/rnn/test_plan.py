"""Plans as a table, and what the planner refuses. No GPU, no torch."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT

from recurrent_lm.kernels import CELLS, explain
from recurrent_lm.kernels.rnn.plan import (
    DEVICES,
    GUESSED,
    STRATEGIES,
    Plan,
    Tiles,
    choose,
    faster_than_library,
    padded,
    predict,
)

SM_90 = DEVICES["sm_90"]


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [(1, 16), (16, 16), (17, 32), (50, 64), (200, 256), (256, 256), (257, 320), (650, 704), (768, 768), (1024, 1024)],
)
def test_padded(hidden: int, expected: int) -> None:
    """A power of two while one program may own all units, then whole tiles of 64."""
    assert padded(hidden) == expected


# Device, B, T, H, cell, dtype; predicted microseconds a step, forward and backward, of each strategy that fits and of the
# library; which is chosen.
TABLE = [
    ("sm_80", 20, 35, 200, "lstm", "float16", None, (1.76, 2.58), (6.68, 7.07), (3.26, 4.96), "cooperative"),
    ("sm_80", 16, 1024, 768, "lstm", "bfloat16", None, (2.45, 3.30), (7.95, 9.79), (4.25, 6.58), "cooperative"),
    ("sm_80", 64, 100, 1024, "lstm", "bfloat16", None, (11.72, 13.65), (13.95, 20.62), (7.13, 11.02), "torch"),
    ("sm_80", 16, 100, 1024, "lstm", "float32", None, None, (17.00, 25.59), (11.94, 18.47), "torch"),  # 128 KB for 163
    ("sm_90", 20, 100, 100, "rnn-tanh", "bfloat16", (0.44, 0.44), (1.43, 1.43), (6.35, 6.35), (3.07, 4.72), "resident"),
    ("sm_90", 16, 1024, 768, "lstm", "bfloat16", None, (2.20, 3.04), (7.95, 9.79), (4.18, 6.48), "cooperative"),
    ("sm_90", 16, 1024, 768, "lstm", "float16", None, (2.20, 3.04), (7.95, 9.79), (2.01, 3.11), "torch"),  # persistent
    ("sm_90", 16, 1, 768, "lstm", "bfloat16", None, (8.19, 9.04), (7.95, 9.79), (10.18, 12.47), "cooperative"),  # a launch each
    ("sm_90", 20, 35, 650, "gru", "bfloat16", None, (2.75, 3.66), (8.32, 10.10), (3.84, 5.86), "cooperative"),
    ("sm_90", 64, 100, 1024, "lstm", "bfloat16", None, (6.03, 7.32), (12.42, 18.13), (6.68, 10.32), "cooperative"),
    ("sm_90", 128, 100, 2048, "lstm", "bfloat16", None, None, (56.33, 102.00), (25.66, 39.74), "torch"),  # 32 MB do not fit
    ("sm_90", 16, 100, 50, "gru", "float32", None, (2.02, 2.04), (6.36, 6.50), (3.07, 4.73), "cooperative"),
    ("sm_90", 16, 100, 1024, "lstm", "float32", None, (17.35, 18.21), (13.95, 20.62), (10.90, 16.86), "torch"),
    ("sm_100", 16, 1024, 768, "lstm", "bfloat16", None, (2.32, 3.16), (7.95, 9.79), (4.15, 6.43), "cooperative"),
    ("sm_100", 64, 100, 1024, "gru", "bfloat16", None, (6.16, 7.32), (12.42, 18.13), (5.61, 8.66), "cooperative"),
    ("sm_100", 256, 35, 1024, "rnn-tanh", "float32", None, (69.32, 69.32), (29.73, 29.73), (20.63, 31.89), "torch"),
]


@pytest.mark.parametrize(
    ("device", "batch", "steps", "hidden", "cell", "dtype", "resident", "cooperative", "stepwise", "torch", "best"), TABLE
)
def test_table(
    device: str, batch: int, steps: int, hidden: int, cell: str, dtype: str,
    resident: Any, cooperative: Any, stepwise: Any, torch: Any, best: str,
) -> None:  # fmt: skip
    """What each strategy is predicted to take, and what runs: never what is predicted to be slower than the library."""
    found = predict(batch, steps, hidden, cell, dtype, DEVICES[device])
    expected = {"resident": resident, "cooperative": cooperative, "stepwise": stepwise, "torch": torch}
    for name, times in expected.items():
        prediction = found[name]
        if times is None:
            assert prediction.forward is prediction.backward is prediction.plan is None
        else:
            assert (prediction.forward, prediction.backward) == pytest.approx([steps * t for t in times], abs=0.006 * steps)
    assert faster_than_library(batch, steps, hidden, cell, dtype, DEVICES[device]) == (best != "torch")
    if best != "torch":
        assert choose(batch, steps, hidden, cell, dtype, DEVICES[device]).strategy == best


def test_one_prediction_by_hand() -> None:
    """LSTM, B = 16, H = 768, bfloat16, sm_90, backward: 48 programs read a quarter of 4 x 768 gradients, and sums meet."""
    gathered = 48 * 16 * 768 * 2 + 48 * 2 * 16 * 64 * 4  # d; parts of sums, written and read
    cycles = 820 + 30 * 8 + 120 + 48 * 20 + 3 * 70  # 8 gates a thread, 48 products of 16 of K in three blocks
    step = 0.7 * 2 + gathered / 5.3e6 + cycles / 1755
    assert predict(16, 1000, 768, "lstm", "bfloat16", SM_90)["cooperative"].backward == pytest.approx(6 + 1000 * step)


def test_tiles_of_one_plan() -> None:
    """LSTM, B = 16, H = 1024: 64 programs. W is the first operand where four warps multiply 64 rows, K is shared backward."""
    assert choose(16, 100, 1024, "lstm", "bfloat16", SM_90) == Plan(
        "cooperative", "sentinel", 1024,
        Tiles(16, 16, 256, 4, 4, w_first=True), Tiles(16, 16, 256, 4, 4, parts=4, w_first=True),
    )  # fmt: skip
    assert choose(16, 100, 1024, "lstm", "bfloat16", DEVICES["sm_80"]) == Plan(
        "cooperative", "sentinel", 1024, Tiles(16, 16, 256, 4, 4), Tiles(16, 16, 256, 4, 4, parts=4)
    )


SPILLED = [  # B, H, cell, dtype, direction, tiles that some compiler spills within the loop over time, and how many bytes
    (128, 1024, "lstm", "bfloat16", "forward", Tiles(64, 16, 128, 4, 8), 80),  # and so many tiles of the state
    (64, 1536, "lstm", "bfloat16", "forward", Tiles(64, 16, 128, 2, 8), 224),  # and twelve tiles of K
    (3, 1536, "lstm", "bfloat16", "forward", Tiles(16, 16, 128, 8, 4, w_first=True), 512),
    (3, 1536, "lstm", "bfloat16", "backward", Tiles(16, 16, 128, 8, 4, parts=4, w_first=True), 832),
    (128, 128, "rnn-tanh", "float32", "forward", Tiles(16, 16, 128, 1, 4), 104),  # 128 rows of W in float32
]
SPILLED_ON_80 = [
    (128, 256, "lstm", "float32", "backward", Tiles(16, 32, 128, 4, 8), 8096),  # two rounds in float32
    (20, 1024, "rnn-tanh", "float32", "forward", Tiles(16, 32, 64, 8, 4), 14136),
]
SPILLED_ON_100 = [
    (20, 1024, "lstm", "bfloat16", "backward", Tiles(16, 16, 128, 8, 4, parts=4, w_first=True), 592),
    (20, 650, "gru", "bfloat16", "forward", Tiles(16, 16, 64, 11, 4, w_first=True), 272),
]


@pytest.mark.parametrize(
    ("device", "batch", "hidden", "cell", "dtype", "direction", "tiles", "stack"),
    [
        (device, *case)
        for device, cases in (("sm_90", SPILLED), ("sm_80", SPILLED_ON_80), ("sm_100", SPILLED_ON_100))
        for case in cases
    ],
)
def test_tiles_that_spilled_are_not_taken(
    device: str, batch: int, hidden: int, cell: str, dtype: str, direction: str, tiles: Tiles, stack: int
) -> None:
    """The compiler's word, from python -m recurrent_lm.kernels.bench.sweep: these were the cheapest by prediction."""
    plan = choose(batch, 100, hidden, cell, dtype, DEVICES[device], "cooperative")
    assert getattr(plan, direction) != tiles


def test_without_gradients_the_forward_pass_decides() -> None:
    """Where the library is slower only backward, it still runs what is not trained."""
    how = (64, 100, 512, "rnn-tanh", "float32", DEVICES["sm_90"])
    assert faster_than_library(*how)
    assert not faster_than_library(*how, training=False)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("device", (DEVICES | GUESSED).values(), ids=lambda device: device.name)
def test_few_units_stay_on_chip(device, cell: str, dtype: str) -> None:
    """The cooperative plan refuses fewer than 32 or 64 units; wherever it does, resident fits."""
    for hidden in range(1, 300):
        found = predict(20, 100, hidden, cell, dtype, device)
        assert found["resident"].plan or found["cooperative"].plan
    assert predict(20, 100, 16, cell, dtype, device)["cooperative"].plan is None


@given(
    device=st.sampled_from(list((DEVICES | GUESSED).values())),
    batch=st.integers(1, 300),
    hidden=st.integers(1, 4096),
    cell=st.sampled_from(sorted(CELLS)),
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
)
@settings(deadline=None)
def test_every_plan_holds(device, batch: int, hidden: int, cell: str, dtype: str) -> None:
    """Tiles cover all units and all of K, W fits the device, programs run all at once, wgmma gets 64 rows."""
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
            assert k % tiles.block_k == 0
            assert tiles.block_k >= 16
            assert tiles.block_b in (16, 32, 64)
            assert units % (tiles.block_h * tiles.parts) == 0
            assert k // tiles.parts % tiles.block_k == 0
            if tiles.w_first:
                assert device.wgmma
                assert tiles.block_h * tiles.parts * per_unit == 64
            if name != "stepwise":
                assert k * tiles.block_h * per_unit * size <= device.shared
            if name == "cooperative":
                assert units // tiles.block_h <= device.multiprocessors
            if name == "resident":
                assert (tiles.block_h, tiles.block_k) == (units, k)


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
    assert lines[5].endswith("16 rows x 16 units, K by 256, 4 warps, 4 programs share K, W first")
    assert "predicted to be faster than the library" in lines[6]
    with pytest.raises(ValueError, match="device must be one of sm_80, sm_90, sm_100, sm_86, sm_89, sm_120, not 'sm_70'"):
        explain(16, 1024, 768, device="sm_70")


@pytest.mark.parametrize("device", GUESSED)
def test_consumer_gpus_are_explained_as_guesses(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every time is called guessed; sizes of data center GPUs are not."""
    explain(16, 1024, 768, device=device)
    times = [line for line in capsys.readouterr().out.splitlines() if " us a step " in line]
    assert len(times) >= 2 and all(line.endswith("(guessed)") for line in times)
    explain(16, 1024, 768, device="sm_80")
    assert "guess" not in capsys.readouterr().out


def test_fewer_multiprocessors_hold_less(capsys: pytest.CaptureFixture[str]) -> None:
    """W_h of an LSTM of 512 units, 2 MB, is on chip in 82 programs of 99 KB, and cannot be in 8."""
    explain(16, 100, 512, "lstm", device="sm_86")
    assert "cooperative  does not fit" not in capsys.readouterr().out
    explain(16, 100, 512, "lstm", device="sm_86", multiprocessors=8)
    assert "cooperative  does not fit" in capsys.readouterr().out
    with pytest.raises(ValueError, match="multiprocessors must be at least 1"):
        explain(16, 100, 512, device="sm_86", multiprocessors=0)


def test_kernels_import_without_torch() -> None:
    """What is compiled alone, and the planner, need Triton at most."""
    code = """
import sys
sys.modules["torch"] = None  # importing it fails
from recurrent_lm.kernels.bench import compiled
from recurrent_lm.kernels import tile_cells
from recurrent_lm.kernels.rnn import cells, exchange, plan, scan
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_library_that_takes_tf32() -> None:
    """It beats exact products of float32 where there is much to multiply; halves have their tensor cores anyway."""
    device, large, small = DEVICES["sm_90"], (64, 100, 256, "lstm"), (16, 100, 256, "rnn-tanh")
    assert faster_than_library(*large, "float32", device)
    assert not faster_than_library(*large, "float32", device, tf32=True)
    assert faster_than_library(*small, "float32", device, tf32=True)
    for how in (large, small):
        assert predict(*how, "bfloat16", device, tf32=True) == predict(*how, "bfloat16", device)
