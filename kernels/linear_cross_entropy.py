"""Decoder and softmax cross-entropy in one: a [N, V] tensor of logits never exists, only chunks of rows.

Gradients of a mean or a sum are made while a chunk's softmax is at hand, so each logit is computed once: three products of
N V d instead of four, and a peak of ROWS x V instead of several N x V. Softmax, loss and the accumulated weight
gradient are float32 whatever the products use.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.backends import choose_backend

ROWS = 256  # a chunk of 256 x 10,000 float32 logits is 10 MB: about what stays in a core's share of the cache


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    compute_dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """Mean negative log likelihood of ``target`` under softmax(input W^T + b), names as in torch 2.13's function.

    Args:
        input: [N, d] hidden states.
        linear_weight: [V, d] decoder weights.
        target: [N] class indices; rows with ``ignore_index`` count neither in the loss nor in a mean.
        linear_bias: [V] or None.
        reduction: "mean", "sum", or "none" for [N] losses.
        compute_dtype: dtype of the three products (the ``torch`` backend only); None keeps that of ``input``.
        backend: see ``kernels.choose_backend``; ``eager`` is the two-line textbook.

    Returns:
        A scalar, or [N] for "none", in nats. The mean of nothing is nan, as in torch.

    Raises:
        ValueError: for shapes that do not fit and for an unknown reduction.
        IndexError: for a target outside [0, V) that is not ``ignore_index``.
    """
    if input.dim() != 2 or linear_weight.dim() != 2 or input.shape[1] != linear_weight.shape[1]:
        shapes = f"{list(input.shape)} and {list(linear_weight.shape)}"
        raise ValueError(f"input and linear_weight must be [N, d] and [V, d], not {shapes}")
    if tuple(target.shape) != (len(input),):
        raise ValueError(f"target must be [{len(input)}], not {list(target.shape)}")
    if linear_bias is not None and tuple(linear_bias.shape) != (len(linear_weight),):
        raise ValueError(f"linear_bias must be [{len(linear_weight)}], not {list(linear_bias.shape)}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be mean, sum or none, not {reduction!r}")
    if choose_backend(backend) == "eager":
        logits = F.linear(input, linear_weight, linear_bias)
        return F.cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)
    counted = target != ignore_index
    wrong = counted & ((target < 0) | (target >= len(linear_weight)))
    if target.device.type == "cpu" and wrong.any():  # elsewhere the check would stop the queue
        raise IndexError(f"target {int(target[wrong][0])} is outside the {len(linear_weight)} classes")
    accumulate = torch.promote_types(torch.float32, input.dtype)
    divisor = counted.sum().to(accumulate) if reduction == "mean" else torch.ones((), dtype=accumulate, device=input.device)
    safe = target.clamp(0, len(linear_weight) - 1)
    how = (compute_dtype or input.dtype, reduction != "none", torch.is_grad_enabled())
    loss: Tensor = _Chunked.apply(input, linear_weight, linear_bias, safe, counted, divisor, *how)
    return loss


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        counted: Tensor,
        divisor: Tensor,
        dtype: torch.dtype,
        reduce: bool,
        learning: bool,
    ) -> Tensor:
        need = tuple(ctx.needs_input_grad[:3]) if reduce and learning else (False, False, False)
        losses, grads = _chunks(input, weight, bias, target, counted, dtype, need)
        losses = torch.where(counted, losses, 0.0)
        ctx.reduce, ctx.dtype = reduce, dtype
        if reduce:
            ctx.grads, ctx.divisor = grads, divisor
            ctx.dtypes = tuple(None if p is None else p.dtype for p in (input, weight, bias))
            return (losses.sum() / divisor).to(input.dtype)
        ctx.save_for_backward(input, weight, bias, target, counted)
        return losses.to(input.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.reduce:
            grads, ctx.grads = ctx.grads, ()
            if not grads:
                raise RuntimeError("linear_cross_entropy made its gradients once; a second backward pass needs a new loss")
            factor = grad.to(ctx.divisor.dtype) / ctx.divisor.clamp(min=1)
            grads = tuple(None if g is None else g.mul_(factor).to(p) for g, p in zip(grads, ctx.dtypes, strict=True))
        else:
            input, weight, bias, target, counted = ctx.saved_tensors
            _, grads = _chunks(input, weight, bias, target, counted * grad, ctx.dtype, ctx.needs_input_grad[:3])
            grads = tuple(None if g is None else g.to(p.dtype) for g, p in zip(grads, (input, weight, bias), strict=True))
        return (*grads, None, None, None, None, None, None)


def _chunks(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    weights: Tensor,
    dtype: torch.dtype,
    need: tuple[bool, ...],
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The losses [N], and where needed the gradients of sum(weights * losses) for (input, weight, bias)."""
    accumulate = torch.promote_types(torch.float32, input.dtype)
    weights = weights.to(accumulate)
    losses = torch.empty(len(input), dtype=accumulate, device=input.device)
    d_input = torch.empty_like(input) if need[0] else None
    d_weight = torch.zeros_like(weight, dtype=accumulate) if need[1] else None
    d_bias = torch.zeros_like(bias, dtype=accumulate) if need[2] and bias is not None else None
    x, w = input.to(dtype), weight.to(dtype)
    size = ROWS if dtype == accumulate else ROWS // 2  # beside each chunk stands its copy in the other dtype
    for begin in range(0, len(input), size):
        rows = slice(begin, begin + size)
        logits = torch.mm(x[rows], w.t()).to(accumulate)
        if bias is not None:
            logits += bias
        index = target[rows].unsqueeze(1)
        chosen = logits.gather(1, index)
        # In place: torch.logsumexp would hold a second chunk, and its exponentials are needed again.
        top = logits.amax(dim=1, keepdim=True)
        top = torch.where(top.isinf(), 0.0, top)
        e = logits.sub_(top).exp_()
        total = e.sum(dim=1, keepdim=True)
        losses[rows] = (top + total.log() - chosen).squeeze(1)
        if not any(need):
            continue
        weight_of_row = weights[rows].unsqueeze(1)
        d = e.mul_(weight_of_row / total).scatter_add_(1, index, -weight_of_row)  # (softmax - one-hot) times the weight
        if d_bias is not None:
            d_bias += d.sum(dim=0)
        d = d.to(dtype)
        if d_input is not None:
            d_input[rows] = torch.mm(d, w)
        if d_weight is not None and dtype == accumulate:
            d_weight.addmm_(d.t(), x[rows])
        elif d_weight is not None:
            d_weight += torch.mm(d.t(), x[rows])
    return losses, (d_input, d_weight, d_bias)
