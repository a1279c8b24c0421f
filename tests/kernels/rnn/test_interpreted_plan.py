"""Which plan runs where nobody names one and there is no GPU."""

import pytest
import torch
from scan_checks import Case

from recurrent_lm.kernels import CELLS
from recurrent_lm.kernels.rnn.launch import plan_for


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("hidden", [1, 20, 64, 200, 1024])
def test_the_interpreter_takes_no_plan_whose_programs_wait_for_each_other(cell: str, hidden: int) -> None:
    """It runs programs one after another: with LSTMs of 20 units, for which resident spills, an exchange never ended."""
    for dtype in (torch.float16, torch.float32, torch.float64):
        taken = plan_for(2, 4, hidden, cell, torch.empty(0, dtype=dtype), None, "sentinel")
        assert taken.strategy in ("resident", "stepwise") and taken.exchange == "none"


def test_a_plan_that_is_named_is_taken() -> None:
    assert plan_for(2, 4, 256, "lstm", torch.empty(0), "cooperative", "counter").exchange == "counter"


def test_the_interpreter_refuses_what_would_never_end() -> None:
    case = Case("lstm", 2, 3, 64)
    with pytest.raises(
        ValueError, match=r"'cooperative' takes \d+ programs that wait for each other.*'resident' or 'stepwise'"
    ):
        case(torch.float32, plan="cooperative", backend="triton")
    assert case(torch.float32, plan="stepwise", backend="triton")[0].shape == (2, 3, 64)
