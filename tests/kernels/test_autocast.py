"""Autocast: parameters stay in float32, products are of halves, and the planner is asked about these."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from scan_checks import Case, error
from torch import Tensor

from recurrent_lm.kernels import CELLS, recurrence, trace_gradients
from recurrent_lm.kernels.rnn import ops as scan_op


@pytest.mark.parametrize(("backend", "dtype"), [("torch", torch.bfloat16), ("triton", torch.float16)])
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_gradients_of_float32_by_products_of_halves(cell: str, backend: str, dtype: torch.dtype) -> None:
    """As near to float64 as halves come, in the parameters' dtype."""
    case = Case(cell, 4, 3, 5)
    with torch.autocast("cpu", dtype):
        found = case(torch.float32, backend=backend)
    assert all(result.dtype == dtype for result in found[: 1 + case.states])
    assert all(gradient.dtype == torch.float32 for gradient in found[1 + case.states :])
    assert 1e-5 < error(found, case(backend="eager")) < 10 * torch.finfo(dtype).eps


@pytest.mark.parametrize("clip", [None, ("value", 1.0)], ids=["plain", "clipped"])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no-grad"])
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_every_backend_gives_the_same_dtypes(cell: str, grad: bool, clip: Any) -> None:
    """Autocast's own for outputs and states, also of layers whose input is of halves already; float64 is left alone."""
    for dtype in (torch.float16, torch.bfloat16):
        for given, expected in ((torch.float32, dtype), (dtype, dtype), (torch.float64, torch.float64)):
            for backend in ("eager", "torch", "triton"):
                if backend == "triton" and dtype == torch.bfloat16:
                    continue  # which the interpreter multiplies wrongly
                case = Case(cell, 2, 2, 5)
                parameters = torch.float64 if given == torch.float64 else torch.float32
                input, *others = (
                    t.to(given if i == 0 else parameters).requires_grad_(grad) for i, t in enumerate(case.tensors)
                )
                state, weights = tuple(others[: case.states]), others[case.states :]
                with torch.autocast("cpu", dtype):
                    output, final = recurrence(cell, input, state, *weights, backend=backend, clip_recurrent=clip)
                assert [r.dtype for r in (output, *final)] == [expected] * (1 + case.states), (backend, dtype, given)
                if grad:
                    gradients = torch.autograd.grad(output.float().sum(), [input, *others], allow_unused=True)
                    dtypes = [g.dtype for g in gradients if g is not None]
                    assert dtypes == [t.dtype for t, g in zip([input, *others], gradients, strict=True) if g is not None]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_backward_pass_within_autocast_keeps_the_dtypes_of_the_forward_pass(cell: str) -> None:
    case = Case(cell, 4, 3, 5)
    results: list[list[Tensor]] = []
    for context in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        leaves = [t.float().requires_grad_() for t in case.tensors]
        state, weights = tuple(leaves[1 : 1 + case.states]), leaves[1 + case.states :]
        output, _ = scan_op.triton_recurrence(cell, leaves[0], state, *weights, case.reset, recompute=True)
        with trace_gradients() as trace, context:
            gradients = torch.autograd.grad(output.sum(), leaves)
        results.append([*gradients, trace.layers[0].hidden_norms, trace.layers[0].weight_norms])
    for plain, within in zip(*results, strict=True):
        assert torch.equal(plain, within)


def test_the_planner_is_asked_about_the_dtype_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(scan_op, "_better", lambda *sizes: asked.append(sizes[4]) or True)
    input, weight = torch.zeros(2, 3, 4), torch.zeros(20, 5)
    assert scan_op.better_than_library("lstm", input, weight, True)
    with torch.autocast("cpu", torch.bfloat16):
        assert scan_op.better_than_library("lstm", input, weight, True)
        assert not scan_op.better_than_library("lstm", input.double(), weight, True), "autocast leaves float64 alone"
    assert not scan_op.better_than_library("lstm", input.double(), weight, True), "there is no kernel of float64"
    assert asked == ["float32", "bfloat16"]


def test_the_planner_knows_whether_the_library_takes_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(scan_op, "_faster", lambda *sizes: asked.append(sizes[-1]) or True)
    kept = torch.backends.cudnn.allow_tf32
    try:
        for torch.backends.cudnn.allow_tf32 in (True, False):
            scan_op.better_than_library("lstm", torch.zeros(2, 3, 4), torch.zeros(20, 5), True)
    finally:
        torch.backends.cudnn.allow_tf32 = kept
    assert asked == [True, False]
