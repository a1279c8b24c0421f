"""Gradient clipping: the lecture's Algorithm 1, and clipping by value.

A gradient whose elements are finite is clipped however large its norm is: the norm is a float64 (``kernels.rnn.norms``), and
the elements are multiplied in two steps where threshold / norm is no normal number of their type.
"""

import math

import torch
from torch import Tensor

from recurrent_lm import kernels


def clip(gradients: list[Tensor], kind: str, threshold: float) -> tuple[float, bool]:
    """Clip in place; the norm before clipping, and whether anything was changed.

    ``norm`` is Algorithm 1 of Pascanu, Mikolov & Bengio 2013 over all gradients together: if ||g|| >= threshold then
    g <- threshold / ||g|| g. ``value`` limits every element to [-threshold, threshold]. ``none`` only measures. A norm
    that is not finite is returned and nothing is changed.
    """
    norm = kernels.total_norm_on_host(gradients)
    if kind == "norm" and threshold <= norm < math.inf:
        factor = threshold / norm
        for step in (factor,) if factor >= _tiny(gradients) else (math.sqrt(factor),) * 2:
            _multiply(gradients, step)
        return norm, norm > threshold
    if kind == "value" and norm < math.inf:
        over = any(bool(g.abs().amax() > threshold) for g in gradients if g.numel())
        if over:
            torch._foreach_clamp_min_(gradients, -threshold)
            torch._foreach_clamp_max_(gradients, threshold)
        return norm, over
    return norm, False


def clip_on_device(gradients: list[Tensor], kind: str, threshold: float) -> tuple[Tensor, Tensor]:
    """``clip`` without a look at any number, for a CUDA graph: the same norm, and whether anything was changed, as scalars.

    A norm that is not finite leaves gradients that are of no use.
    """
    norm = kernels.total_norm(gradients)
    if kind == "norm":
        factor = (threshold / norm).clamp(max=1.0)
        root = torch.where(factor < _tiny(gradients), factor.sqrt(), 1.0)
        for step in (root, factor / root):
            _multiply(gradients, step)
        return norm, norm > threshold
    if kind == "value":
        largest = torch.nn.utils.get_total_norm([g for g in gradients if g.numel()], math.inf)
        torch._foreach_clamp_min_(gradients, -threshold)
        torch._foreach_clamp_max_(gradients, threshold)
        return norm, largest > threshold
    return norm, torch.zeros_like(norm, dtype=torch.bool)


def not_finite(gradients: list[Tensor]) -> Tensor:
    """How many elements of each gradient are inf or NaN, [number of gradients] in float64; nothing is read back."""
    return torch.stack(torch._foreach_norm(torch._foreach_mul(gradients, 0.0), 0, dtype=torch.float64))


def _tiny(gradients: list[Tensor]) -> float:
    """The smallest factor that keeps its digits in the type that each gradient is multiplied in."""
    return max((torch.finfo(torch.promote_types(g.dtype, torch.float32)).tiny for g in gradients), default=0.0)


def _multiply(gradients: list[Tensor], factor: float | Tensor) -> None:
    """In place, halves as float32: torch would round the factor to a half first."""
    for dtype in dict.fromkeys(g.dtype for g in gradients):
        those = [g for g in gradients if g.dtype == dtype]
        if dtype.itemsize > 2:
            torch._foreach_mul_(those, factor.to(dtype) if isinstance(factor, Tensor) else factor)
        else:
            for g in those:
                g.copy_(g.float() * (factor.float() if isinstance(factor, Tensor) else factor))
