"""Euclidean norms of gradients that explode or vanish: right where the squares of their elements are no floats.

The square of a float32 above 1.8e19 is inf, one below 1e-19 loses digits and below 2.6e-23 all of them. Where such squares can
matter, the numbers are divided by the largest of them first, as BLAS's ``nrm2`` does. Elsewhere the norm is the plain one, bit
for bit. Halves are squared and summed as float32. No number is read back, so a CUDA graph can record all of this.
"""

import math

import torch
from torch import Tensor


def vector_norm(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """The norm of x over ``dim`` (None: all of them), in float32, or in float64 for float64.

    A norm that is itself above the largest number of that type is inf.
    """
    norm, scale = scaled_norm(x, dim, True)
    norm = norm / scale
    return norm if keepdim else norm.reshape(()) if dim is None else norm.squeeze(dim)


def scaled_norm(
    x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False, most: float = math.inf
) -> tuple[Tensor, Tensor]:
    """(||s x||, s) with ||x|| = ||s x|| / s; s is 1 where the plain norm of x is right and at most ``most``."""
    x = widened(x)
    plain = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    largest = torch.linalg.vector_norm(x, math.inf, dim=dim, keepdim=True)
    scale = _scale(plain, largest, x.numel() // max(plain.numel(), 1), most)
    norm = torch.linalg.vector_norm(x * scale, dim=dim, keepdim=keepdim)
    return norm, scale.view_as(norm)


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The norm of all tensors together, a float64 scalar on their device: elements of float32 can have a norm beyond float32."""
    wide = [widened(t) for t in tensors if t.numel()]
    if not wide:
        return torch.zeros((), dtype=torch.float64)
    plain = torch.nn.utils.get_total_norm(wide)
    largest = torch.nn.utils.get_total_norm(wide, math.inf)
    scale = _scale(plain, largest, sum(t.numel() for t in wide))
    norms = torch._foreach_norm(torch._foreach_mul(wide, scale), 2, dtype=torch.float64)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    return torch.where(scale == 1, plain.double(), norm / scale.double())


def total_norm_on_host(tensors: list[Tensor]) -> float:
    """``total_norm``, with one pass over the tensors instead of four where the plain norm is right, which is read to know."""
    wide = [widened(t) for t in tensors if t.numel()]
    if not wide:
        return 0.0
    plain = torch.nn.utils.get_total_norm(wide)
    norm = float(plain)
    return norm if _right(norm, sum(t.numel() for t in wide), plain.dtype) else float(total_norm(wide))


def widened(x: Tensor) -> Tensor:
    """Halves as float32, anything else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _right(plain: float, count: int, dtype: torch.dtype, most: float = math.inf) -> bool:
    return _least(count, dtype) <= plain <= min(most, torch.finfo(dtype).max)


def _least(count: int, dtype: torch.dtype) -> float:
    """From this norm on, what ``count`` squares lose below the smallest normal number is less than the rounding of their sum."""
    limits = torch.finfo(dtype)
    return math.sqrt(count * limits.tiny / limits.eps)


def _scale(plain: Tensor, largest: Tensor, count: int, most: float = math.inf) -> Tensor:
    """1 where ``plain`` is right, otherwise 1 / ``largest``, as far as that and its inverse are normal numbers."""
    limits = torch.finfo(plain.dtype)
    right = (plain >= _least(count, plain.dtype)) & (plain <= min(most, limits.max))
    return torch.where(right, 1.0, 1 / largest.clamp(limits.tiny, 1 / limits.tiny))
