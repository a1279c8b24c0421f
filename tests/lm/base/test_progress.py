import math
import os
from pathlib import Path

import pytest
from forked import Child

from recurrent_lm.lm.base.console import clock
from recurrent_lm.lm.base.progress import Display, figures, shown_perplexity


def test_a_step_fits_into_80_columns():
    values = {"loss": 7.123, "perplexity": 1240.1, "bits_per_byte": 2.345, "grad_norm": 3.45, "tokens_per_second": 12345}
    assert len(f"98% epoch 14 {figures(values)} 9:59 left") <= 80
    assert figures({"loss": 1.5, "perplexity": 4.4817}) == "loss 1.500 ppl 4.5"


def test_unknown_tokens_stand_beside_the_perplexity():
    assert figures({"valid_loss": 1.5, "perplexity": 4.4817, "unknown": 0.034}) == "valid 1.500 ppl 4.5 (3.4% unk)"


def test_the_perplexity_of_a_spoilt_model_fits_into_a_line():
    shown = {loss: figures({"loss": loss, "perplexity": math.exp(loss)}) for loss in (7.0, 20.0, 21.0, 699.0)}
    assert [text.split("ppl ")[1] for text in shown.values()] == ["1,097", "485,165,195", "1.32e+09", "3.73e+303"]
    assert shown_perplexity(math.inf) == "inf"
    assert (shown_perplexity(76.021), shown_perplexity(813.9, 1), shown_perplexity(12345.678)) == (
        "76.02",
        "813.9",
        "12,345.68",
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (86399, "23:59:59")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_plain_lines_come_at_intervals_and_tell_the_time_left(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr("recurrent_lm.lm.base.progress.time.monotonic", lambda: now[0])
    with Display(100, 0, "step") as display:
        for step in range(1, 41):
            now[0] += 1.0
            display.show(step, f"epoch 1 {figures({'loss': 2.0})}")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "step 10/100 epoch 1 loss 2.000 1:30 left",
        "step 20/100 epoch 1 loss 2.000 1:20 left",
        "step 30/100 epoch 1 loss 2.000 1:10 left",
        "step 40/100 epoch 1 loss 2.000 1:00 left",
    ]


def test_quiet_says_nothing(capsys):
    with Display(2, 0, "step", quiet=True) as display:
        display.line("nothing")
        display.show(2, "nothing")
    assert capsys.readouterr().out == ""


def test_a_training_goes_on_when_its_reader_goes_away(tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("the people of the union stand by the people. " * 40)
    run = tmp_path / "run"
    settings = ["--tokens", "char", "--rows", "4", "--bptt", "8", "--hidden-size", "8", "--epochs", "6", "--patience", "0"]
    out = tmp_path / "out"
    os.mkfifo(out)
    process = Child("lm", ["train", text, "--run", run, *settings], out, tmp_path / "err")
    with out.open() as reader:
        assert reader.readline().startswith("text: 1 document")
    assert (process.wait(), process.err.read_text()) == (0, "")
    assert (run / "result.json").exists()
