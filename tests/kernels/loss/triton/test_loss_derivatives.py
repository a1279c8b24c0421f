"""Which derivatives the losses have, by every backend: torch.func, kept graphs, checkpoints; and what is refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from loss_cases import WARNINGS
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recurrent_lm.kernels import cross_entropy, linear_cross_entropy

pytestmark = [
    WARNINGS,
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),  # torch's own, where it loads forward mode
]
LINEAR = [("torch", None), ("triton", "cut"), ("triton", "chunked")]
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "none"])
FUSED = pytest.mark.parametrize(("backend", "strategy"), [*LINEAR, ("triton", "logits")])
ALL = pytest.mark.parametrize(("backend", "strategy"), [*LINEAR, ("triton", "logits"), ("torch", "logits"), ("eager", None)])
TARGET = torch.tensor([0, 1, 2, -100, 5])
Loss = Callable[..., Tensor]


def problem(backend: str, strategy: str | None, **how: Any) -> tuple[Loss, Loss, tuple[Tensor, ...]]:
    """The loss, its textbook, and what they are functions of, in float64: hidden states, weights and bias, or logits."""
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(s, dtype=torch.float64, generator=generator) for s in ((5, 3), (7, 3), (7,)))
    if strategy == "logits":
        return (
            lambda z: cross_entropy(z, TARGET, backend=backend, **how),
            lambda z: cross_entropy(z, TARGET, backend="eager", **how),
            (x @ w.t() + b,),
        )

    def by(backend: str, strategy: str | None) -> Loss:
        return lambda x, w, b: linear_cross_entropy(
            x, w, TARGET, linear_bias=b, backend=backend, strategy=strategy, **how
        )  # fmt: skip

    return by(backend, strategy), by("eager", None), (x, w, b)


def leaves(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [t.clone().requires_grad_() for t in tensors]


def gradients(loss: Loss, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    made = leaves(tensors)
    loss(*made).sum().backward()
    return [t.grad for t in made]  # type: ignore[misc]


def close(actual: Any, expected: Any) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-14)


@ALL
@REDUCTIONS
def test_functional_gradients(reduction: str, backend: str, strategy: str | None) -> None:
    """``torch.func.grad``, ``jacrev`` and the vectorised Jacobian give what the textbook gives."""
    loss, textbook, tensors = problem(backend, strategy, reduction=reduction)
    every = tuple(range(len(tensors)))
    expected = torch.func.jacrev(textbook, every)(*tensors)
    close(torch.func.jacrev(loss, every)(*tensors), expected)
    close(torch.func.grad(lambda *t: loss(*t).sum(), every)(*tensors), gradients(textbook, tensors))
    close(torch.autograd.functional.jacobian(loss, tensors, vectorize=True), expected)


@ALL
@REDUCTIONS
def test_gradcheck(reduction: str, backend: str, strategy: str | None) -> None:
    """torch's own check: finite differences, the same bits again, gradients in batches, gradients that are not defined."""
    loss, _, tensors = problem(backend, strategy, reduction=reduction)
    assert torch.autograd.gradcheck(loss, leaves(tensors), check_batched_grad=True)


@ALL
@REDUCTIONS
def test_a_kept_graph_serves_again(reduction: str, backend: str, strategy: str | None) -> None:
    """``autograd.grad`` with retain_graph, then ``backward``, with other factors; what was handed out stays as it was."""
    loss, textbook, tensors = problem(backend, strategy, reduction=reduction)
    made = leaves(tensors)
    value = loss(*made).sum()
    (first,) = torch.autograd.grad(value, made[0], retain_graph=True)
    kept = first.clone()
    (scaled,) = torch.autograd.grad(value * 3, made[0], retain_graph=True)
    value.backward()
    assert torch.equal(first, kept) and torch.equal(made[0].grad, kept)
    close([scaled], [3 * kept])
    close([t.grad for t in made], gradients(textbook, tensors))


@ALL
@pytest.mark.parametrize("return_lse", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_in_a_checkpoint(reduction: str, reentrant: bool, return_lse: bool, backend: str, strategy: str | None) -> None:
    """``torch.utils.checkpoint`` gives saved tensors once."""
    loss, textbook, tensors = problem(backend, strategy, reduction=reduction, return_lse=return_lse)

    def total(f: Loss) -> Loss:
        return lambda *t: sum(part.sum() for part in (f(*t) if return_lse else (f(*t),)))  # type: ignore[return-value]

    close(
        gradients(lambda *t: checkpoint(total(loss), *t, use_reentrant=reentrant), tensors), gradients(total(textbook), tensors)
    )


def refused(words: str, call: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match=f"the fused cross-entropy has no {words}.* use backend='eager'"):
        call()


@FUSED
@REDUCTIONS
@pytest.mark.parametrize("needed", [False, True], ids=["constant", "differentiated"])
def test_forward_mode_and_vmap_are_refused(needed: bool, reduction: str, backend: str, strategy: str | None) -> None:
    """By a sentence, not by tangents of 0, whether or not anything needs a gradient as well."""
    loss, _, tensors = problem(backend, strategy, reduction=reduction)
    tensors = tuple(t.requires_grad_(needed) for t in tensors)
    refused("forward-mode derivative", lambda: torch.func.jvp(loss, tensors, tensors))
    refused("forward-mode derivative", lambda: torch.func.jacfwd(loss)(*tensors))
    with forward_mode.dual_level():
        dual = forward_mode.make_dual(tensors[0], torch.ones_like(tensors[0]))
        refused("forward-mode derivative", lambda: loss(dual, *tensors[1:]))
    refused("vmap", lambda: torch.vmap(loss)(*(torch.stack([t, t]) for t in tensors)))


@FUSED
@REDUCTIONS
def test_second_derivatives_are_refused(reduction: str, backend: str, strategy: str | None) -> None:
    """By a sentence: penalties on a gradient, Hessians, gradients of gradients."""
    loss, _, tensors = problem(backend, strategy, reduction=reduction)
    made = leaves(tensors)
    (gradient, *_) = torch.autograd.grad(loss(*made).sum(), made, create_graph=True)
    refused("second derivative", lambda: gradient.square().sum().backward(retain_graph=True))
    for other in made:
        refused("second derivative", lambda other=other: torch.autograd.grad(gradient.sum(), other, retain_graph=True))
    total = lambda *t: loss(*t).sum()  # noqa: E731
    refused("second derivative", lambda: torch.autograd.functional.hessian(total, tensors))
    refused("second derivative", lambda: torch.func.jacrev(torch.func.jacrev(total))(*tensors))
    refused("forward-mode derivative", lambda: torch.func.hessian(total)(*tensors))


@pytest.mark.parametrize(("backend", "strategy"), [("torch", None), ("triton", "cut"), ("triton", "logits")])
def test_compiled(backend: str, strategy: str | None) -> None:
    """Within torch.compile forward mode, ``vmap`` and second derivatives are refused as well."""
    loss, _, tensors = problem(backend, strategy)
    for call in (
        lambda *t: torch.func.jvp(loss, t, t)[1],
        lambda *t: torch.vmap(loss)(*(torch.stack([x, x]) for x in t)),
    ):
        torch._dynamo.reset()
        with pytest.raises(Exception, match=r"has no (forward-mode derivative|vmap)|FORWARD_MODE"):
            torch.compile(call, backend="eager", fullgraph=True)(*tensors)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    expected = compiled(*tensors)
    words = r"has no forward-mode derivative|FORWARD_MODE"
    with forward_mode.dual_level(), pytest.raises(RuntimeError, match=words):  # the operation would lose the tangent
        compiled(forward_mode.make_dual(tensors[0], torch.ones_like(tensors[0])), *tensors[1:])
    torch.testing.assert_close(compiled(*tensors), expected)  # outside of the block it runs again
    torch._dynamo.reset()
    made = leaves(tensors)
    (gradient, *_) = torch.autograd.grad(torch.compile(loss, backend="eager")(*made), made, create_graph=True)
    refused("second derivative", lambda: gradient.square().sum().backward())


def test_the_textbook_has_them_all() -> None:
    """Where the sentences send: forward mode, ``vmap``, Hessians."""
    loss, _, tensors = problem("eager", None)
    value, tangent = torch.func.jvp(loss, tensors, tensors)
    torch.testing.assert_close(tangent, sum((g * t).sum() for g, t in zip(gradients(loss, tensors), tensors, strict=True)))
    assert torch.equal(torch.vmap(loss)(*(torch.stack([t, t]) for t in tensors)), torch.stack([value, value]))
    assert torch.func.hessian(loss)(*tensors).any()
