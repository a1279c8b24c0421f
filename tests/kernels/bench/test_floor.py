"""The floor of a recurrent layer: by hand, and below everything that is predicted. No GPU, no torch."""

import subprocess
import sys
from math import isnan

import pytest
from paths import ROOT

from recurrent_lm.kernels.bench.floor import BATCHES, HIDDEN, floor, main
from recurrent_lm.kernels.rnn import plan as plans


def test_by_hand() -> None:
    """LSTM, B = 16, T = 1024, H = 768, bfloat16: 60 MB and 155 GFLOP forward; with backward 179 MB and three times that."""
    state, weights = 1024 * 16 * 768 * 2, 8 * 768 * 768 * 2
    forward = floor(16, 1024, 768, "lstm", "bfloat16", terabytes=2.0, teraflops=500.0)
    assert forward.bytes == pytest.approx((2 * state + weights) / 2e6)
    assert forward.operations == pytest.approx(2 * 1024 * 16 * 3072 * (768 + 768) / 500e6)
    both = floor(16, 1024, 768, "lstm", "bfloat16", backward=True, terabytes=2.0, teraflops=500.0)
    assert both.bytes == pytest.approx((6 * state + 3 * weights) / 2e6)
    assert both.operations == pytest.approx(3 * forward.operations)
    assert both.exchange == pytest.approx(2 * forward.exchange)


def test_the_exchange_is_the_estimate_until_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured constants replace it; where W_h does not fit there is none."""
    monkeypatch.setattr("recurrent_lm.kernels.bench.floor.exchange_floor", lambda *_: (float("nan"), float("nan")))
    found = floor(16, 100, 768, "lstm", "bfloat16")
    assert (found.measured, found.exchange) == (False, pytest.approx(100 * plans.WAIT["sentinel"]))
    none = floor(16, 100, 2048, "lstm", "bfloat16")
    assert isnan(none.exchange)
    assert none.total == max(none.bytes, none.operations)
    monkeypatch.setattr("recurrent_lm.kernels.bench.floor.exchange_floor", lambda *_: (1.5, 2.5))
    found = floor(16, 100, 768, "lstm", "bfloat16", backward=True)
    assert (found.measured, found.exchange) == (True, pytest.approx(400))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("batch", BATCHES)
def test_no_cooperative_plan_is_predicted_below_its_exchange(batch: int, hidden: int, cell: str) -> None:
    """A prediction faster than what it is made of would be a mistake in one of the two."""
    plan = plans.predict(batch, 1024, hidden, cell, "bfloat16", plans.DEVICES["sm_90"])["cooperative"]
    if plan.plan is not None:
        assert plan.total > floor(batch, 1024, hidden, cell, "bfloat16", backward=True).exchange


def test_the_command_prints_every_size(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["recurrent_lm.kernels.bench.floor"])
    main()
    printed = capsys.readouterr().out
    rows = [line.split()[:2] for line in printed.splitlines()[5:]]
    assert rows == [[str(batch), str(hidden)] for batch in BATCHES for hidden in HIDDEN]
    assert "of the H100's datasheet" in printed


def test_a_reader_that_has_enough_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "recurrent_lm.kernels.bench.floor"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
