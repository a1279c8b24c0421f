"""The linear loss as torch operations: one computes gradients in the forward pass, the other waits for each row's factor.

``recurrent_lm::linear_cross_entropy`` returns a mean or a sum, with its gradients, in chunks of rows.
``recurrent_lm::linear_cross_entropy_rows`` returns each row's loss and log-sum-exp, and computes the logits again in the
backward pass. ``run_total`` and ``run_rows`` call them within torch.compile; elsewhere they call autograd functions with the
same bodies, which support ``torch.func`` and refuse by name the derivatives that they lack.
"""

from typing import Any

import torch
from torch import Tensor

from recurrent_lm.kernels import triton_operations
from recurrent_lm.kernels.loss.chunks import torch_chunks
from recurrent_lm.kernels.loss.terms import (
    Decoded,
    FirstOrder,
    Gradients,
    GradientsOnly,
    Rows,
    Terms,
    Upstream,
    accumulator,
    batched_gradient,
    check_classes,
    divisor,
    one_by_one,
    without_autocast,
)


@without_autocast
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
    """The loss, lse and argmax [N], and gradients that ``rest`` divides; parts that were not asked for are empty.

    A mean's gradients are divided by its count in two parts: within each row by a number from 1 to 2, before the products, and
    by ``rest``, a power of two, after them, which rounds nothing and loses no small numbers. In float16 the first part is 1:
    the target's element is then close to -1, where float16 is at its finest, and that is worth more than one rounding less
    (for N = 1000 half as many elements differ from the float32 result, rounded once; in bfloat16 it is the other way round).
    """
    n, v, acc = len(input), len(linear_weight), accumulator(input.dtype)
    every = check_classes(target, ignore_index, v)
    terms, need = Terms(ignore_index, label_smoothing, z_loss, softcap), (need_input, need_weight, need_bias)
    count = rest = input.new_ones((), dtype=acc)
    upstream = None
    if mean:
        alike = every and weight is None
        count = input.new_full((), n, dtype=acc) if alike else divisor(target, weight, ignore_index, v, acc)
        part = torch.ones_like(count) if dtype == torch.float16 else 2 * torch.frexp(count).mantissa
        rest = torch.where(count == 0, 1.0, count / part)
        upstream = part.reciprocal().expand(n)
    decoded = Decoded(input, linear_weight, linear_bias, target, weight)
    rows, gradients = _chunks(strategy, decoded, Upstream(upstream), terms, dtype, need, best, every)
    d_input, d_weight, d_bias = (input.new_empty(0) if g is None else g for g in gradients)
    return rows.loss.sum().to(acc) / count, (rows.top + rows.log_sum).to(acc), rows.best, rest, d_input, d_weight, d_bias


total = torch.library.custom_op("recurrent_lm::linear_cross_entropy", mutates_args=())(_make_total)


@total.register_fake
def _(input: Tensor, linear_weight: Tensor, *how: Any) -> tuple[Tensor, ...]:
    best, _, need_input, need_weight, need_bias = how[-5:]
    n, v, acc = input.shape[0], linear_weight.shape[0], accumulator(input.dtype)
    return (
        input.new_empty((), dtype=acc),
        input.new_empty(n, dtype=acc),
        input.new_empty(n if best else 0, dtype=torch.long),
        input.new_empty((), dtype=acc),
        input.new_empty(input.shape if need_input else 0),
        input.new_empty(linear_weight.shape, dtype=acc) if need_weight else input.new_empty(0),
        input.new_empty(v, dtype=acc) if need_bias else input.new_empty(0),
    )


@total.register_vmap
def _(info: Any, in_dims: Any, *inputs: Any) -> Any:
    return FirstOrder.vmap(info, in_dims)


def _setup_total(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.how = inputs[5:13]
    ctx.spent = False
    ctx.save_for_backward(*output[3:], *inputs[:5])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward_total(ctx: Any, of_loss: Tensor | None, *_: Any, in_place: bool = False) -> tuple[Any, ...]:
    if of_loss is None:
        return (None,) * 16
    rest, *tensors = ctx.saved_tensors
    need = ctx.needs_input_grad[:3]
    if ctx.spent:  # a kept graph: the backward pass before gave the gradients away
        tensors[:3] = _make_total(*tensors[3:], *ctx.how, *need)[4:]
    ctx.spent = ctx.spent or in_place
    gradients = _Divided.apply(in_place, need, of_loss, rest, *tensors[:6])
    return (*(g if needed else None for g, needed in zip(gradients, need, strict=True)), *[None] * 13)


class _Divided(GradientsOnly):
    """The gradients of ``_make_total``, times dL / d loss and divided by the rest of the count, in their parameters' dtypes."""

    @staticmethod
    def forward(
        in_place: bool, need: tuple[bool, bool, bool], of_loss: Tensor, rest: Tensor, d_input: Tensor, d_weight: Tensor,
        d_bias: Tensor, *parameters: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        factor = of_loss.to(rest.dtype) / rest
        divided = []
        for g, parameter, needed in zip((d_input, d_weight, d_bias), parameters, need, strict=True):
            if not needed or parameter is None:
                divided.append(rest.new_empty(0))
            elif in_place and g.dtype == rest.dtype:  # by ``data``: a kept graph may still read the other saved tensors
                divided.append(g.data.mul_(factor).to(parameter.dtype))
            else:
                divided.append((g.to(rest.dtype) * factor).to(parameter.dtype))
        return tuple(divided)

    @staticmethod
    def vmap(info: Any, in_dims: Any, _: bool, *inputs: Any) -> Any:
        return one_by_one(_Divided.apply, info, in_dims, False, *inputs)


@without_autocast
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
    filter_eps: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses and lse [N], the two numbers [N] whose sum lse is, and the argmax [N] if asked for.

    ``filter_eps`` concerns the backward pass only.
    """
    every = check_classes(target, ignore_index, len(linear_weight))
    terms = Terms(ignore_index, label_smoothing, z_loss, softcap)
    decoded = Decoded(input, linear_weight, linear_bias, target, weight)
    if strategy == "cut":
        rows = triton_operations.cut_loss(_readable(decoded, dtype), terms, best)
    else:
        rows, _ = _chunks(strategy, decoded, Upstream(), terms, dtype, (False, False, False), best, every)
    acc = accumulator(input.dtype)
    loss, top, log_sum = (t.to(acc) for t in (rows.loss, rows.top, rows.log_sum))
    return loss, top + log_sum, top, log_sum, rows.best


single = torch.library.custom_op("recurrent_lm::linear_cross_entropy_rows", mutates_args=())(_make_single)


@single.register_fake
def _(input: Tensor, *how: Any) -> tuple[Tensor, ...]:
    n, acc, best = input.shape[0], accumulator(input.dtype), how[-2]
    loss, lse, top, log_sum = (input.new_empty(n, dtype=acc) for _ in range(4))
    return loss, lse, top, log_sum, input.new_empty(n if best else 0, dtype=torch.long)


@single.register_vmap
def _(info: Any, in_dims: Any, *inputs: Any) -> Any:
    return FirstOrder.vmap(info, in_dims)


@without_autocast
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
    filter_eps: float | None,
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias from dL / d losses [N] and dL / d lse [N]; those that were not asked for are
    empty.
    """
    terms, need = Terms(ignore_index, label_smoothing, z_loss, softcap), (need_input, need_weight, need_bias)
    decoded, of = Decoded(input, linear_weight, linear_bias, target, weight), Upstream(upstream, upstream_lse)
    if strategy == "cut":
        top, log_sum = (t.to(accumulator(dtype)) for t in (top, log_sum))
        gradients = triton_operations.cut_gradients(_readable(decoded, dtype), top, log_sum, of, terms, need, filter_eps)
    else:
        _, gradients = _chunks(strategy, decoded, of, terms, dtype, need, False, False)
    d_input, d_weight, d_bias = (
        input.new_empty(0) if g is None or p is None else g.to(p.dtype)
        for g, p in zip(gradients, (input, linear_weight, linear_bias), strict=True)
    )
    return d_input, d_weight, d_bias


single_backward = torch.library.custom_op("recurrent_lm::linear_cross_entropy_rows_backward", mutates_args=())(_make_gradients)


@single_backward.register_fake
def _(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, *how: Any) -> tuple[Tensor, ...]:
    return tuple(
        p.new_empty(p.shape) if needed and p is not None else input.new_empty(0)
        for p, needed in zip((input, linear_weight, linear_bias), how[-3:], strict=True)
    )


def _setup_single(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.ignore_index, ctx.label_smoothing, ctx.z_loss, ctx.softcap, ctx.dtype, ctx.strategy, _, eps = inputs
    ctx.filter_eps = eps
    _, _, top, log_sum, best = output
    ctx.save_for_backward(*tensors, top, log_sum)
    ctx.mark_non_differentiable(top, log_sum, best)
    ctx.set_materialize_grads(False)


def _backward_single(
    ctx: Any, of_losses: Tensor | None, of_lse: Tensor | None, *_: Any, run: Any = single_backward
) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # read once: a checkpoint gives them once
    top = saved[5]
    upstream = top.new_zeros(()).expand(top.shape) if of_losses is None else of_losses
    need = ctx.needs_input_grad[:3]
    how = (ctx.ignore_index, ctx.label_smoothing, ctx.z_loss, ctx.softcap, ctx.dtype, ctx.strategy, ctx.filter_eps)
    gradients = run(*saved, upstream, of_lse, *how, *need)
    return (*(g if needed else None for g, needed in zip(gradients, need, strict=True)), *[None] * 10)


class _SingleGradients(GradientsOnly):
    forward = staticmethod(_make_gradients)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return one_by_one(_SingleGradients.apply, info, in_dims, *inputs)


total.register_autograd(_backward_total, setup_context=_setup_total)
single.register_autograd(_backward_single, setup_context=_setup_single)
single_backward.register_autograd(GradientsOnly.backward)


class _Total(FirstOrder):
    forward = staticmethod(_make_total)
    setup_context = staticmethod(_setup_total)

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor | None, *_: Any) -> tuple[Any, ...]:
        # in place, as the weight's gradient is large and has no other owner
        in_place = not (torch.is_grad_enabled() or batched_gradient(of_loss))
        return _backward_total(ctx, of_loss, in_place=in_place)


class _Single(FirstOrder):
    forward = staticmethod(_make_single)
    setup_context = staticmethod(_setup_single)

    @staticmethod
    def backward(ctx: Any, *of_outputs: Tensor | None) -> tuple[Any, ...]:
        run = single_backward if batched_gradient(*of_outputs) else _SingleGradients.apply
        return _backward_single(ctx, *of_outputs, run=run)


def run_total(*arguments: Any) -> tuple[Tensor, ...]:
    """``recurrent_lm::linear_cross_entropy``, or its body as an autograd function, which scales in place."""
    return (
        torch.ops.recurrent_lm.linear_cross_entropy(*arguments) if torch.compiler.is_compiling() else _Total.apply(*arguments)
    )


def run_rows(*arguments: Any) -> tuple[Tensor, ...]:
    """``recurrent_lm::linear_cross_entropy_rows``, or its body as an autograd function."""
    run = torch.ops.recurrent_lm.linear_cross_entropy_rows if torch.compiler.is_compiling() else _Single.apply
    return run(*arguments)


def _chunks(
    strategy: str,
    decoded: Decoded,
    of: Upstream,
    terms: Terms,
    dtype: torch.dtype,
    need: tuple[bool, bool, bool],
    best: bool,
    every: bool,
) -> tuple[Rows, Gradients]:
    """Losses, and the gradients of sum(of.loss * loss + of.lse * lse) where needed, by torch's or Triton's chunks.

    ``every`` says that no row is ignored, if that is known.
    """
    if strategy == "torch":
        return torch_chunks(decoded, of, terms, dtype, need, best, every)

    if of.loss is None:
        of = of._replace(loss=decoded.x.new_ones((), dtype=accumulator(decoded.x.dtype)).expand(len(decoded.x)))
    return triton_operations.chunked_gradients(_readable(decoded, dtype), of, terms, need, best)


def _readable(decoded: Decoded, dtype: torch.dtype) -> Decoded:
    """The tensors as the Triton bodies read them: columns side by side, products' factors in their dtype."""
    return Decoded(
        decoded.x.to(dtype).contiguous(),
        decoded.w.to(dtype).contiguous(),
        None if decoded.bias is None else decoded.bias.to(dtype).contiguous(),
        decoded.target.contiguous(),
        None if decoded.class_weight is None else decoded.class_weight.contiguous(),
    )
