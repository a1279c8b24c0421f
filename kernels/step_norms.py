"""The norm of dL/dW_h restricted to one step, for every step, from h and d as a backward pass leaves them.

That gradient is D^T H, of the rows of d[t] [B, W] and of h[t-1] [B, H]. Its norm needs no such product:

    ||D^T H||_F^2 = sum((H H^T) * (D D^T))

are B^2 (H + W) multiplications where the product takes B H W, so with B <= H W / (H + W) it is the cheaper way. Halves are
multiplied as halves and summed in float32, as their copies in float32 would be, and nothing of the size of h or d is made.
"""

import torch
from torch import Tensor

ELEMENTS = 1 << 24  # of products that are kept at a time: 64 MB in float32


def step_norms(h0: Tensor, hs: Tensor, d: Tensor) -> Tensor:
    """||d[t]^T h[t-1]||_F [T] in the accumulator's type.

    Args:
        h0: [B, H], before the first step.
        hs: [T - 1 or more, B, H], after the first step, the second, ...
        d: [T, B, W]. A row's numbers lie side by side, in h as well.
    """
    steps, batch, width = d.shape
    hidden = h0.shape[1]
    of_rows = batch * (hidden + width) <= hidden * width
    count = max(1, ELEMENTS // max(1, batch * batch if of_rows else hidden * width))
    norms: list[Tensor] = []
    for first in range(0, steps, count):
        last = min(first + count, steps)
        pieces = [(h0[None], d[:1])] if first == 0 else []
        if last > 1:
            pieces.append((hs[max(first - 1, 0) : last - 1], d[max(first, 1) : last]))
        if of_rows:
            grams = torch.cat([products(h, h.mT) for h, _ in pieces])
            squares = grams.mul_(products(d[first:last], d[first:last].mT)).sum((1, 2))
            norms.append(squares.clamp_(min=0).sqrt_())
        else:
            norms += [torch.linalg.vector_norm(products(own.mT, h), dim=(1, 2)) for h, own in pieces]
    return norms[0] if len(norms) == 1 else torch.cat(norms)


def products(a: Tensor, b: Tensor) -> Tensor:
    """[N, P, K] times [N, K, Q], summed and given in the accumulator's type: float32, or float64 for float64."""
    wide = torch.promote_types(a.dtype, torch.float32)
    if a.is_cpu or wide in (a.dtype, b.dtype):
        return torch.bmm(a.to(wide), b.to(wide))
    return torch.bmm(a, b, out_dtype=wide)  # which the CPU does not have
