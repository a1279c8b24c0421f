"""Norms of rows and recurrent clipping where the squares of a gradient are no float32, against float64."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recurrent_lm import kernels
from recurrent_lm.kernels.rnn.norms import scaled_norm, vector_norm
from recurrent_lm.kernels.rnn.watched import clipped

ROWS = st.lists(st.floats(-40.0, 37.0), min_size=1, max_size=5)  # log10 of the sizes of rows
HOSTS = pytest.mark.parametrize("backend", ["eager", "torch"])
CELLS = pytest.mark.parametrize("cell", ["rnn-tanh", "lstm", "gru"])


def rows_of(logs: list[float]) -> torch.Tensor:
    """[rows, 50] in float32."""
    normal = torch.randn(len(logs), 50, generator=torch.Generator().manual_seed(len(logs)), dtype=torch.double)
    return (normal * 10 ** torch.tensor(logs, dtype=torch.double)[:, None]).float()


@settings(deadline=None)
@given(ROWS)
@example([37.0, -40.0, 0.0, 20.0, -22.0])
def test_norms_of_rows(logs: list[float]) -> None:
    """Each row by itself; the plain norm, bit for bit, where its squares are normal numbers."""
    x = rows_of(logs)
    found, truth, plain = vector_norm(x, dim=-1), x.double().norm(dim=-1), x.norm(dim=-1)
    subnormal = 2**-149  # the norm's own rounding
    torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=subnormal)
    right = (plain > 1e-14) & plain.isfinite()
    assert torch.equal(found[right], plain[right])
    assert float(vector_norm(x)) == pytest.approx(float(x.double().norm()), rel=1e-6, abs=subnormal)


def test_no_number_is_read_back() -> None:
    """On the device "meta" there is none."""
    x = torch.ones(3, 4, device="meta")
    assert vector_norm(x, dim=-1).shape == (3,)
    assert kernels.total_norm([x, x]).shape == ()
    assert clipped(x, ("norm", 1.0)).shape == (3, 4)


def test_shapes_types_and_what_is_no_number() -> None:
    x = torch.randn(3, 4, 5)
    assert vector_norm(x, dim=-1, keepdim=True).shape == (3, 4, 1)
    assert vector_norm(x, dim=(1, 2)).shape == (3,)
    assert vector_norm(x).shape == ()
    assert vector_norm(x.half()).dtype == torch.float32
    assert vector_norm(x.double()).dtype == torch.float64
    assert vector_norm(torch.tensor([1.0, math.nan])).isnan()
    assert vector_norm(torch.tensor([1.0, -math.inf])) == math.inf
    assert vector_norm(torch.zeros(4)) == 0
    assert vector_norm(torch.full((4,), 3e38)) == math.inf, "6e38 is no float32"
    assert float(vector_norm(torch.full((4,), 1e300, dtype=torch.double))) == pytest.approx(2e300, rel=1e-15)
    norm, scale = scaled_norm(torch.full((4,), 3e38))
    assert scale is not None
    assert float(norm) / float(scale) == pytest.approx(6e38, rel=1e-6)
    assert kernels.total_norm([]).item() == kernels.total_norm_on_host([torch.zeros(0)]) == 0


@settings(deadline=None)
@given(ROWS, st.floats(-8.0, 0.5))
@example([37.0, 18.0, -30.0], -30.0)
@example([19.0, 20.0], -37.0)
def test_recurrent_clipping_shortens_any_row_to_the_limit(logs: list[float], ratio: float) -> None:
    """The limit is relative to the first row; rows below it keep every bit."""
    x = rows_of(logs)
    truth = x.double().norm(dim=-1)
    limit = float(truth[0]) * 10**ratio
    found = clipped(x, ("norm", limit))
    torch.testing.assert_close(found.double().norm(dim=-1), truth.clamp(max=limit), rtol=1e-6, atol=2**-149 * math.sqrt(50))
    below = truth < limit * (1 - 1e-6)
    assert torch.equal(found[below], x[below])


@HOSTS
@CELLS
@pytest.mark.parametrize("size", [1e28, 1e-28])
def test_the_trace_of_a_gradient_whose_squares_are_no_float32(cell: str, backend: str, size: float) -> None:
    """Both norms are those of a gradient of ordinary size, times its size."""
    torch.manual_seed(0)
    layer = {"rnn-tanh": kernels.RNN, "lstm": kernels.LSTM, "gru": kernels.GRU}[cell](6, 8, backend=backend)
    x, upstream = torch.randn(5, 3, 6), torch.randn(5, 3, 8)
    traces = []
    for factor in (1.0, size):
        with kernels.trace_gradients() as trace:
            layer(x)[0].backward(upstream * factor)
        traces.append(trace.layers[0])
    plain, ours = traces
    for name in ("hidden_norms", "weight_norms"):
        found, truth = getattr(ours, name), getattr(plain, name)
        assert (found[1:] > 0).all()  # at the first step h(0) = 0, so the weight's part is 0
        torch.testing.assert_close(found / size, truth, rtol=1e-5, atol=0)


@HOSTS
@CELLS
def test_recurrent_clipping_of_such_a_gradient(cell: str, backend: str) -> None:
    """It leaves what it leaves of the same gradient at an ordinary size: all rows are above the limit in both."""
    torch.manual_seed(0)
    kind = {"rnn-tanh": kernels.RNN, "lstm": kernels.LSTM, "gru": kernels.GRU}[cell]
    layer = kind(6, 8, backend=backend, clip_recurrent=("norm", 1e-3))
    x, upstream = torch.randn(5, 3, 6), torch.zeros(5, 3, 8)
    upstream[-1] = torch.randn(3, 8)
    found = []
    for factor in (1.0, 1e30):
        layer.zero_grad()
        layer(x)[0].backward(upstream * factor)
        found.append([p.grad.clone() for p in layer.parameters() if p.grad is not None])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-10)
