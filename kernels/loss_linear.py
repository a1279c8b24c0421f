"""The linear loss as torch operations: one that makes gradients in the forward pass, one that waits for each row's factor.

``kernels::linear_cross_entropy`` gives a mean or a sum, its gradients already made, in chunks of rows.
``kernels::linear_cross_entropy_rows`` gives each row's loss and log-sum-exp, and makes the logits again in the backward pass.
``run_total`` and ``run_rows`` call them, or plain autograd functions of the same bodies where those do with less.
"""

from typing import Any

import torch
from torch import Tensor

from kernels.loss_terms import Gradients, Rows, Terms, accumulator, check_classes, divisor, once


def _make_total(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    dtype: torch.dtype,
    strategy: str,
    best: bool,
    mean: bool,
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss, lse and argmax [N], what the mean divides by, and the sum's gradients; what was not asked for is empty."""
    n, v, acc = len(input), len(linear_weight), accumulator(input.dtype)
    every = check_classes(target, ignore_index, v)
    terms, need = Terms(ignore_index, label_smoothing, z_loss, softcap), (need_input, need_weight, need_bias)
    rows, gradients = _chunks(
        strategy, (input, linear_weight, linear_bias, target, weight), None, None, terms, dtype, need, best, every
    )  # fmt: skip
    if mean and not (every and weight is None):
        count = divisor(target, weight, ignore_index, v, acc)
    else:
        count = input.new_full((), n if mean else 1, dtype=acc)
    loss = (rows.loss.sum() / count).to(input.dtype)
    if mean and weight is not None:  # rows that count with weights of 0 alone: 0 / 0, while a mean of no row has gradients of 0
        lost = (count == 0) & (target != ignore_index)
        for g, mask in zip(gradients, (lost[:, None], lost.any(), lost.any()), strict=True):
            if g is not None:
                g.masked_fill_(mask, torch.nan)
    d_input, d_weight, d_bias = (input.new_empty(0) if g is None else g for g in gradients)
    return loss, rows.top + rows.log_sum, rows.best, count, d_input, d_weight, d_bias


total = torch.library.custom_op("kernels::linear_cross_entropy", mutates_args=())(_make_total)


@total.register_fake
def _(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor, weight: Tensor | None,
    ignore_index: int, label_smoothing: float, z_loss: float, softcap: float | None, dtype: torch.dtype, strategy: str,
    best: bool, mean: bool, need_input: bool, need_weight: bool, need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    n, v, acc = input.shape[0], linear_weight.shape[0], accumulator(input.dtype)
    return (
        input.new_empty(()),
        input.new_empty(n, dtype=acc),
        input.new_empty(n if best else 0, dtype=torch.long),
        input.new_empty((), dtype=acc),
        input.new_empty(input.shape if need_input else 0),
        input.new_empty(linear_weight.shape, dtype=acc) if need_weight else input.new_empty(0),
        input.new_empty(v, dtype=acc) if need_bias else input.new_empty(0),
    )


def _setup_total(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.dtypes = [None if p is None else p.dtype for p in inputs[:3]]
    ctx.spent = False
    ctx.save_for_backward(*output[3:], *inputs[:3])  # the inputs for ``once``
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _finish_total(ctx: Any, of_loss: Tensor, in_place: bool) -> tuple[Any, ...]:
    if ctx.spent:
        raise RuntimeError("linear_cross_entropy made its gradients once; a second backward pass needs a new loss")
    ctx.spent = True
    count, *gradients = ctx.saved_tensors[:4]
    factor = of_loss.to(count.dtype) / torch.where(count == 0, 1, count)
    scaled: list[Tensor | None] = []
    for g, dtype, needed in zip(gradients, ctx.dtypes, ctx.needs_input_grad[:3], strict=True):
        if not needed:
            scaled.append(None)
        else:
            scaled.append((g.detach().mul_(factor) if in_place else g * factor.to(g.dtype)).to(dtype))
    return (*scaled, *[None] * 13)


@once
def _backward_total(ctx: Any, of_loss: Tensor, *_: Any) -> tuple[Any, ...]:
    return _finish_total(ctx, of_loss, in_place=False)


def _make_single(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    dtype: torch.dtype,
    strategy: str,
    best: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses and lse [N], the two numbers lse is the sum of, and the argmax [N] if asked for."""
    every = check_classes(target, ignore_index, len(linear_weight))
    terms = Terms(ignore_index, label_smoothing, z_loss, softcap)
    tensors = (input, linear_weight, linear_bias, target, weight)
    if strategy == "cut":
        from kernels.loss_launch import cut_loss

        rows = cut_loss(*_readable(tensors, dtype), terms, best)
    else:
        rows, _ = _chunks(strategy, tensors, None, None, terms, dtype, (False, False, False), best, every)
    return rows.loss, rows.top + rows.log_sum, rows.top, rows.log_sum, rows.best


single = torch.library.custom_op("kernels::linear_cross_entropy_rows", mutates_args=())(_make_single)


@single.register_fake
def _(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor, weight: Tensor | None,
    ignore_index: int, label_smoothing: float, z_loss: float, softcap: float | None, dtype: torch.dtype, strategy: str,
    best: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    n, acc = input.shape[0], accumulator(input.dtype)
    loss, lse, top, log_sum = (input.new_empty(n, dtype=acc) for _ in range(4))
    return loss, lse, top, log_sum, input.new_empty(n if best else 0, dtype=torch.long)


def _make_gradients(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
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
    dtype: torch.dtype,
    strategy: str,
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias from dL / d losses [N] and dL / d lse [N]; what was not asked for is empty."""
    terms, need = Terms(ignore_index, label_smoothing, z_loss, softcap), (need_input, need_weight, need_bias)
    tensors = (input, linear_weight, linear_bias, target, weight)
    if strategy == "cut":
        from kernels.loss_launch import cut_gradients

        gradients = cut_gradients(*_readable(tensors, dtype), top, log_sum, upstream, upstream_lse, terms, need)
    else:
        _, gradients = _chunks(strategy, tensors, upstream, upstream_lse, terms, dtype, need, False, False)
    d_input, d_weight, d_bias = (
        input.new_empty(0) if g is None or p is None else g.to(p.dtype)
        for g, p in zip(gradients, (input, linear_weight, linear_bias), strict=True)
    )
    return d_input, d_weight, d_bias


single_backward = torch.library.custom_op("kernels::linear_cross_entropy_rows_backward", mutates_args=())(_make_gradients)


@single_backward.register_fake
def _(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor, weight: Tensor | None, top: Tensor,
    log_sum: Tensor, upstream: Tensor, upstream_lse: Tensor | None, ignore_index: int, label_smoothing: float,
    z_loss: float, softcap: float | None, dtype: torch.dtype, strategy: str, need_input: bool, need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    d_input, d_weight, d_bias = (
        p.new_empty(p.shape) if needed and p is not None else input.new_empty(0)
        for p, needed in zip((input, linear_weight, linear_bias), (need_input, need_weight, need_bias), strict=True)
    )
    return d_input, d_weight, d_bias


def _setup_single(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.ignore_index, ctx.label_smoothing, ctx.z_loss, ctx.softcap, ctx.dtype, ctx.strategy, _ = inputs
    _, _, top, log_sum, best = output
    ctx.save_for_backward(*tensors, top, log_sum)
    ctx.mark_non_differentiable(top, log_sum, best)
    ctx.set_materialize_grads(False)


@once
def _backward_single(ctx: Any, of_losses: Tensor | None, of_lse: Tensor | None, *_: Any) -> tuple[Any, ...]:
    top = ctx.saved_tensors[5]
    upstream = top.new_zeros(()).expand(top.shape) if of_losses is None else of_losses
    need = ctx.needs_input_grad[:3]
    how = (ctx.ignore_index, ctx.label_smoothing, ctx.z_loss, ctx.softcap, ctx.dtype, ctx.strategy)
    run: Any = single_backward if ctx.strategy != "torch" or torch.compiler.is_compiling() else _make_gradients
    gradients = run(*ctx.saved_tensors, upstream, of_lse, *how, *need)
    return (*(g if needed else None for g, needed in zip(gradients, need, strict=True)), *[None] * 9)


total.register_autograd(_backward_total, setup_context=_setup_total)
single.register_autograd(_backward_single, setup_context=_setup_single)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        output = _make_total(*inputs)
        _setup_total(ctx, inputs, output)
        return output

    @staticmethod
    @once
    def backward(ctx: Any, of_loss: Tensor, *_: Any) -> tuple[Any, ...]:
        return _finish_total(ctx, of_loss, in_place=True)  # the weight's gradient is large, and nobody else holds it


class _Single(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        output = _make_single(*inputs)
        _setup_single(ctx, inputs, output)
        return output

    backward = staticmethod(_backward_single)


def run_total(*arguments: Any) -> tuple[Tensor, ...]:
    """``total``. Outside torch.compile the autograd function alone: it scales the gradients where they are."""
    if torch.compiler.is_compiling():
        return torch.ops.kernels.linear_cross_entropy(*arguments)
    if not any(arguments[-3:]):
        return _make_total(*arguments)
    return _Total.apply(*arguments)


def run_rows(strategy: str, *arguments: Any) -> tuple[Tensor, ...]:
    """``single``. Outside torch.compile the torch chunks need no operation around them, which would only cost time."""
    if strategy != "torch" or torch.compiler.is_compiling():
        return torch.ops.kernels.linear_cross_entropy_rows(*arguments)
    return _Single.apply(*arguments)


def _chunks(
    strategy: str,
    tensors: tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None],
    upstream: Tensor | None,
    upstream_lse: Tensor | None,
    terms: Terms,
    dtype: torch.dtype,
    need: tuple[bool, bool, bool],
    best: bool,
    every: bool,
) -> tuple[Rows, Gradients]:
    """Losses, and the gradients of sum(upstream * loss + upstream_lse * lse) where needed, by torch's or Triton's chunks.

    Where ``upstream`` is None it is 1 in each row. ``every`` says that no row is ignored, if that is known.
    """
    if strategy == "torch":
        from kernels.linear_cross_entropy import _chunks as torch_chunks

        return torch_chunks(*tensors, upstream, upstream_lse, terms, dtype, need, best, every)
    from kernels.loss_launch import chunked_gradients

    if upstream is None:
        upstream = tensors[0].new_ones((), dtype=accumulator(tensors[0].dtype)).expand(len(tensors[0]))
    return chunked_gradients(*_readable(tensors, dtype), upstream, upstream_lse, terms, need, best)


def _readable(
    tensors: tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None]:
    """The tensors as the Triton bodies read them: columns side by side, products' factors in their dtype."""
    input, linear_weight, linear_bias, target, weight = tensors
    bias = None if linear_bias is None else linear_bias.to(dtype).contiguous()
    return (
        input.to(dtype).contiguous(),
        linear_weight.to(dtype).contiguous(),
        bias,
        target.contiguous(),
        None if weight is None else weight.contiguous(),
    )
