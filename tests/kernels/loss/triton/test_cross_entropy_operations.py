"""The fused losses as torch operations: torch's own checks, and torch.compile without a graph break."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from loss_cases import WARNINGS
from loss_checks import options, rows_of_logits
from torch import Tensor

from recurrent_lm import kernels
from recurrent_lm.kernels.loss import ops as loss_linear

pytestmark = WARNINGS
LOGITS = import_module("recurrent_lm.kernels.loss.cross_entropy")  # the attribute of that name is the function
HOW = (-100, 0.1, 0.01, 3.0)


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x [5, 3], W [7, 3], b [7], targets with one ignored, class weights."""
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(s, generator=generator).requires_grad_() for s in ((5, 3), (7, 3), (7,)))
    return x, w, b, torch.tensor([0, 6, -100, 3, 3]), torch.rand(7, generator=generator)


def check(operation: Any, *arguments: Any) -> None:
    """Schema, fake tensors, autograd registration and tracing agree with what the operation does."""
    results = torch.library.opcheck(operation, arguments)
    assert set(results.values()) == {"SUCCESS"}


def test_operations_on_logits() -> None:
    logits, target = rows_of_logits(5, 7)
    weight, rows = torch.rand(7).double(), torch.rand(5).double()
    check(LOGITS.forward, logits.clone().requires_grad_(), target, weight, *HOW, True, False)
    check(LOGITS.forward, logits.clone().requires_grad_(), target, None, -100, 0.0, 0.0, None, False, True)
    check(LOGITS.backward, logits, target, weight, rows, rows, rows, None, *HOW)
    check(LOGITS.backward_inplace, logits, target, weight, rows, rows, rows, rows, *HOW)


@pytest.mark.parametrize("strategy", ["torch", "chunked"])
def test_operation_of_the_sum(strategy: str) -> None:
    x, w, b, target, weight = problem()
    check(loss_linear.total, x, w, b, target, weight, *HOW, torch.float32, strategy, True, True, True, True, True)
    check(loss_linear.total, x, w, None, target, None, *HOW, torch.float32, strategy, False, False, True, True, False)


@pytest.mark.parametrize(("strategy", "eps"), [("torch", None), ("chunked", None), ("cut", None), ("cut", 0.01)])
def test_operations_of_the_rows(strategy: str, eps: float | None) -> None:
    x, w, b, target, weight = problem()
    check(loss_linear.single, x, w, b, target, weight, *HOW, torch.float32, strategy, True, eps)
    rows, leaves = torch.rand(5), [t.detach() for t in (x, w, b)]
    how = (*HOW, torch.float32, strategy, eps, True, False, True)
    check(loss_linear.single_backward, *leaves, target, weight, rows, rows, rows, rows, *how)


def same_when_compiled(function: Callable[..., Any], *leaves: Tensor) -> None:
    """One graph, and the results and gradients of the function uncompiled."""
    torch._dynamo.reset()
    results = []
    for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        fresh = [t.detach().clone().requires_grad_() for t in leaves]
        loss, *others = run(*fresh)
        results.append([loss.detach(), *others, *torch.autograd.grad(loss, fresh)])
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("backend", ["triton", "eager"])
def test_compiled_on_logits(backend: str, inplace: bool) -> None:
    logits, target = rows_of_logits(5, 7)
    how = options("weight and smoothing", 7) | {"backend": backend, "inplace_backward": inplace, "return_metrics": True}

    def loss(x: Tensor) -> Any:
        value, metrics = kernels.cross_entropy(x * 1, target, **how)
        return value, *metrics

    same_when_compiled(loss, logits)


@pytest.mark.parametrize(("backend", "strategy"), [("torch", None), ("triton", "chunked"), ("triton", "cut"), ("eager", None)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_linear(backend: str, strategy: str | None, reduction: str) -> None:
    x, w, b, target, weight = problem()

    def loss(x: Tensor, w: Tensor, b: Tensor) -> Any:
        how: dict[str, Any] = {"weight": weight, "label_smoothing": 0.1, "softcap": 3.0, "reduction": reduction}
        value, metrics = kernels.linear_cross_entropy(
            x, w, target, linear_bias=b, return_metrics=True, backend=backend, strategy=strategy, **how
        )  # fmt: skip
        return value.square().sum(), *metrics

    same_when_compiled(loss, x, w, b)
