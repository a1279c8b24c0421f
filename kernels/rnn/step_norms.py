"""The norm of dL/dW_h restricted to one step, for every step, from h and d as a backward pass leaves them.

That gradient is D^T H, of the rows of d[t] [B, W] and of h[t-1] [B, H]. Its norm needs no such product:

    ||D^T H||_F^2 = sum((H H^T) * (D D^T))

are B^2 (H + W) multiplications where the product takes B H W, so with B <= H W / (H + W) it is the cheaper way. Halves are
multiplied as halves and summed in float32, as their copies in float32 would be. The fourth powers in these sums leave float32
early, so each step's h and d are multiplied by powers of two first, which rounds nothing; nothing of the size of all h or d is
made.
"""

import math

import torch
from torch import Tensor

from recurrent_lm.kernels.rnn.norms import widened

ELEMENTS = 1 << 24  # of products, and of h and d, that are kept at a time: 64 MB in float32


def step_norms(h0: Tensor, hs: Tensor, d: Tensor) -> Tensor:
    """||d[t]^T h[t-1]||_F [T] in the accumulator's type; inf only where it is above that type's largest number.

    Args:
        h0: [B, H], before the first step.
        hs: [T - 1 or more, B, H], after the first step, the second, ...
        d: [T, B, W]. A row's numbers lie side by side, in h as well.
    """
    steps, batch, width = d.shape
    hidden = h0.shape[1]
    of_rows = batch * (hidden + width) <= hidden * width
    count = max(1, ELEMENTS // max(1, batch * batch if of_rows else hidden * width, batch * (hidden + width)))
    norms: list[Tensor] = []
    for first in range(0, steps, count):
        last = min(first + count, steps)
        pieces = [(h0[None], d[:1])] if first == 0 else []
        if last > 1:
            pieces.append((hs[max(first - 1, 0) : last - 1], d[max(first, 1) : last]))
        scaled = [(*_by_power(h), *_by_power(own)) for h, own in pieces]
        if of_rows:
            grams = [products(h, h.mT).mul_(products(own, own.mT)) for h, _, own, _ in scaled]
            found = [gram.sum((1, 2)).clamp_(min=0).sqrt_() for gram in grams]
        else:
            found = [torch.linalg.vector_norm(products(own.mT, h), dim=(1, 2)) for h, _, own, _ in scaled]
        for norm, (_, of_h, _, of_d) in zip(found, scaled, strict=True):
            norms.append((norm.double() * torch.exp2(of_h + of_d)).to(norm.dtype))
    return norms[0] if len(norms) == 1 else torch.cat(norms)


def _by_power(x: Tensor) -> tuple[Tensor, Tensor]:
    """[N, B, K] with each of the N divided by the power of two next to its largest element, and the powers' logarithms [N]."""
    if x.dtype == torch.float16:  # whose fourth powers are within float32
        return x, torch.zeros(len(x), dtype=torch.float64, device=x.device)
    largest = widened(torch.linalg.vector_norm(x, math.inf, dim=(1, 2), keepdim=True))
    limits = torch.finfo(largest.dtype)
    power = largest.clamp(limits.tiny, 1 / limits.tiny).log2().round()
    return x * torch.exp2(-power).to(x.dtype), power.flatten().double()


def products(a: Tensor, b: Tensor) -> Tensor:
    """[N, P, K] times [N, K, Q], summed and given in the accumulator's type: float32, or float64 for float64."""
    wide = torch.promote_types(a.dtype, torch.float32)
    if a.is_cpu or wide in (a.dtype, b.dtype):
        return torch.bmm(a.to(wide), b.to(wide))
    return torch.bmm(a, b, out_dtype=wide)  # which the CPU does not have
