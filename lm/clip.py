"""Gradient clipping: the lecture's Algorithm 1, and clipping by value."""

import torch
from torch import Tensor


def clip(gradients: list[Tensor], kind: str, threshold: float) -> tuple[float, bool]:
    """Clip in place; the norm before clipping, and whether anything was changed.

    ``norm`` is Algorithm 1 of Pascanu, Mikolov & Bengio 2013 over all gradients together: if ||g|| >= threshold then
    g <- threshold / ||g|| g. ``value`` limits every element to [-threshold, threshold]. ``none`` only measures. A norm
    that is not finite is returned and nothing is changed.
    """
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if kind == "norm" and threshold <= norm < float("inf"):
        torch._foreach_mul_(gradients, threshold / norm)
        return norm, norm > threshold
    if kind == "value" and norm < float("inf"):
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
    norm = torch.nn.utils.get_total_norm(gradients)
    if kind == "norm":
        torch._foreach_mul_(gradients, (threshold / norm).clamp(max=1.0))
        return norm, norm > threshold
    if kind == "value":
        largest = torch.nn.utils.get_total_norm(gradients, float("inf"))
        torch._foreach_clamp_min_(gradients, -threshold)
        torch._foreach_clamp_max_(gradients, threshold)
        return norm, largest > threshold
    return norm, torch.zeros_like(norm, dtype=torch.bool)
