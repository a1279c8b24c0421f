"""The gradient trace: how much gradient reaches every time step, written down while a backward pass runs."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recurrent_lm.kernels.rnn.norms import widened


@dataclass(frozen=True)
class LayerTrace:
    """One layer: ``hidden_norms`` [T, B] = ||dL/dh[t]||, ``weight_norms`` [T] = ||dL/dW_h restricted to step t||_F.

    They are right for any size of gradient: inf only where a norm itself is above the largest number of its type.
    """

    hidden_norms: Tensor
    weight_norms: Tensor


@dataclass
class GradientTrace:
    """The layers of one backward pass, the first layer first."""

    layers: list[LayerTrace] = field(default_factory=list)

    def add(self, hidden_norms: Tensor, weight_norms: Tensor) -> None:
        """A layer; the backward pass comes to the last one first."""
        self.layers.insert(0, LayerTrace(hidden_norms, weight_norms))


_active: list[GradientTrace] = []


def tracing() -> GradientTrace | None:
    """The trace that is being written, if any."""
    return _active[-1] if _active else None


@contextmanager
def trace_gradients() -> Iterator[GradientTrace]:
    """Trace the recurrent layers of the backward pass inside the block.

    Put around ``loss.backward()``; one pass a trace. dL/dh[t] holds all that arrives at h[t], from outputs and from later
    steps, after recurrent clipping.
    """
    trace = GradientTrace()
    _active.append(trace)
    try:
        yield trace
    finally:
        _active.remove(trace)


ELEMENTS = 1 << 24  # of products, and of h and d, that are kept at a time: 64 MB in float32


def step_norms(h0: Tensor, hs: Tensor, d: Tensor) -> Tensor:
    """||d[t]^T h[t-1]||_F [T] in the accumulator's type; inf only where it is above that type's largest number.

    Args:
        h0: [B, H], before the first step.
        hs: [T - 1 or more, B, H], after the first step, the second, ...
        d: [T, B, W]. A row's numbers lie side by side, in h as well.
    """
    steps, batch, width = d.shape
    if batch == 0:
        return d.new_zeros(steps, dtype=torch.promote_types(d.dtype, torch.float32))
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
            norms_of_pieces = [gram.sum((1, 2)).clamp_(min=0).sqrt_() for gram in grams]
        else:
            norms_of_pieces = [torch.linalg.vector_norm(products(own.mT, h), dim=(1, 2)) for h, _, own, _ in scaled]
        for norm, (_, of_h, _, of_d) in zip(norms_of_pieces, scaled, strict=True):
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
