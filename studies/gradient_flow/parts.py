"""Every step's part of dL(t)/dW_h for many losses L(t), from one backward pass with the losses stacked in the batch.

The backward pass uses the hand-written step gradients of ``kernels.CELLS``. In one sequence a step's part is the outer product
of d = dL(t)/d(h(i-1) W_h) and h(i-1). Norms therefore need no stored part: ||d h^T|| = ||d|| ||h||, and the norm of the sum
over steps follows from the Gram product sum((D D^T) * (H H^T)) over pairs of steps (lecture, slide BPTT).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recurrent_lm import kernels


@dataclass(frozen=True)
class Forward:
    """A layer's forward pass over T steps of B sequences.

    ``before`` and ``after`` hold the state (h, or h and c) at each step, each [T, B, H]; ``gates`` are the step's gates.
    """

    cell: str
    weight_hh: Tensor  # [G H, H]
    before: tuple[Tensor, ...]
    after: tuple[Tensor, ...]
    gates: tuple[Tensor, ...]

    def since(self, step: int) -> "Forward":
        """The pass without its first ``step`` steps."""
        cut = [tuple(tensor[step:] for tensor in group) for group in (self.before, self.after, self.gates)]
        return Forward(self.cell, self.weight_hh, *cut)


@dataclass(frozen=True)
class Backward:
    """The gradients of N losses at each step, [T, N, B, ..].

    ``d_h`` = dL/dh(i); ``d_c`` = dL/dc(i) without the way through h(i) (LSTM only); ``d_z`` and ``d_a``, the gradients of the
    input's and of the state's part of the gates' sums.
    """

    d_h: Tensor
    d_c: Tensor | None
    d_z: Tensor
    d_a: Tensor

    def state_norms(self) -> Tensor:
        """||dL/d(state at step i)||, [T, N, B]; the state of an LSTM is h and c together."""
        norms = kernels.vector_norm(self.d_h, dim=-1)
        return norms if self.d_c is None else torch.hypot(norms, kernels.vector_norm(self.d_c, dim=-1))


def forward(cell: str, z: Tensor, state: tuple[Tensor, ...], weight_hh: Tensor, bias_hh: Tensor | None = None) -> Forward:
    """Run a layer without recording gradients.

    Args:
        cell: a key of ``kernels.CELLS``.
        z: [T, B, G H], the input's part of the gates' sums.
        state: the state before the first step, each tensor [B, H].
        weight_hh: [G H, H].
        bias_hh: [G H] or None.

    Returns:
        The states and gates of all steps.
    """
    states = [state]
    with torch.no_grad():
        for row in z:
            states.append(kernels.step(cell, row, states[-1], weight_hh, bias_hh))
        whole = [torch.stack(part) for part in zip(*states, strict=True)]
        before, after = tuple(s[:-1] for s in whole), tuple(s[1:] for s in whole)
        a = torch.nn.functional.linear(before[0], weight_hh, bias_hh)
        return Forward(cell, weight_hh.detach(), before, after, kernels.CELLS[cell].gates_of(z, a))


def backward(unrolled: Forward, arriving: Tensor) -> Backward:
    """Backpropagate N losses through a layer.

    Args:
        unrolled: the layer's forward pass.
        arriving: [T, N, B, H], each loss's gradient at h(i) that does not come through the recurrence.

    Returns:
        The gradients at each step.
    """
    step_gradient = kernels.CELLS[unrolled.cell].gradient
    lstm = len(unrolled.before) == 2
    d_h = torch.zeros_like(arriving[0])
    d_c: Tensor | None = torch.zeros_like(d_h) if lstm else None
    steps: list[Any] = [()] * len(arriving)
    for i in reversed(range(len(arriving))):
        d_h = d_h + arriving[i]
        state = (unrolled.before[0][i], unrolled.before[1][i] if lstm else None, unrolled.after[1][i] if lstm else None)
        d_z, d_a, past, earlier = step_gradient(d_h, d_c, tuple(g[i] for g in unrolled.gates), state)
        steps[i] = (d_h, d_c, d_z, d_a)
        d_h, d_c = past + d_a @ unrolled.weight_hh, earlier
    of_h, of_c, of_z, of_a = zip(*steps, strict=True)
    return Backward(torch.stack(of_h), torch.stack(of_c) if lstm else None, torch.stack(of_z), torch.stack(of_a))


def at_own_step(arriving: Tensor, steps: int) -> Tensor:
    """Place each loss's gradient at its own step.

    Args:
        arriving: [N, B, H], dL(t)/dh(t) of the last N of T steps.
        steps: T.

    Returns:
        [T, N, B, H], zero at all other steps.
    """
    count = len(arriving)
    stacked = arriving.new_zeros(steps, count, *arriving.shape[1:])
    stacked[torch.arange(steps - count, steps), torch.arange(count)] = arriving
    return stacked


def part_norms(unrolled: Forward, back: Backward) -> Tensor:
    """||dL(t)/dW_h at step i||_F, [T, N, B]."""
    return kernels.vector_norm(back.d_a, dim=-1) * kernels.vector_norm(unrolled.before[0], dim=-1)[:, None]


def sums(unrolled: Forward, back: Backward) -> Tensor:
    """Sum of the parts over steps, [N, B, G H, H]: for checks, since ``sum_norms`` needs no stored parts."""
    return torch.einsum("tnbg,tbh->nbgh", back.d_a, unrolled.before[0])


def sum_norms(unrolled: Forward, back: Backward) -> Tensor:
    """Norm of the sum of the parts over steps, [N, B], by the Gram product."""
    d, h = back.d_a.permute(1, 2, 0, 3), unrolled.before[0].transpose(0, 1)
    return ((d @ d.mT) * (h @ h.mT)).sum(dim=(-1, -2)).clamp(min=0).sqrt()


def along_lags(norms: Tensor, lags: int) -> Tensor:
    """Reorder norms from steps i to lags l = t - i.

    Args:
        norms: [T, N, B] of the losses at the last N steps.
        lags: the largest lag; T must be at least ``lags`` + N.

    Returns:
        [lags + 1, N, B].
    """
    steps, count = norms.shape[:2]
    t = torch.arange(steps - count, steps)
    return norms[t - torch.arange(lags + 1)[:, None], torch.arange(count)]


def horizon(by_lag: Tensor, share: float = 0.9) -> Tensor:
    """Credit horizon: the smallest lag up to which ``share`` of the summed norms lie; [L, ..] to [..], whole numbers."""
    return (by_lag.cumsum(dim=0) < share * by_lag.sum(dim=0)).sum(dim=0)


def slope(by_lag: Tensor, first: int, last: int) -> float:
    """Growth of the log of a curve [L] per lag: the slope of a least-squares line through the lags first .. last.

    Returns:
        The slope; nan if a norm is 0 or not finite.
    """
    lags = torch.arange(first, last + 1, dtype=torch.float64)
    logs = by_lag[first : last + 1].double().log()
    if len(logs) < 2 or not logs.isfinite().all():
        return float("nan")
    lags = lags - lags.mean()
    return float((lags * logs).sum() / (lags * lags).sum())
