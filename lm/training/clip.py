"""Gradient clipping: the lecture's Algorithm 1, and clipping by value.

A gradient whose elements are finite is clipped however large its norm is: the norm is a float64 (``kernels.rnn.norms``), and
the elements are multiplied in two steps where threshold / norm is no normal number of their type.
"""

import math

import torch
from torch import Tensor

from recurrent_lm import kernels


def clip(gradients: list[Tensor], kind: str, threshold: float, look: bool = True) -> tuple[Tensor, Tensor]:
    """Clip in place.

    ``norm`` is Algorithm 1 of Pascanu, Mikolov & Bengio 2013 over all gradients together: if ||g|| >= threshold then
    g <- threshold / ||g|| g. ``value`` limits every element to [-threshold, threshold]. ``none`` only measures.

    Args:
        gradients: tensors of any shape, changed in place.
        kind: "norm", "value" or "none".
        threshold: of the norm or of an element.
        look: read the norm, to leave out passes that would change nothing; a norm that is not finite then leaves the gradients
            as they are. False, for a CUDA graph, reads no number of a GPU.

    Returns:
        The norm before clipping in float64, and whether anything was changed, as scalars.
    """
    norm = _scalar(kernels.total_norm_on_host(gradients)) if look else kernels.total_norm(gradients)
    if kind == "none" or (look and not norm.isfinite()):
        return norm, torch.zeros_like(norm, dtype=torch.bool)
    if kind == "value":
        clipped = torch.nn.utils.get_total_norm([g for g in gradients if g.numel()], math.inf) > threshold
        clipped = clipped.cpu() if look else clipped
        if not look or clipped:
            torch._foreach_clamp_min_(gradients, -threshold)
            torch._foreach_clamp_max_(gradients, threshold)
        return norm, clipped
    factor = (threshold / norm).clamp(max=1.0)
    tiny = factor < _tiny(gradients)
    for step in (torch.where(tiny, factor.sqrt(), 1.0), torch.where(tiny, factor.sqrt(), factor)):
        if not (step.is_cpu and step == 1):
            _multiply(gradients, step)
    return norm, norm > threshold


def not_finite(gradients: list[Tensor]) -> Tensor:
    """Number of elements of each gradient that are inf or NaN, [gradients] in float64, without reading a number back."""
    return torch.stack(torch._foreach_norm(torch._foreach_mul(gradients, 0.0), 0, dtype=torch.float64))


def _tiny(gradients: list[Tensor]) -> float:
    """The smallest factor that keeps its digits in each gradient's type of multiplication."""
    return max((torch.finfo(torch.promote_types(g.dtype, torch.float32)).tiny for g in gradients), default=0.0)


def _scalar(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


def _multiply(gradients: list[Tensor], factor: Tensor) -> None:
    """Multiply in place, 16-bit numbers in float32: torch would round the factor to 16 bits first."""
    for dtype in dict.fromkeys(g.dtype for g in gradients):
        those = [g for g in gradients if g.dtype == dtype]
        if dtype.itemsize > 2:
            torch._foreach_mul_(those, float(factor) if factor.is_cpu else factor.to(dtype))
        else:
            for g in those:
                g.copy_(g.float() * factor.float())
