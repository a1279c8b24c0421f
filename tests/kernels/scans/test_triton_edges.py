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
from recurrent_lm.kernels.rnn.scan import norms_of

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
        met = meet(value, p_parts, rows, rows < 1, rows, units, units, 0, 1, step, p_arrivals, 1, 4, EXCHANGE)
        tl.store(p_sums + step * 4 + units[None, :], met)


@pytest.mark.parametrize("exchange", ["sentinel", "counter"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_that_are_infinite_meet_as_infinities(dtype: torch.dtype, exchange: str) -> None:
    """On laps whose bit is set, too; a NaN stays one, and a number loses no more than its last bit."""
    values = torch.tensor([torch.inf, -torch.inf, torch.nan, 1 / 3], dtype=dtype).expand(6, 4).contiguous()
    found, parts = torch.zeros_like(values), torch.zeros(2, 4, dtype=dtype)
    sums[(1,)](values, found, parts, torch.zeros(1, dtype=torch.int32), 6, exchange)
    torch.testing.assert_close(found, values, rtol=2 * torch.finfo(dtype).eps, atol=0, equal_nan=True)


class InFloat32(Case):
    """The gradient that arrives at the outputs alone, at 1e28 or 1e-28 of its usual size."""

    def __init__(self, cell: str, hidden: int, size: float) -> None:
        super().__init__(cell, 3, 2, hidden, torch.float32)
        self.upstream = [size * self.upstream[0], *(0 * u for u in self.upstream[1:])]


@pytest.mark.parametrize("size", [1e28, 1e-28])
@PLANS
@pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])
def test_norms_of_a_gradient_whose_squares_are_no_float32(cell: str, plan: str, size: float) -> None:
    """The trace and clipping by norm, half of whose rows are above the limit, against float64."""
    case = InFloat32(cell, 20 if plan == "cooperative" else 8, size)  # sizes that each plan takes
    with trace_gradients() as truth:
        case(backend="eager")
    limit = float(truth.layers[0].hidden_norms.median())
    for clip in (None, ("norm", limit)):
        with trace_gradients() as truth:
            expected = case(backend="eager", clip_recurrent=clip)
        with trace_gradients() as ours:
            found = case(torch.float32, backend="triton", plan=plan, clip_recurrent=clip)
        norms = [trace.layers[0].hidden_norms.double() for trace in (ours, truth)]
        torch.testing.assert_close(*norms, rtol=1e-4, atol=0)
        for mine, exact in zip(found, expected, strict=True):
            assert (mine.double() - exact).abs().max() <= 1e-4 * exact.abs().max()


@triton.jit
def norms_of_rows(p_x, p_norms):
    rows, columns = tl.arange(0, 8), tl.arange(0, 16)
    tl.store(p_norms + rows, norms_of(tl.load(p_x + rows[:, None] * 16 + columns[None, :]), 1))


def test_a_row_has_its_norm_whatever_its_size() -> None:
    """Plain squares' own norm where they are normal numbers; inf and NaN stay what they are."""
    x = torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x * 10.0 ** torch.tensor([0.0, 37.0, 25.0, -25.0, -37.0, 15.1, -12.1, -40.0])[:, None]).float()
    found = torch.empty(8)
    norms_of_rows[(1,)](x, found)
    torch.testing.assert_close(found.double(), x.double().norm(dim=1), rtol=1e-6, atol=2**-149)
    x[0, 3], x[1, 3], x[2] = torch.inf, torch.nan, 0
    norms_of_rows[(1,)](x, found)
    assert found[0] == torch.inf
    assert found[1].isnan()
    assert found[2] == 0
