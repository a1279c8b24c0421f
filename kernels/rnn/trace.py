"""The gradient trace: the gradient norm at every time step, recorded during a backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recurrent_lm.kernels.rnn.norms import widened


@dataclass(frozen=True)
class LayerTrace:
    """One layer's gradient norms: ``hidden_norms`` [T, B] = ||dL/dh[t]||, ``weight_norms`` [T] = ||part of dL/dW_h at step
    t||_F. A linear cell has no W_h; the parts are those of W_z, the rows of weight_ih of its gate.

    Both are right for gradients of any size: inf only where a norm itself exceeds the largest number of its type.
    """

    hidden_norms: Tensor
    weight_norms: Tensor


@dataclass
class GradientTrace:
    """The traces of one backward pass, first layer first."""

    layers: list[LayerTrace] = field(default_factory=list)

    def add(self, hidden_norms: Tensor, weight_norms: Tensor) -> None:
        """Insert a layer at the front: the backward pass reaches the last layer first."""
        self.layers.insert(0, LayerTrace(hidden_norms, weight_norms))


_active: list[GradientTrace] = []


def tracing() -> GradientTrace | None:
    """The trace that is being recorded, or None."""
    return _active[-1] if _active else None


@contextmanager
def trace_gradients() -> Iterator[GradientTrace]:
    """Record the gradient norms of all recurrent layers whose backward pass runs inside the block.

    Put it around ``loss.backward()``, one backward pass for each block. dL/dh[t] is the whole gradient at h[t], from the
    outputs and from later steps, after recurrent clipping.

    Yields:
        A ``GradientTrace`` that is complete when the block ends; norms are on the layers' device.

    The parts are those of the lecture's slide BPTT: dL/dW_h = sum over t of d[t]^T h[t-1].
    """
    trace = GradientTrace()
    _active.append(trace)
    try:
        yield trace
    finally:
        _active.remove(trace)


ELEMENTS = 1 << 24  # of products, and of h and d, that are kept at a time: 64 MB in float32


def step_norms(h0: Tensor, hs: Tensor, d: Tensor) -> Tensor:
    """Frobenius norm of each step's part of dL/dW_h, ||d[t]^T h[t-1]||_F, without storing the parts.

    Args:
        h0: [B, H], the state before the first step.
        hs: [T - 1 or more, B, H], the states after the first step, the second, ...; numbers of a row are adjacent in memory.
        d: [T, B, W], gradients of the gates' sums, also adjacent in memory.

    Returns:
        [T] in the accumulator's type (float32, or float64 for float64); inf only where the norm exceeds that type.
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


def gate_norms(x: Tensor, d: Tensor) -> Tensor:
    """Frobenius norm of each step's part of dL/dW_z of a linear cell, ||d_z[t]^T x[t]||_F.

    Args:
        x: [T, B, I], the layer's input.
        d: [T, B, G * H], gradients of the sums, those of z first.

    Returns:
        [T], as ``step_norms``.
    """
    x, d_z = x.detach().contiguous(), d[..., : d.shape[2] // 2].contiguous()
    return step_norms(x[0], x[1:], d_z)


def _by_power(x: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each of the N matrices in x [N, B, K] by the power of two next to its largest element.

    Returns:
        The scaled matrices [N, B, K], and the base-2 logarithms of the powers [N] in float64.
    """
    if x.dtype == torch.float16:  # whose fourth powers are within float32
        return x, torch.zeros(len(x), dtype=torch.float64, device=x.device)
    largest = widened(torch.maximum(x.amax((1, 2), keepdim=True), -x.amin((1, 2), keepdim=True)))
    if x.is_cpu and bool(((largest == 0) | ((largest > 1e-8) & (largest < 1e7))).all()):
        return x, torch.zeros(len(x), dtype=torch.float64)  # no square of a product overflows or loses digits
    limits = torch.finfo(largest.dtype)
    power = largest.clamp(limits.tiny, 1 / limits.tiny).log2().round()
    return x * torch.exp2(-power).to(x.dtype), power.flatten().double()


def products(a: Tensor, b: Tensor) -> Tensor:
    """Batched product [N, P, K] times [N, K, Q] with sums in the accumulator's type.

    Returns:
        [N, P, Q] in float32, or in float64 for float64.
    """
    wide = torch.promote_types(a.dtype, torch.float32)
    if a.is_cpu or wide in (a.dtype, b.dtype):
        return torch.bmm(a.to(wide), b.to(wide))
    return torch.bmm(a, b, out_dtype=wide)  # which the CPU does not have
