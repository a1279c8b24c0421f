"""Softmax cross-entropy on existing logits: one pass over them forward, one backward, in their own storage if asked."""

from functools import partial
from typing import Any, Unpack, overload

import torch
from torch import Tensor

from recurrent_lm.kernels import triton_operations
from recurrent_lm.kernels.backends import check_interpreter, choose_backend
from recurrent_lm.kernels.loss.terms import (
    FirstOrder,
    GradientsOnly,
    Metrics,
    No,
    Options,
    Terms,
    Upstream,
    Yes,
    accumulator,
    batched_gradient,
    check_classes,
    check_devices,
    check_forward_mode,
    check_terms,
    one_by_one,
    reduce,
    results,
    textbook,
    z_penalty,
)


class RowOptions(Options, total=False):
    """Keywords of ``cross_entropy`` that do not change what it returns."""

    ignore_index: int
    inplace_backward: bool


@overload
def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, *,
    return_lse: No = False, return_metrics: No = False,
    **options: Unpack[RowOptions],
) -> Tensor: ...  # fmt: skip
@overload
def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, *,
    return_lse: Yes, return_metrics: No = False,
    **options: Unpack[RowOptions],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@overload
def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, *,
    return_lse: No = False, return_metrics: Yes,
    **options: Unpack[RowOptions],
) -> tuple[Tensor, Metrics]: ...  # fmt: skip
@overload
def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, *,
    return_lse: Yes, return_metrics: Yes,
    **options: Unpack[RowOptions],
) -> tuple[Tensor, Tensor, Metrics]: ...  # fmt: skip
@overload
def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, *,
    return_lse: bool = False, return_metrics: bool = False,
    **options: Unpack[RowOptions],
) -> Tensor | tuple[Any, ...]: ...  # fmt: skip
def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    return_lse: bool = False,
    return_metrics: bool = False,
    inplace_backward: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Any, ...]:
    """``torch.nn.functional.cross_entropy`` for [N, V] logits, with more options.

    Args:
        logits: [N, V] in float16, bfloat16, float32 or float64.
        target: [N] class indices.
        ignore_index: rows with this target count neither in the loss nor in a mean.
        weight: [V] class weights of any floating-point dtype, as in torch: a mean divides by the sum of the targets' weights.
        reduction: "mean", "sum", or "none" for [N] losses.
        label_smoothing: the share of the target's probability that is spread over all classes.
        z_loss: k in k lse^2, added to the loss of each row that counts, so that lse stays near 0 (PaLM, section 5).
            Class weights do not weigh it, and a mean divides it by the number of those rows.
        softcap: c in c tanh(logits / c), applied first (Gemma 2, section 2.1).
        return_lse: return (loss, lse [N]) instead; lse can be differentiated.
        return_metrics: return ``Metrics`` as well, as the last of the tuple.
        inplace_backward: let the backward pass write the gradient over the logits, which are then gone. ``triton`` does;
            torch.compile, which plans storage itself, and the other backends do not need to be asked.
        backend: see ``kernels.choose_backend``; ``torch`` and ``eager`` are both torch's own functions here.

    Returns:
        A scalar, or [N] for "none", in nats. Loss and lse are in float32, also for halves, or in float64 for float64 logits,
        with autocast and without. The mean of nothing is nan, as in torch. On a GPU a target that is no class makes its row's
        loss and gradient NaN.

    Raises:
        ValueError: for shapes, types and numbers that do not fit, and for bfloat16 in Triton's interpreter.
        IndexError: on CPU, for a target outside [0, V) that is not ``ignore_index``.
        RuntimeError: by ``triton``, for a second derivative, forward mode (``jvp``) and ``vmap``.
            Inside a compiled function torch.func's gradients are refused by torch, and a block of ``dual_level`` by us, whether
            or not the arguments have tangents; use autograd there.
    """
    if logits.dim() != 2:
        raise ValueError(f"logits must be [N, V], not {list(logits.shape)}")
    if logits.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(f"logits must be float16, bfloat16, float32 or float64, not {logits.dtype}")
    terms = Terms(ignore_index, label_smoothing, z_loss, softcap)
    n, v = logits.shape
    check_terms(terms, reduction, n, v, target, weight)
    check_devices(logits.device, target=target, weight=weight)
    weight = None if weight is None else weight.to(accumulator(logits.dtype))
    if choose_backend(backend, logits.device) != "triton":
        loss, lse, z = textbook(logits, target, weight, terms, reduction, return_lse or return_metrics)
        best = z.argmax(dim=1) if return_metrics else target
        return results(loss, lse, best, target, terms, return_lse, return_metrics)
    check_interpreter(logits.dtype)
    check_forward_mode(logits)
    z_apart = z_loss > 0 and weight is not None and reduction == "mean"  # the two terms have means over different counts
    compiling = torch.compiler.is_compiling()
    inplace = inplace_backward and not compiling
    how = (ignore_index, label_smoothing, 0.0 if z_apart else z_loss, softcap, return_metrics, inplace)
    run: Any = torch.ops.recurrent_lm.cross_entropy if compiling else _Rows.apply
    losses, lse, _, _, best = run(logits, target, weight, *how)
    loss = reduce(losses, target, weight, terms, v, reduction)
    loss = loss + z_penalty(lse, target, terms, reduction) if z_apart else loss
    return results(loss, lse, best, target, terms, return_lse, return_metrics)


def _make_rows(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    best: bool,
    inplace: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses [N], log-sum-exp [N], the two numbers [N] whose sum it is, and the best class [N] if asked for."""

    check_classes(target, ignore_index, logits.shape[1])
    terms = Terms(ignore_index, label_smoothing, z_loss, softcap)
    rows = triton_operations.rows_loss(_readable(logits), target.contiguous(), _flat(weight), terms, best)
    return rows.loss, rows.top + rows.log_sum, rows.top, rows.log_sum, rows.best


forward = torch.library.custom_op("recurrent_lm::cross_entropy", mutates_args=())(_make_rows)


@forward.register_fake
def _(logits: Tensor, *how: Any) -> tuple[Tensor, ...]:
    best, _ = how[-2:]
    losses, lse, top, log_sum = (logits.new_empty(logits.shape[0], dtype=accumulator(logits.dtype)) for _ in range(4))
    return losses, lse, top, log_sum, logits.new_empty(logits.shape[0] if best else 0, dtype=torch.long)


@forward.register_vmap
def _(info: Any, in_dims: Any, *inputs: Any) -> Any:
    return FirstOrder.vmap(info, in_dims)


def _make_gradient(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    top: Tensor,
    log_sum: Tensor,
    upstream: Tensor,
    upstream_lse: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
) -> Tensor:
    """dL / d logits from dL / d losses [N] and dL / d lse [N]."""
    grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
    terms = Terms(ignore_index, label_smoothing, z_loss, softcap)
    _write(grad, logits, target, weight, top, log_sum, Upstream(upstream, upstream_lse), terms)
    return grad


backward = torch.library.custom_op("recurrent_lm::cross_entropy_backward", mutates_args=())(_make_gradient)


@backward.register_fake
def _(logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


@torch.library.custom_op("recurrent_lm::cross_entropy_backward_", mutates_args=("logits",))
def backward_inplace(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    top: Tensor,
    log_sum: Tensor,
    upstream: Tensor,
    upstream_lse: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
) -> None:
    """``cross_entropy_backward``, written over the logits."""
    terms = Terms(ignore_index, label_smoothing, z_loss, softcap)
    _write(logits, logits, target, weight, top, log_sum, Upstream(upstream, upstream_lse), terms)


def _readable(logits: Tensor) -> Tensor:
    """Logits whose columns are adjacent, as the Triton bodies need them."""
    return logits if logits.stride(1) == 1 or logits.shape[1] == 1 else logits.contiguous()


def _flat(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.contiguous()


def _write(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    top: Tensor,
    log_sum: Tensor,
    of: Upstream,
    terms: Terms,
) -> None:

    readable = _readable(logits)
    written = readable if grad is logits else grad
    triton_operations.rows_gradient(readable, written, target.contiguous(), _flat(weight), top, log_sum, of, terms)
    if grad is logits and readable is not logits:
        logits.copy_(readable)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits, target, weight, *ctx.terms, _, ctx.inplace = inputs
    _, _, top, log_sum, best = output
    ctx.save_for_backward(logits, target, weight, top, log_sum)
    ctx.mark_non_differentiable(top, log_sum, best)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, of_losses: Tensor | None, of_lse: Tensor | None, *_: Any, run: Any = backward) -> tuple[Any, ...]:
    logits, target, weight, top, log_sum = ctx.saved_tensors
    upstream = top.new_zeros(()).expand(top.shape) if of_losses is None else of_losses
    return (run(logits, target, weight, top, log_sum, upstream, of_lse, *ctx.terms), *[None] * 8)


class _Rows(FirstOrder):
    forward = staticmethod(_make_rows)
    setup_context = staticmethod(_setup)

    @staticmethod
    def backward(ctx: Any, *of_outputs: Tensor | None) -> tuple[Any, ...]:
        if batched_gradient(*of_outputs):
            return _backward(ctx, *of_outputs)
        return _backward(ctx, *of_outputs, run=partial(_Gradient.apply, ctx.inplace and not torch.is_grad_enabled()))


class _Gradient(GradientsOnly):
    @staticmethod
    def forward(inplace: bool, logits: Tensor, *others: Any) -> Tensor:
        if not inplace:
            return _make_gradient(logits, *others)
        backward_inplace(logits, *others)  # the operation, as it counts up the logits' version
        return logits.detach()

    @staticmethod
    def vmap(info: Any, in_dims: Any, _: bool, *inputs: Any) -> Any:
        (gradient,), (at,) = one_by_one(lambda *i: (_Gradient.apply(*i),), info, in_dims, False, *inputs)
        return gradient, at


forward.register_autograd(_backward, setup_context=_setup)
backward.register_autograd(GradientsOnly.backward)
