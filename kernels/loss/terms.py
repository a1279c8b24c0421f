"""The terms of a row's loss, the checks of its arguments, and the textbook form in plain torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from math import isfinite
from typing import Any, Literal, NamedTuple, ParamSpec, TypedDict, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

REDUCTIONS = ("mean", "sum", "none")
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]  # of input, weight and bias
Yes = Literal[True]  # of options that change what a function returns
No = Literal[False]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Terms:
    """The options that all losses here share; see ``kernels.cross_entropy``."""

    ignore_index: int = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None

    @property
    def plain(self) -> bool:
        """Whether a row's loss is just lse - z[y], class weights aside."""
        return self.label_smoothing == 0 and self.z_loss == 0 and self.softcap is None


class Options(TypedDict, total=False):
    """Keywords of both public losses that do not change what they return."""

    reduction: str
    label_smoothing: float
    z_loss: float
    softcap: float | None
    backend: str | None


class Metrics(NamedTuple):
    """Figures of each row, [N] each, without gradients. Ignored rows have them, too, and are never hits."""

    lse: Tensor  # log-sum-exp of the (capped) logits
    argmax: Tensor  # the first of the most probable classes
    hits: Tensor  # bool: is that the target?


class Decoded(NamedTuple):
    """The tensors of the linear loss, whose logits are x W^T + b."""

    x: Tensor  # [N, d]
    w: Tensor  # [V, d]
    bias: Tensor | None  # [V]
    target: Tensor  # [N]
    class_weight: Tensor | None  # [V]


class Upstream(NamedTuple):
    """dL / d loss and dL / d lse of each row, [N] each."""

    loss: Tensor | None = None  # None is 1
    lse: Tensor | None = None  # None is 0


@dataclass(frozen=True)
class Rows:
    """The results of each row, [N] each: its loss, its log-sum-exp as the sum of two parts, its best class."""

    loss: Tensor
    top: Tensor
    log_sum: Tensor
    best: Tensor  # [0] if it was not asked for

    def part(self, rows: slice) -> "Rows":
        """The results of some rows, as views."""
        return Rows(self.loss[rows], self.top[rows], self.log_sum[rows], self.best[rows])


def empty_rows(n: int, like: Tensor, best: bool) -> Rows:
    """Allocate the results of n rows, on the device of ``like``; without ``best`` the argmax is empty."""
    loss, top, log_sum = (torch.empty(n, dtype=accumulator(like.dtype), device=like.device) for _ in range(3))
    return Rows(loss, top, log_sum, torch.empty(n if best else 0, dtype=torch.long, device=like.device))


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums: float32, or float64 for float64."""
    return torch.promote_types(torch.float32, dtype)


def constants(terms: Terms, v: int) -> dict[str, Any]:
    """The constexprs of the Triton bodies."""
    return {"V": v, "SMOOTHING": terms.label_smoothing, "Z_LOSS": terms.z_loss, "SOFTCAP": terms.softcap}


def check_terms(terms: Terms, reduction: str, n: int, v: int, target: Tensor, weight: Tensor | None) -> None:
    """Check shapes, types and ranges of everything but the logits.

    Raises:
        ValueError: names the argument, its requirement and its value.
    """
    if v < 1:
        raise ValueError("there must be at least one class")
    if tuple(target.shape) != (n,):
        raise ValueError(f"target must be [{n}], not {list(target.shape)}")
    if target.dtype.is_floating_point or target.dtype.is_complex or target.dtype == torch.bool:
        raise ValueError(f"target must hold class indices (an integer dtype), not {target.dtype}")
    if weight is not None and tuple(weight.shape) != (v,):
        raise ValueError(f"weight must be [{v}], not {list(weight.shape)}")
    if weight is not None and not weight.dtype.is_floating_point:
        raise ValueError(f"weight must be of a floating-point dtype, not {weight.dtype}")
    if weight is not None and weight.requires_grad:
        raise ValueError("weight must not require a gradient: class weights are constants of the loss")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be mean, sum or none, not {reduction!r}")
    if not 0 <= terms.label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, not {terms.label_smoothing}")
    if not (terms.z_loss >= 0 and isfinite(terms.z_loss)):
        raise ValueError(f"z_loss must be 0 or a positive number, not {terms.z_loss}")
    if terms.softcap is not None and not (terms.softcap > 0 and isfinite(terms.softcap)):
        raise ValueError(f"softcap must be None or a positive number, not {terms.softcap}")


def check_devices(device: torch.device, **others: Tensor | None) -> None:
    """Check that all tensors are on one device.

    Raises:
        ValueError: names the argument that is on another device.
    """
    for name, other in others.items():
        if other is not None and other.device != device:
            raise ValueError(f"{name} must be on {device}, not on {other.device}")


def check_classes(target: Tensor, ignore_index: int, v: int) -> bool:
    """Check that each target is a class or ``ignore_index``, on a CPU only: reading a GPU's numbers would stop its queue.

    Returns:
        Whether all rows are known to count.

    Raises:
        IndexError: names a target that is neither.
    """
    if target.device.type != "cpu" or not len(target):
        return False
    low, high = (int(bound) for bound in target.aminmax())
    if low >= 0 and high < v:
        return not low <= ignore_index <= high
    wrong = (target != ignore_index) & ((target < 0) | (target >= v))
    if wrong.any():
        raise IndexError(f"target {int(target[wrong][0])} is outside the {v} classes")
    return False


def divisor(target: Tensor, weight: Tensor | None, ignore_index: int, v: int, dtype: torch.dtype) -> Tensor:
    """The divisor of a mean: the number of rows that count, or the sum of their class weights, as in torch. A scalar."""
    counted = target != ignore_index
    if weight is None:
        return counted.count_nonzero().to(dtype)
    return (weight[target.clamp(0, v - 1)].to(dtype) * counted).sum()


def reduce(losses: Tensor, target: Tensor, weight: Tensor | None, terms: Terms, v: int, reduction: str) -> Tensor:
    """Reduce losses [N] to their mean or sum, or return them. A mean with class weights is right only without ``z_loss``."""
    if reduction == "none":
        return losses
    total = losses.sum()
    return total / divisor(target, weight, terms.ignore_index, v, losses.dtype) if reduction == "mean" else total


def z_penalty(lse: Tensor, target: Tensor, terms: Terms, reduction: str) -> Tensor:
    """k lse^2 of the rows that count, 0 for the others; a mean is over the counted rows, whatever their class weights."""
    counted = target != terms.ignore_index
    penalties = terms.z_loss * torch.where(counted, lse, 0.0).square()
    if reduction == "none":
        return penalties
    return penalties.sum() / counted.count_nonzero() if reduction == "mean" else penalties.sum()


def textbook(
    logits: Tensor, target: Tensor, weight: Tensor | None, terms: Terms, reduction: str, with_lse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, log-sum-exp [N] (or [0]) and capped logits [N, V] by torch's own functions: the reference of all tests.

    All results have the dtype of ``accumulator``.
    """
    z = logits.to(accumulator(logits.dtype))
    if terms.softcap is not None:
        z = terms.softcap * torch.tanh(z / terms.softcap)
    lse = z.logsumexp(dim=1) if with_lse or terms.z_loss > 0 else z.new_empty(0)
    loss = F.cross_entropy(
        z, target.long(), weight, ignore_index=terms.ignore_index, label_smoothing=terms.label_smoothing, reduction=reduction
    )  # fmt: skip
    return loss + z_penalty(lse, target, terms, reduction) if terms.z_loss > 0 else loss, lse, z


def results(
    loss: Tensor, lse: Tensor, best: Tensor, target: Tensor, terms: Terms, return_lse: bool, return_metrics: bool
) -> Tensor | tuple[Any, ...]:
    """The loss, or a tuple that begins with it."""
    metrics = None
    if return_metrics:
        metrics = Metrics(lse.detach(), best, (best == target) & (target != terms.ignore_index))
    asked = [*([lse] if return_lse else []), *([metrics] if metrics is not None else [])]
    return (loss, *asked) if asked else loss


FORWARD_MODE = "the fused cross-entropy has no forward-mode derivative (jvp); use backend='eager' for one"


def check_forward_mode(*tensors: Tensor | None) -> None:
    """Refuse forward mode within torch.compile, where the operations would return tangents of 0.

    Raises:
        RuntimeError: if a tensor has a tangent or may have one; tangents of a compiled function's arguments cannot be seen.
    """
    if torch.compiler.is_compiling():
        if forward_ad._current_level >= 0:
            raise RuntimeError(FORWARD_MODE)
        for tensor in tensors:
            if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
                raise RuntimeError(FORWARD_MODE)


class FirstOrder(torch.autograd.Function):
    """A loss whose gradient is a separate function: it supports reverse mode only, and no ``vmap``."""

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(FORWARD_MODE)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *_: Any) -> Any:
        raise RuntimeError("the fused cross-entropy has no vmap; make its batch more rows, or use backend='eager'")


class GradientsOnly(torch.autograd.Function):
    """Gradients that cannot be differentiated again. A batch of them (``jacrev``) is computed one after the other."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing, because there is no next derivative."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            "the fused cross-entropy has no second derivative; use backend='eager' to differentiate its gradient again"
        )

    jvp = backward


def one_by_one(function: Callable[..., tuple[Tensor, ...]], info: Any, in_dims: Any, *inputs: Any) -> tuple[Any, Any]:
    """A ``vmap`` rule: call ``function`` for each element of the batch and stack the results."""
    results = [
        function(*(x.select(at, i) if isinstance(at, int) else x for x, at in zip(inputs, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    stacked = tuple(torch.stack(of_each) for of_each in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


def batched_gradient(*upstream: Tensor | None) -> bool:
    """Whether the caller is ``autograd.grad(is_grads_batched=True)``, whose ``vmap`` works on operations, not autograd
    functions.
    """
    return any(g is not None and torch._C._functorch.is_legacy_batchedtensor(g) for g in upstream)


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function whose first argument is a tensor, so that autocast does not change the dtype of its products."""

    @wraps(function)
    def run(*arguments: P.args, **how: P.kwargs) -> R:
        kind = arguments[0].device.type  # type: ignore[attr-defined]
        if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
            return function(*arguments, **how)
        with torch.autocast(kind, enabled=False):
            return function(*arguments, **how)

    return run
