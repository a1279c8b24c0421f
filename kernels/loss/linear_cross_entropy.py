"""Decoder and softmax cross-entropy in one: a [N, V] tensor of logits never exists, only chunks of rows, or tiles.

With torch, the gradients of a mean or a sum are computed together with a chunk's softmax, so each logit is computed once: three
products of N V d instead of four, and a peak of one chunk instead of several N x V. Softmax, loss and the accumulated weight
gradient are float32 whatever the dtype of the products. ``plan`` describes the strategies of Triton.
"""

from typing import Any, Unpack, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm.kernels.backends import check_interpreter, choose_backend
from recurrent_lm.kernels.loss.chunks import NegativeLogLikelihood
from recurrent_lm.kernels.loss.ops import run_rows, run_total
from recurrent_lm.kernels.loss.plan import choose_loss_plan
from recurrent_lm.kernels.loss.terms import (
    Metrics,
    No,
    Options,
    Terms,
    Yes,
    accumulator,
    check_devices,
    check_forward_mode,
    check_terms,
    reduce,
    results,
    textbook,
    without_autocast,
    z_penalty,
)


class LinearOptions(Options, total=False):
    """Keywords of ``linear_cross_entropy`` that do not change what it returns."""

    ignore_index: int | None
    linear_bias: Tensor | None
    weight: Tensor | None
    compute_dtype: torch.dtype | None
    strategy: str | None
    filter_eps: float | None


@overload
def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *,
    return_lse: No = False, return_metrics: No = False,
    **options: Unpack[LinearOptions],
) -> Tensor: ...  # fmt: skip
@overload
def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *,
    return_lse: Yes, return_metrics: No = False,
    **options: Unpack[LinearOptions],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip
@overload
def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *,
    return_lse: No = False, return_metrics: Yes,
    **options: Unpack[LinearOptions],
) -> tuple[Tensor, Metrics]: ...  # fmt: skip
@overload
def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *,
    return_lse: Yes, return_metrics: Yes,
    **options: Unpack[LinearOptions],
) -> tuple[Tensor, Tensor, Metrics]: ...  # fmt: skip
@overload
def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *,
    return_lse: bool = False, return_metrics: bool = False,
    **options: Unpack[LinearOptions],
) -> Tensor | tuple[Any, ...]: ...  # fmt: skip
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    return_lse: bool = False,
    return_metrics: bool = False,
    compute_dtype: torch.dtype | None = None,
    strategy: str | None = None,
    filter_eps: float | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Any, ...]:
    """Mean negative log likelihood of ``target`` under softmax(input W^T + b), names as in torch 2.13's function.

    Args:
        input: [N, d] hidden states.
        linear_weight: [V, d] decoder weights.
        target: [N] class indices.
        ignore_index: rows with this target count neither in the loss nor in a mean; None is torch's default, -100.
        linear_bias: [V] or None.
        weight: [V] class weights of any floating-point dtype, as in torch: a mean divides by the sum of the targets' weights.
        reduction: "mean", "sum", or "none" for [N] losses.
        label_smoothing, z_loss, softcap: as in ``kernels.cross_entropy``; a
            mean of ``z_loss`` with class weights makes logits twice.
        return_lse: return (loss, lse [N]) instead; lse can be differentiated.
        return_metrics: return ``Metrics`` as well, as the last of the tuple.
        compute_dtype: dtype of the products; None keeps that of ``input``. Autocast changes neither (nor of ``eager``, if the
            backward pass is outside of it, as torch asks).
        strategy: "cut" (tiles of logits on the chip, made again in the backward pass), "chunked" (gradients made with the
            loss), or None for what ``kernels.explain_linear_cross_entropy`` says (``triton``; ``torch`` knows chunks only).
        filter_eps: gradient filtering, for "cut" of ``triton``, which then is the default: a block of dL / d logits (128 x 128
            in 16 bits, less at edges) in which every probability is below this number and no row that counts has its target is
            taken as 0 in all gradients. Each element that is dropped is therefore smaller than ``filter_eps`` times its row's
            factor |dL / d loss (class weight + 2 z_loss lse) + dL / d lse|. 2^-12 is usual in bfloat16 (Wijmans et al. 2024,
            section 4.3). None and 0 drop nothing. Loss and lse are never changed.
        backend: see ``kernels.choose_backend``; ``eager`` is the two-line textbook.

    Returns:
        A scalar, or [N] for "none", in nats. Loss and lse are in float32, also for halves, or in float64 for float64 ``input``;
        gradients have their tensors' dtypes. The mean of nothing is nan, as in torch. On a GPU a target that is no class makes
        its row's loss and gradient NaN.

    Raises:
        ValueError: for shapes, types, numbers and names that do not fit, and for bfloat16 in Triton's interpreter.
        IndexError: on CPU, for a target outside [0, V) that is not ``ignore_index``.
        RuntimeError: for a second derivative, forward mode (``jvp``) and ``vmap``, which ``eager`` alone has.
            Inside a compiled function torch.func's gradients are refused by torch, and a block of ``dual_level`` by us, whether
            or not the arguments have tangents; use autograd there.
    """
    ignore_index = -100 if ignore_index is None else ignore_index
    if input.dim() != 2 or linear_weight.dim() != 2 or input.shape[1] != linear_weight.shape[1]:
        shapes = f"{list(input.shape)} and {list(linear_weight.shape)}"
        raise ValueError(f"input and linear_weight must be [N, d] and [V, d], not {shapes}")
    (n, d), v = input.shape, linear_weight.shape[0]
    if linear_bias is not None and tuple(linear_bias.shape) != (v,):
        raise ValueError(f"linear_bias must be [{v}], not {list(linear_bias.shape)}")
    terms = Terms(ignore_index, label_smoothing, z_loss, softcap)
    check_terms(terms, reduction, n, v, target, weight)
    check_devices(input.device, linear_weight=linear_weight, target=target, linear_bias=linear_bias, weight=weight)
    chosen = choose_backend(backend, input.device)
    if strategy == "cut" and chosen != "triton":
        raise ValueError(f"strategy 'cut' needs backend 'triton', not {chosen!r}")
    if filter_eps is not None:
        if not 0 <= filter_eps < 1:
            raise ValueError(f"filter_eps must be None or a number from 0 to below 1, not {filter_eps}")
        if chosen != "triton" or strategy == "chunked":
            raise ValueError("filter_eps needs backend 'triton' and strategy 'cut': others make gradients of all logits")
        if label_smoothing > 0:
            raise ValueError("filter_eps cannot be used with label_smoothing, which gives every class a gradient")
        strategy, filter_eps = strategy or "cut", filter_eps or None
    dtype = compute_dtype or input.dtype
    differentiable = [
        torch.is_grad_enabled() and p is not None and p.requires_grad for p in (input, linear_weight, linear_bias)
    ]
    z_apart = z_loss > 0 and weight is not None and reduction == "mean"  # the two terms have means over different counts
    rows_needed = reduction == "none" or z_apart or (return_lse and any(differentiable))
    plan = choose_loss_plan(
        n, v, d, str(dtype).removeprefix("torch."), gradients=any(differentiable), single=rows_needed, strategy=strategy
    )  # fmt: skip
    acc = accumulator(input.dtype)
    weight = None if weight is None else weight.to(acc)
    if chosen == "eager":
        logits = _linear(input, linear_weight, linear_bias, dtype).to(acc)
        loss, lse, z = textbook(logits, target, weight, terms, reduction, return_lse or return_metrics)
        return results(loss, lse, z.argmax(dim=1) if return_metrics else target, target, terms, return_lse, return_metrics)
    if chosen == "triton":
        check_interpreter(dtype)
    check_forward_mode(input, linear_weight, linear_bias)
    alone = terms.plain and weight is None and not (return_lse or return_metrics or any(differentiable))
    alike = dtype == input.dtype == linear_weight.dtype == accumulator(dtype)
    if alone and alike and chosen == "torch" and input.device.type == "cpu" and not torch.compiler.is_compiling():
        return NegativeLogLikelihood.apply(input, linear_weight, linear_bias, target.long(), ignore_index, reduction)
    how = "torch" if chosen == "torch" else plan.strategy
    tensors = (input, linear_weight, linear_bias, target, weight)
    call = (*tensors, ignore_index, label_smoothing, 0.0 if z_apart else z_loss, softcap, dtype, how, return_metrics)
    if rows_needed or how == "cut":
        losses, lse, _, _, best = run_rows(*call, filter_eps)
        loss = reduce(losses, target, weight, terms, v, reduction)
        loss = loss + z_penalty(lse, target, terms, reduction) if z_apart else loss
    else:
        loss, lse, best, *_ = run_total(*call, reduction == "mean", *differentiable)
    return results(loss, lse, best, target, terms, return_lse, return_metrics)


@without_autocast
def _linear(input: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return F.linear(input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
