"""What repeats bit for bit, as the README says: a run with its own number of threads, in float32 and in bf16, for each cell."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from recurrent_lm.lm.base.errors import Stopped
from recurrent_lm.lm.config import ModelConfig
from recurrent_lm.lm.model import LanguageModel, flatten, in_halves
from recurrent_lm.lm.training import start as launch

Make = Callable[..., Any]
CELLS = pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@CELLS
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_resumed_run_repeats_bit_for_bit_with_the_threads_that_it_was_begun_with(
    tmp_path: Path, corpus: Path, make_config: Make, cell: str, precision: str
) -> None:
    """Whatever number the process that resumes it has."""
    config = make_config(corpus, cell=cell, precision=precision, backend="torch", threads=1, dropout=0.3, max_steps=6, epochs=9)
    whole = launch.new_training(config, tmp_path / "whole")
    whole.run(quiet=True)
    training = launch.new_training(config, tmp_path / "run")
    log = training.journal.step

    def interrupted(*figures: Any) -> None:
        log(*figures)
        training.signum = signal.SIGINT if training.at.step == 3 else 0

    training.journal.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        training.run(quiet=True)
    torch.set_num_threads(2)
    launch.resume(tmp_path / "run").run(quiet=True)
    assert torch.get_num_threads() == 1
    assert (tmp_path / "run" / "steps.jsonl").read_bytes() == (tmp_path / "whole" / "steps.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("cell", "within"), [("lstm", 0), ("gru", 2**-8), ("rnn-tanh", 2**-8), ("rnn-relu", 2**-8), ("rnn-sigmoid", 2**-8)]
)
def test_the_state_between_passes_under_autocast(cell: str, within: float) -> None:
    """Numbers of bfloat16 for every cell. Where a text is cut into passes makes no difference to any bit of oneDNN's LSTM. The
    scan carries float32 from step to step within a pass: there it makes that of rounding the state once."""
    torch.manual_seed(0)
    model = LanguageModel(50, ModelConfig(cell=cell, hidden_size=16), "torch").eval()
    tokens = torch.randint(50, (3, 7))
    with torch.no_grad():
        hidden, after = in_halves(model, tokens, model.zero_state(3), None)
        first, between = in_halves(model, tokens[:, :3], model.zero_state(3), None)
        second, last = in_halves(model, tokens[:, 3:], between, None)
    assert (torch.cat([first, second]) - hidden).abs().max() <= within
    for state, again in zip(flatten(after), flatten(last), strict=True):
        assert state.dtype == torch.float32
        assert (state - again).abs().max() <= within
        assert torch.equal(state, state.bfloat16().float())
