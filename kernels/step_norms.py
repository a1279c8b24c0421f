"""The norm of dL/dW_h restricted to one step, for every step, from h and d as a backward pass leaves them.

That gradient is D^T H, of the rows of d[t] [B, W] and of h[t-1] [B, H]. Its norm needs no such product:

    ||D^T H||_F^2 = sum((H H^T) * (D D^T))

are B^2 (H + W) multiplications where the product takes B H W, so with B <= H W / (H + W) it is the cheaper way. Halves are
multiplied as halves and summed in float32, as their copies in float32 would be, and nothing of the size of h or d is made.
"""

import torch
from torch import Tensor

ELEMENTS = 1 << 24  # of products that are kept at a time: 64 MB in float32


def step_norms(h: Tensor, d: Tensor) -> Tensor:
    """||d[t]^T h[t]||_F [T] in the accumulator's type, of h [T, B, H] and d [T, B, W], each row's numbers side by side."""
    steps, batch, hidden = h.shape
    width = d.shape[2]
    grams = batch * (hidden + width) <= hidden * width
    count = max(1, ELEMENTS // (2 * batch * batch if grams else hidden * width))
    norms = h.new_empty(steps, dtype=torch.promote_types(h.dtype, torch.float32))
    for first in range(0, steps, count):
        part = slice(first, first + count)
        if grams:
            squares = (products(h[part], h[part].mT) * products(d[part], d[part].mT)).sum((1, 2))
            norms[part] = squares.clamp(min=0).sqrt()
        else:
            norms[part] = torch.linalg.vector_norm(products(d[part].mT, h[part]), dim=(1, 2))
    return norms


def products(a: Tensor, b: Tensor) -> Tensor:
    """[N, P, K] times [N, K, Q], summed and given in the accumulator's type: float32, or float64 for float64."""
    wide = torch.promote_types(a.dtype, torch.float32)
    if a.is_cpu or wide in (a.dtype, b.dtype):
        return torch.bmm(a.to(wide), b.to(wide))
    return torch.bmm(a, b, out_dtype=wide)  # which the CPU does not have
