"""The Triton recurrence at the edges: empty batches, infinities, NaN of all ones, and parts of sums that are infinite."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from scan_checks import Case, one_program

from recurrent_lm.kernels import CELLS, DEVICES, GRU, LSTM, RNN, explain, predict, trace_gradients
from recurrent_lm.kernels.rnn.exchange import meet
from recurrent_lm.kernels.rnn.plan import faster_than_library

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinities
PLANS = pytest.mark.parametrize("plan", ["stepwise", "resident", "cooperative"])
EVERY = pytest.mark.parametrize("cell", sorted(CELLS))


@pytest.fixture(autouse=True)
def _one_program() -> Iterator[None]:
    with one_program():
        yield


@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"clip_recurrent": ("norm", 1.0)}], ids=str)
@pytest.mark.parametrize("module", [RNN, LSTM, GRU])
def test_an_empty_batch(module: Any, options: Any) -> None:
    """Shapes and zero gradients are those of the torch backend, and its trace is empty."""
    found = []
    for backend in ("triton", "torch"):
        made = module(3, 5, 2, backend=backend, **options)
        x = torch.zeros(4, 0, 3, requires_grad=True)
        output, state = made(x, reset=torch.zeros(4, 0, dtype=torch.bool))
        with trace_gradients() as trace:
            output.sum().backward()
        states = state if isinstance(state, tuple) else (state,)
        norms = [t for layer in trace.layers for t in (layer.hidden_norms, layer.weight_norms)]
        found.append([output, *states, x.grad, *(p.grad for p in made.parameters()), *norms])
    for ours, expected in zip(*found, strict=True):
        assert ours.shape == expected.shape
        assert torch.equal(ours, expected)


def test_the_planner_takes_an_empty_batch(capsys: pytest.CaptureFixture[str]) -> None:
    """The default on a GPU asks it first."""
    empty, one = (predict(batch, 4, 64, "lstm", "bfloat16", DEVICES["sm_90"]) for batch in (0, 1))
    assert empty == one
    assert isinstance(faster_than_library(0, 4, 64, "lstm", "bfloat16", DEVICES["sm_90"]), bool)
    explain(0, 4, 64)
    assert "B = 0" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["input", "state"])
@pytest.mark.parametrize("sign", [1, -1])
@PLANS
@EVERY
def test_an_infinity_stays_where_it_is(cell: str, plan: str, sign: int, where: str) -> None:
    """Padded units do not turn it into NaN a step later: values and gradients are those of the eager backend."""
    case = Case(cell, 3, 2, 5)
    if where == "input":
        case.tensors[0][1, 0, 0] = sign * torch.inf
    else:
        case.tensors[1][0, 0] = sign * torch.inf
    expected, found = case(backend="eager"), case(backend="triton", plan=plan)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, equal_nan=True)
    assert expected[0].isfinite().any()


@pytest.mark.timeout(100)
@pytest.mark.parametrize("exchange", ["sentinel", "counter"])
@EVERY
def test_a_state_that_is_nan_with_every_bit_set_ends(cell: str, exchange: str) -> None:
    """The first step reads it directly: it is not taken for one that is not written yet."""
    case = Case(cell, 3, 2, 5)
    case.tensors[1].view(torch.int64)[0] = -1
    assert case.tensors[1][0].isnan().all()
    found = case(plan="cooperative", exchange=exchange)[: 1 + case.states]
    for ours, expected in zip(found, case(backend="eager"), strict=False):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12, equal_nan=True)
    assert not found[0][:, 1].isnan().any()


@triton.jit
def sums(p_values, p_sums, p_parts, p_arrivals, STEPS: tl.constexpr, EXCHANGE: tl.constexpr):
    rows, units = tl.arange(0, 1), tl.arange(0, 4)
    for step in range(STEPS):
        value = tl.load(p_values + step * 4 + units[None, :])
        met = meet(value, p_parts, rows, rows < 1, units, units, 0, 1, step, p_arrivals, 1, 4, EXCHANGE)
        tl.store(p_sums + step * 4 + units[None, :], met)


@pytest.mark.parametrize("exchange", ["sentinel", "counter"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_that_are_infinite_meet_as_infinities(dtype: torch.dtype, exchange: str) -> None:
    """On laps whose bit is set, too; a NaN stays one, and a number loses no more than its last bit."""
    values = torch.tensor([torch.inf, -torch.inf, torch.nan, 1 / 3], dtype=dtype).expand(6, 4).contiguous()
    found, parts = torch.zeros_like(values), torch.zeros(2, 4, dtype=dtype)
    sums[(1,)](values, found, parts, torch.zeros(1, dtype=torch.int32), 6, exchange)
    torch.testing.assert_close(found, values, rtol=2 * torch.finfo(dtype).eps, atol=0, equal_nan=True)
