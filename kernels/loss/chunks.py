"""The decoder's loss in chunks of rows by torch's own functions: softmax and gradients while a chunk's logits are in memory."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm.kernels.loss.terms import (
    Decoded,
    FirstOrder,
    Gradients,
    Rows,
    Terms,
    Upstream,
    accumulator,
    reduce,
    without_autocast,
)

ROWS = 512  # of a chunk at least: fewer make slow products, and each chunk reads and writes a float32 gradient of the weight
LOGITS = 2_560_000  # of a chunk if ROWS allow: 10 MB in float32, about a core's share of the cache
ALIGNED = 16  # a chunk's rows begin at multiples of 64 bytes (32 if unpadded): MKL's product is then 1.6 times as fast (EPYC)
BLOCK = 2048  # classes whose gradient is computed in 16 bits at a time, before it is added in float32
LOG2_E = 1.4426950408889634


@without_autocast
def negative_log_likelihood(
    x: Tensor, w: Tensor, bias: Tensor | None, target: Tensor, ignore_index: int, reduction: str
) -> Tensor:
    """-log P(target) without options, by torch.nn's kernels in place: ``torch_chunks`` makes sixty calls a chunk."""
    losses = []
    for part, z, _ in _logits(x, w, bias, x.dtype):
        if z.is_contiguous():
            torch.log_softmax(z, dim=1, out=z)
            if len(z) == len(x):
                return F.nll_loss(z, target, ignore_index=ignore_index, reduction=reduction)
        else:  # log_softmax would copy a part of the buffer, so it gets the padding, too
            rows = z.as_strided((len(z), z.stride(0)), z.stride())
            rows[:, z.shape[1] :] = -torch.inf
            torch.log_softmax(rows, dim=1, out=rows)
        losses.append(F.nll_loss(z, target[part], ignore_index=ignore_index, reduction="none"))
    return reduce(torch.cat(losses) if losses else x.new_empty(0), target, None, Terms(ignore_index), len(w), reduction)


def torch_chunks(
    decoded: Decoded,
    of: Upstream,
    terms: Terms,
    dtype: torch.dtype,
    need: tuple[bool, bool, bool],
    best: bool,
    every: bool,
) -> tuple[Rows, Gradients]:
    """The losses [N], and where needed the gradients of sum(of.loss * losses + of.lse * lse)."""
    (input, weight, bias, target, class_weight), (upstream, upstream_lse) = decoded, of
    v, acc, smoothing = len(weight), accumulator(input.dtype), terms.label_smoothing
    d_input = torch.empty_like(input) if need[0] else None
    d_weight = torch.zeros_like(weight, dtype=acc) if need[1] else None
    d_bias = torch.zeros_like(bias, dtype=acc) if need[2] and bias is not None else None
    x, w = input.to(dtype), weight.to(dtype)
    # Per-row values are [N, 1] and computed before the chunk loop: there, launch overhead would exceed the arithmetic.
    index = target.unsqueeze(1).long()
    counts = torch.ones_like(index, dtype=acc)
    if not every:
        counts, index = _counts(index, terms.ignore_index, v, acc)
    of_target = counts if class_weight is None else counts * class_weight.to(acc)[index]
    spread = None  # [V]: the part of each class in a smoothed target
    if smoothing > 0:
        of_target = of_target * (1 - smoothing)
        spread = smoothing / v * (counts.new_ones(v) if class_weight is None else class_weight.to(acc))
    chosen, top, total, uniform = (torch.empty_like(counts) for _ in range(4))
    classes = index.new_empty(len(input) if best else 0)
    if any(need):
        onehot, factor = of_target, counts
        if upstream is not None:  # that of a mean over no row is infinite
            scale = upstream.unsqueeze(1) if every else upstream.unsqueeze(1).masked_fill(counts == 0, 0.0)
            onehot, factor = onehot * scale, factor * scale
        softmax = onehot if spread is None else onehot + spread.sum() * factor
        softmax = softmax if upstream_lse is None else softmax + upstream_lse.unsqueeze(1)
    for part, z, product in _logits(x, w, bias, acc):
        slope = None
        if terms.softcap is not None:
            z.div_(terms.softcap).tanh_()
            slope = 1 - z.square() if any(need) else None
            z.mul_(terms.softcap)
        torch.gather(z, 1, index[part], out=chosen[part])
        if best:
            torch.argmax(z, dim=1, out=classes[part])
        # In place: torch.logsumexp would hold a second chunk, and its exponentials are needed again. By exp2: exp of float32
        # is MKL's, which took 3.5 times as long on an AMD EPYC.
        z.sub_(torch.amax(z, dim=1, keepdim=True, out=top[part]).clamp_(min=torch.finfo(acc).min))  # -inf - -inf is nan
        if spread is not None:
            uniform[part, 0] = z.mv(spread)
        e = z.mul_(LOG2_E).exp2_()
        torch.sum(e, dim=1, keepdim=True, out=total[part])
        if not any(need):
            continue
        of_softmax = softmax[part]
        if terms.z_loss > 0:
            of_softmax = of_softmax + 2 * terms.z_loss * (top[part] + total[part].log()) * factor[part]
        d = e.mul_(of_softmax / total[part]).scatter_add_(1, index[part], -onehot[part])
        if spread is not None:
            d.addr_(factor[part, 0], spread, alpha=-1)
        if slope is not None:
            d *= slope
        if d_bias is not None:
            d_bias += d.sum(dim=0)
        if product.dtype != acc:
            d = product.copy_(d)
        if d_input is not None:
            d_input[part] = torch.mm(d, w)
        if d_weight is not None and d.dtype == acc:
            d_weight.addmm_(d.t(), x[part])
        elif d_weight is not None and d.is_cpu and d.dtype == torch.float16:  # no slower than a product of float16
            d_weight.addmm_(z.t(), x[part].to(acc))
        elif d_weight is not None:
            for left in range(0, v, BLOCK):
                d_weight[left : left + BLOCK] += torch.mm(d[:, left : left + BLOCK].t(), x[part])
    log_sum = total.log()
    loss = of_target * (log_sum + (top - chosen))
    if spread is not None:
        loss += counts * (spread.sum() * log_sum - uniform)
    if terms.z_loss > 0:
        loss += terms.z_loss * counts * (top + log_sum).square()
    if not every:
        loss.masked_fill_(counts == 0, 0.0)
    return Rows(loss.squeeze(1), top.squeeze(1), log_sum.squeeze(1), classes), (d_input, d_weight, d_bias)


class NegativeLogLikelihood(FirstOrder):
    """``negative_log_likelihood``, which has no gradients, as a function that refuses other derivatives by name."""

    forward = staticmethod(negative_log_likelihood)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output)


def _logits(x: Tensor, w: Tensor, bias: Tensor | None, acc: torch.dtype) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For each chunk: its rows, their logits, which the next chunk overwrites, and the same memory in the dtype of the
    product.
    """
    logits, products = _buffers(len(x), len(w), acc, x.dtype, x.device)
    size = max(1, len(logits))
    for begin in range(0, len(x), size):
        part = slice(begin, min(begin + size, len(x)))
        z, product = logits[: part.stop - begin], products[: part.stop - begin]
        if bias is not None and bias.dtype == x.dtype == acc:
            torch.addmm(bias, x[part], w.t(), out=z)
        else:
            torch.mm(x[part], w.t(), out=product)
            if x.dtype != acc:
                z.copy_(product)
            if bias is not None:
                z += bias
        yield part, z, product


def _buffers(n: int, v: int, acc: torch.dtype, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Memory for the logits of a chunk, and for the inputs and results of products in ``dtype``: the same memory if that is
    their dtype.

    Chunks have one size, except that the last may be a few rows shorter. With two buffers a chunk has at least half of ROWS.
    The padding of each row is 0: oneDNN's bfloat16 products on CPUs with AMX multiply it by zeros, and a NaN there would reach
    the result.
    """
    chunks = max(1, -(-n // max(1, ROWS if dtype == acc else ROWS // 2, LOGITS // v)))
    rows, stride = -(-n // chunks), v if 2 * v % ALIGNED == 0 else -(-v // ALIGNED) * ALIGNED
    logits = torch.empty(rows, stride, dtype=acc, device=device)
    z = logits[:, :v]
    if dtype == acc:
        return z, z
    products = torch.empty(rows, stride, dtype=dtype, device=device)
    products[:, v:] = 0
    return z, products[:, :v]


def _counts(target: Tensor, ignore_index: int, v: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The weight of each row (1, 0 if ignored, nan if its target is no class), and targets that are safe as indices."""
    counted, index = target != ignore_index, target.clamp(0, v - 1)
    return counted.to(dtype).masked_fill_(counted & (index != target), torch.nan), index
