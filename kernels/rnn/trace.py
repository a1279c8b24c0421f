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
    steps = len(d)
    first, rest = weight_norms(h0[None], d[:1]), weight_norms(hs[: steps - 1], d[1:])
    return torch.cat([first, rest]) if steps > 1 else first


def weight_norms(before: Tensor, d: Tensor) -> Tensor:
    """``step_norms`` of states that lie in one tensor, ``before`` [T, B, H]: each the state before its step."""
    steps, batch, width = d.shape
    if batch == 0:
        return d.new_zeros(steps, dtype=torch.promote_types(d.dtype, torch.float32))
    hidden = before.shape[2]
    of_rows = batch * (hidden + width) <= hidden * width
    count = max(1, ELEMENTS // max(1, batch * batch if of_rows else hidden * width, batch * (hidden + width)))
    pieces = zip(before.split(count), d.split(count), strict=True)
    norms = [(_norms_by_rows if of_rows else _norms_of_gradients)(*piece) for piece in pieces]
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
    return weight_norms(x, d_z)


def _norms_by_rows(h: Tensor, d: Tensor) -> Tensor:
    """||d^T h||^2 is the sum over pairs of rows of (h h^T) (d d^T)."""
    if d.is_cpu:  # looking waits for nothing, so most norms need one pass over h and d
        gram_h, gram_d = products(h, h.mT), products(d, d.mT)
        if _in_range(h, gram_h) and _in_range(d, gram_d):
            return gram_h.mul_(gram_d).sum((1, 2)).clamp_(min=0).sqrt_()
    (h, of_h), (d, of_d) = _by_power(h), _by_power(d)
    norms = products(h, h.mT).mul_(products(d, d.mT)).sum((1, 2)).clamp_(min=0).sqrt_()
    return _times_power(norms, of_h + of_d)


def _norms_of_gradients(h: Tensor, d: Tensor) -> Tensor:
    (h, of_h), (d, of_d) = _by_power(h), _by_power(d)
    return _times_power(torch.linalg.vector_norm(products(d.mT, h), dim=(1, 2)), of_h + of_d)


def _times_power(norms: Tensor, power: Tensor) -> Tensor:
    return (norms.double() * torch.exp2(power)).to(norms.dtype)


def _in_range(x: Tensor, gram: Tensor) -> bool:
    """Whether no square of a product of two such Gram matrices overflows or loses digits: the largest element is on the
    diagonal. x is read only where that is 0, which it may be by underflow.
    """
    largest = gram.diagonal(dim1=1, dim2=2).amax(1)
    low, high = (float(bound) for bound in largest.aminmax())
    if low == 0:
        zero = largest == 0
        if bool(x[zero].any()):
            return False
        low = float(largest.masked_fill(zero, 1).min())
    return low > 1e-16 and high < 1e14


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
