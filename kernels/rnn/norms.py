"""Euclidean norms of gradients that explode or vanish, right also where squares of elements overflow or underflow.

The square of a float32 above 1.8e19 is inf, one below 1e-19 loses digits and below 2.6e-23 all of them. Where such squares can
matter, numbers are first divided by the largest one, as BLAS's ``nrm2`` does. Elsewhere the norm is the plain one, bit for bit.
16-bit numbers are squared and summed in float32. No number is read back, so a CUDA graph can record all of this.
"""

import math

import torch
from torch import Tensor


def vector_norm(x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
    """Euclidean norm of x over ``dim``, right also where squares of elements overflow or underflow.

    Args:
        x: any shape; float16 and bfloat16 are summed in float32.
        dim: dimensions to sum over; None takes all.
        keepdim: keep those dimensions, with size 1.

    Returns:
        The norms, float32 (float64 for a float64 input); inf only where the norm itself exceeds the largest number of that
        type.

    Scaled as in BLAS's ``nrm2``.
    """
    norm, scale = scaled_norm(x, dim, keepdim)
    return norm if scale is None else norm / scale


def scaled_norm(
    x: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False, most: float = math.inf
) -> tuple[Tensor, Tensor | None]:
    """Norm of s x, and s, with ||x|| = ||s x|| / s.

    Args:
        x, dim, keepdim: as in ``vector_norm``.
        most: s is 1 where the plain norm of x is right and at most this.

    Returns:
        (||s x||, s); s is None if it is 1 for all rows, which is known on a CPU only, where looking waits for nothing.
    """
    x = widened(x)
    plain = torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)
    count = x.numel() // max(plain.numel(), 1)
    if x.is_cpu and not torch.compiler.is_compiling() and _all_right(plain, count, most):
        return plain, None
    largest = torch.linalg.vector_norm(x, math.inf, dim=dim, keepdim=True)
    scale = _scale(plain.view_as(largest), largest, count, most)
    return torch.linalg.vector_norm(x * scale, dim=dim, keepdim=keepdim), scale.view_as(plain)


def total_norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together, without reading a number back to the host.

    Args:
        tensors: of any shapes, on one device.

    Returns:
        A float64 scalar on that device, because the norm of float32 elements may exceed float32.
    """
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
    """``total_norm`` as a Python number, in one pass over the tensors instead of four unless the plain norm is wrong.

    Args:
        tensors: of any shapes, on one device.

    Returns:
        The norm; reading it waits for the device.
    """
    wide = [widened(t) for t in tensors if t.numel()]
    if not wide:
        return 0.0
    plain = torch.nn.utils.get_total_norm(wide)
    return float(plain if _all_right(plain, sum(t.numel() for t in wide)) else total_norm(wide))


def widened(x: Tensor) -> Tensor:
    """16-bit numbers as float32, others unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _bounds(count: int, dtype: torch.dtype, most: float) -> tuple[float, float]:
    """The bounds between which a plain norm of ``count`` elements is right.

    Below, squares lose more under the smallest normal number than their sum's rounding; above, the norm is inf.
    """
    limits = torch.finfo(dtype)
    return math.sqrt(count * limits.tiny / limits.eps), min(most, limits.max)


def _all_right(plain: Tensor, count: int, most: float = math.inf) -> bool:
    least, most = _bounds(count, plain.dtype, most)
    if not plain.numel():
        return True
    low, high = plain.aminmax()
    return least <= float(low) and float(high) <= most  # neither with a nan


def _scale(plain: Tensor, largest: Tensor, count: int, most: float = math.inf) -> Tensor:
    """1 where ``plain`` is right, otherwise 1 / ``largest``, as far as that and its inverse are normal numbers."""
    least, most = _bounds(count, plain.dtype, most)
    tiny = torch.finfo(plain.dtype).tiny
    return torch.where((plain >= least) & (plain <= most), 1.0, 1 / largest.clamp(tiny, 1 / tiny))
