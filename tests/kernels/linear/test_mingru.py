"""minGRU by every backend, Triton in its interpreter, against a loop over its equation in float64."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accuracy import near
from torch import Tensor

from recurrent_lm.kernels import recurrence, step
from recurrent_lm.kernels.linear import ops

BACKENDS = pytest.mark.parametrize("backend", ["eager", "torch", "triton"])
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _unwritten_is_nan() -> Iterator[None]:
    """Memory that nobody wrote is NaN, so that reading it shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


class Case:
    """Arguments of one layer in float64, held exactly by ``dtype``: input, h(0), weight_ih, bias_ih; and dL/dh of a loss."""

    def __init__(self, steps: int, batch: int, hidden: int, dtype: torch.dtype = torch.float64, bias: bool = True) -> None:
        generator = torch.Generator().manual_seed(steps + 10 * batch + 100 * hidden)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).double()

        self.tensors = [draw(steps, batch, 3), draw(batch, hidden), draw(2 * hidden, 3), *([draw(2 * hidden)] if bias else [])]
        self.upstream = [draw(steps, batch, hidden), draw(batch, hidden)]
        self.reset = torch.rand(steps, batch, generator=generator) < 0.3

    def __call__(self, dtype: torch.dtype = torch.float64, **options: Any) -> list[Tensor]:
        """Output, final state, and the gradients of all arguments."""
        leaves = [t.to(dtype, copy=True).requires_grad_() for t in self.tensors]
        results = run(*leaves, **options)
        found = torch.autograd.grad(results, leaves, [u.to(r.dtype) for u, r in zip(self.upstream, results, strict=True)])
        return [*(r.detach() for r in results), *found]


def run(input: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> list[Tensor]:
    output, (final,) = recurrence("mingru", input, (h,), weight, bias_ih=bias, **options)
    return [output, final]


def by_equation(
    input: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None = None, reset: Tensor | None = None
) -> list[Tensor]:
    """Feng et al. 2024: h' = (1 - z) h + z c with z = s(x W_z + b_z) and c = x W_c + b_c; no code of this project."""
    (w_z, w_c), (b_z, b_c) = weight.chunk(2), (0.0, 0.0) if bias is None else bias.chunk(2)
    outputs = []
    for t, x in enumerate(input):
        h = h if reset is None else h * ~reset[t][:, None]
        z = 1 / (1 + torch.exp(-(x @ w_z.t() + b_z)))
        h = (1 - z) * h + z * (x @ w_c.t() + b_c)
        outputs.append(h)
    return [torch.stack(outputs), h]


def same(actual: list[Tensor], expected: list[Tensor], tolerance: float = 1e-12) -> None:
    """Each tensor's largest error, relative to its largest entry."""
    for index, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.shape == e.shape
        error = float((a - e).abs().max() / e.abs().max().clamp(min=1e-3))
        assert error < tolerance, f"tensor {index}: error {error:.1e}"


def test_step_by_hand() -> None:
    """z = log 3 replaces three quarters of h = 8 by c = 4; z = -log 3 one quarter."""
    z = torch.tensor([[math.log(3), -math.log(3), 4.0, 4.0]], dtype=torch.float64)
    (h,) = step("mingru", z, (torch.full((1, 2), 8.0, dtype=torch.float64),))
    torch.testing.assert_close(h, torch.tensor([[5.0, 7.0]], dtype=torch.float64), rtol=1e-14, atol=0)


# One step, one row and unit; two units past a block of 32; one step past a block of 64; two whole blocks of time.


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 34), (65, 2, 3), (128, 1, 2)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@BACKENDS
def test_float64(backend: str, bias: bool, shape: tuple[int, int, int]) -> None:
    """Outputs, state and gradients are exact to rounding, with resets and without."""
    case = Case(*shape, bias=bias)
    for reset in (None, case.reset, torch.zeros_like(case.reset)):
        leaves = [t.clone().requires_grad_() for t in case.tensors]
        truth = by_equation(*leaves, *([] if bias else [None]), reset)
        gradients = torch.autograd.grad(truth, leaves, case.upstream)
        same(case(backend=backend, reset=reset), [*(r.detach() for r in truth), *gradients])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_error_is_at_most_about_twice_that_of_eager(backend: str, dtype: torch.dtype) -> None:
    case = Case(70, 3, 34, dtype)
    got = case(dtype, backend=backend, reset=case.reset)
    assert all(g.dtype == dtype for g in got)
    near(got, case(dtype, backend="eager", reset=case.reset), case(reset=case.reset, backend="eager"))


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_nan_stays(backend: str) -> None:
    """A NaN in the input is NaN wherever autograd has it and nowhere else: it ends at a reset, not in a product that is 0."""
    case = Case(90, 2, 2)
    case.tensors[2] *= 40  # gates of 0 and 1: products of (1 - z) underflow
    case.tensors[0][3, 1] = torch.nan
    for reset in (None, case.reset):
        got, expected = case(torch.float32, backend=backend, reset=reset), case(torch.float32, backend="eager", reset=reset)
        assert got[0][3, 1].isnan().all()
        for index, (a, e) in enumerate(zip(got, expected, strict=True)):
            assert torch.equal(a.isnan(), e.isnan()), f"tensor {index}"


@BACKENDS
def test_a_gate_of_one_behind_a_reset_does_not_bring_back_what_the_reset_forgot(backend: str) -> None:
    """A reset and 1 - z = 0 behind it are one map that forgets h, here a NaN."""
    input, h = torch.ones(3, 1, 1), torch.full((1, 1), torch.nan)
    weight = torch.tensor([[1000.0], [2.0]])  # z = 1 and c = 2
    reset = torch.tensor([[True], [False], [False]])
    output, final = run(input, h, weight, backend=backend, reset=reset)
    assert output.flatten().tolist() == [2.0, 2.0, 2.0]
    assert final.item() == 2.0


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_operations_are_registered(backend: str) -> None:
    """torch's own checks of schema, autograd, fake tensors and AOTAutograd."""
    case = Case(3, 2, 4, torch.float32)
    x, h, weight, bias = (t.float().requires_grad_() for t in case.tensors)
    if backend == "triton":
        sums = (x.detach() @ weight.detach().t()).requires_grad_()
        torch.library.opcheck(torch.ops.recurrent_lm.scan_linear, (sums, h, case.reset, x.detach(), "mingru"))
    else:
        none = (x, h, None, weight, h.new_empty(0, 4), bias, None, case.reset, "mingru", "none", 0.0, True)
        torch.library.opcheck(torch.ops.recurrent_lm.host_forward, none, rtol=1e-4, atol=1e-4)


def test_tiles_end_at_the_sequence_and_at_the_layer() -> None:
    like = torch.empty(0, dtype=torch.float16)
    grid, options = ops._launch(5, 3, 40, None, like)
    assert (grid, options["BLOCK_T"], options["BLOCK_H"]) == ((3, 2), 8, 32)
