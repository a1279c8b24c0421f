"""All steps of a recurrence at once: Newton's method over the whole sequence, for one layer and one sequence.

A guess s(1) .. s(T) of all states leaves the residual r(t) = f(s(t-1), x(t)) - s(t). Newton's correction d solves the linear
recurrence d(t) = J(t) d(t-1) + r(t) with J(t) = df/ds at s(t-1), which an associative scan does in log T levels (DEER, Lim et
al. 2024). Its ways differ in the J that they take: ``full``; ``diagonal`` (quasi-DEER) and ``damped``, 1 - k times the full one
(scale-ELK), both Gonzalez et al. 2024. After k iterations the first k states are exact in every way, up to rounding, and a
state depends on those before it alone: one run over T steps also counts the iterations of every shorter sequence.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm import kernels

WAYS = ("full", "diagonal", "damped")
CHUNK = 16  # steps whose Jacobians are held at a time where iterations are counted
DAMPING = 0.5  # k of scale-ELK
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}  # of a state; in float32 about a thousand roundings


@dataclass(frozen=True)
class Layer:
    """A layer reading one sequence. Its state is one vector of S numbers: h, or h and c of an LSTM, one behind the other.

    Args:
        cell: a key of ``kernels.CELLS``.
        z: [T, G n], the input's part of the gates' sums.
        weight_hh: [G n, n].
        bias_hh: [G n] or None.
        start: [S], the state before the first step.
    """

    cell: str
    z: Tensor
    weight_hh: Tensor
    bias_hh: Tensor | None
    start: Tensor

    def first(self, steps: int) -> "Layer":
        """The layer reading the first steps alone."""
        return replace(self, z=self.z[:steps])

    def zeros(self) -> Tensor:
        """The first guess, [T, S]."""
        return self.start.new_zeros(len(self.z), len(self.start))

    def to(self, dtype: torch.dtype) -> "Layer":
        """The layer and its sequence in another dtype."""
        bias = None if self.bias_hh is None else self.bias_hh.to(dtype)
        return Layer(self.cell, self.z.to(dtype), self.weight_hh.to(dtype), bias, self.start.to(dtype))

    def step(self, before: Tensor) -> Tensor:
        """f: the states after the T steps from those before them, [T, S] each, all steps at once."""
        return torch.cat(kernels.step(self.cell, self.z, self._parts(before), self.weight_hh, self.bias_hh), dim=-1)

    def jacobian(self, before: Tensor) -> Tensor:
        """df/ds of each step, [T, S, S]: a unit's new state depends on the others through the product with W_h alone."""
        units = self.weight_hh.shape[1]
        weight = self.weight_hh.unflatten(0, (-1, units))
        rows = []
        for d_a, past, earlier in self._slopes(before):
            gates = zip(d_a.unflatten(1, (-1, units)).unbind(1), weight, strict=True)
            of_h = sum(d[:, :, None] * w for d, w in gates)
            of_h.diagonal(dim1=1, dim2=2).add_(past)
            rows.append(of_h if earlier is None else torch.cat([of_h, torch.diag_embed(earlier)], dim=2))
        return torch.cat(rows, dim=1)

    def diagonal(self, before: Tensor) -> Tensor:
        """The diagonal of ``jacobian``, [T, S]."""
        units = self.weight_hh.shape[1]
        own = self.weight_hh.unflatten(0, (-1, units)).diagonal(dim1=1, dim2=2)
        slopes = self._slopes(before)
        d_a, past, _ = slopes[0]
        of_h = (d_a.unflatten(1, (-1, units)) * own).sum(dim=1) + past
        return of_h if len(slopes) == 1 else torch.cat([of_h, slopes[1][2]], dim=1)

    def sequential(self) -> Tensor:
        """The states by T steps one after the other, [T, S]: the truth."""
        state, states = self._parts(self.start[None]), []
        for z in self.z.split(1):
            state = kernels.step(self.cell, z, state, self.weight_hh, self.bias_hh)
            states.append(torch.cat(state, dim=-1))
        return torch.cat(states)

    def before(self, states: Tensor) -> Tensor:
        """The state before each step, from those after it."""
        return torch.cat([self.start[None], states[:-1]])

    def _parts(self, states: Tensor) -> tuple[Tensor, ...]:
        return states.split(self.weight_hh.shape[1], dim=-1)

    def _slopes(self, before: Tensor) -> list[tuple[Any, Any, Any]]:
        """Of h', and of c' of an LSTM, each unit's derivatives by the gates' sums, by h of the same unit beside the product,
        and by its c: the gradient of one step for losses that are the sum of h', and of c'."""
        cell, parts = kernels.CELLS[self.cell], self._parts(before)
        gates = cell.gates_of(self.z, F.linear(parts[0], self.weight_hh, self.bias_hh))
        one, none = torch.ones_like(parts[0]), torch.zeros_like(parts[0])
        if len(parts) == 1:
            return [cell.gradient(one, None, gates, (parts[0], None, None))[1:]]
        state = (parts[0], parts[1], kernels.step(self.cell, self.z, parts, self.weight_hh, self.bias_hh)[1])
        return [cell.gradient(*losses, gates, state)[1:] for losses in ((one, none), (none, one))]


def by_loop(jacobian: Tensor, b: Tensor, start: Tensor | None = None) -> Tensor:
    """Solve s(t) = J(t) s(t-1) + b(t), step by step.

    Args:
        jacobian: [T, S, S], or [T, S] for diagonals.
        b: [T, S].
        start: s(0), [S]; None is 0.

    Returns:
        s, [T, S].
    """
    state, states = torch.zeros_like(b[0]) if start is None else start, []
    for j, add in zip(jacobian.unbind(), b.unbind(), strict=True):
        state = torch.addmv(add, j, state) if j.dim() == 2 else torch.addcmul(add, j, state)
        states.append(state)
    return torch.stack(states)


def by_scan(jacobian: Tensor, b: Tensor) -> Tensor:
    """As ``by_loop``, by an associative scan of the pairs (J, b): neighbours are joined, then pairs of neighbours, and so on,
    in 2 log2 T levels of which each is one batch of products (Blelloch 1990)."""
    return _prefixes(jacobian, b)[1]


def _prefixes(j: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if len(b) == 1:
        return j, b
    even = len(b) // 2 * 2
    odd_j, odd_b = _prefixes(*_joined(j[:even:2], b[:even:2], j[1::2], b[1::2]))
    all_j, all_b = torch.empty_like(j), torch.empty_like(b)
    all_j[0], all_b[0], all_j[1::2], all_b[1::2] = j[0], b[0], odd_j, odd_b
    rest = len(b[2::2])
    all_j[2::2], all_b[2::2] = _joined(odd_j[:rest], odd_b[:rest], j[2::2], b[2::2])
    return all_j, all_b


def _joined(first: Tensor, add: Tensor, second: Tensor, then: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps s -> J s + b, one behind the other."""
    if first.dim() == add.dim():
        return second * first, second * add + then
    return second @ first, (second @ add[..., None])[..., 0] + then


def residual(layer: Layer, states: Tensor) -> Tensor:
    """r(t) = f(s(t-1), x(t)) - s(t) of a guess, [T, S]."""
    return layer.step(layer.before(states)) - states


def improved(layer: Layer, states: Tensor, off: Tensor, way: str) -> Tensor:
    """One iteration, for counting: step by step, with the Jacobians of a few steps in the cache at a time.

    Args:
        layer: the layer with its sequence.
        states: a guess, [T, S].
        off: its ``residual``.
        way: one of ``WAYS``.

    Returns:
        The next guess.
    """
    before, moves = layer.before(states), [torch.zeros_like(off[:1])]
    for z, here, rest in zip(layer.z.split(CHUNK), before.split(CHUNK), off.split(CHUNK), strict=True):
        moves.append(by_loop(_jacobian(replace(layer, z=z), here, way), rest, moves[-1][-1]))
    return states + torch.cat(moves[1:])


def _jacobian(layer: Layer, before: Tensor, way: str) -> Tensor:
    if way == "diagonal":
        return layer.diagonal(before)
    return layer.jacobian(before) * (1 - DAMPING) if way == "damped" else layer.jacobian(before)


def solved(layer: Layer, way: str = "full", most: int = 100) -> tuple[Tensor, int]:
    """All states by associative scans, from zeros on, by as many iterations as bring every residual down to rounding.

    Returns:
        The states [T, S] and the number of iterations.

    Raises:
        ArithmeticError: if ``most`` iterations do not suffice.
    """
    states = layer.zeros()
    enough = 100 * torch.finfo(states.dtype).eps
    for k in range(most + 1):
        off = residual(layer, states)
        if float(off.abs().max()) <= enough:
            return states, k
        states = states + by_scan(_jacobian(layer, layer.before(states), way), off)
    raise ArithmeticError(f"Newton's method did not converge in {most} iterations")


def arriving(layer: Layer, states: Tensor, losses: Tensor) -> Tensor:
    """Backpropagation through time in parallel: dL/ds(t), which solves g(t) = J(t+1)^T g(t+1) + losses(t), one scan backwards.

    Args:
        layer: the layer with its sequence.
        states: its states, [T, S].
        losses: [T, S], the gradient of the losses at each state that does not come through the recurrence.

    Returns:
        [T, S].
    """
    after = layer.jacobian(layer.before(states)).mT
    nothing = torch.zeros_like(after[:1])
    return by_scan(torch.cat([after[1:], nothing]).flip(0), losses.flip(0)).flip(0)


def gradients(layer: Layer, states: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dz [T, G n] and dL/dW_h [G n, n] in parallel: the gradient of one step, for all steps at once; arguments as in
    ``arriving``."""
    z, weight = layer.z.detach().requires_grad_(), layer.weight_hh.detach().requires_grad_()
    after = replace(layer, z=z, weight_hh=weight).step(layer.before(states))
    of_z, of_weight = torch.autograd.grad(after, (z, weight), arriving(layer, states, losses))
    return of_z, of_weight


@dataclass(frozen=True)
class Count:
    """Iterations for the first ``steps`` steps of a sequence; infinite with a ``reason`` where they did not suffice.

    ``stopped`` counts until the largest residual is below the tolerance, a rule that needs no truth; ``error`` is the largest
    distance from the truth at that moment.
    """

    steps: int
    iterations: float = math.inf
    stopped: float = math.inf
    error: float = math.nan
    reason: str = ""


def counts(layer: Layer, way: str, lengths: tuple[int, ...], most: int) -> list[Count]:
    """Count Newton's iterations until every state is within ``TOLERANCE`` of the sequential one, for each length.

    Args:
        layer: the layer with a sequence of at least the largest length.
        way: one of ``WAYS``.
        lengths: numbers of steps T.
        most: iterations after which a sequence is given up.

    Returns:
        A ``Count`` for each length. Reasons: ``network``, the states themselves are not finite; ``overflow``, a guess is not;
        ``rounding``, not solved after T iterations, which suffice in exact numbers; ``limit``, not solved after ``most``.
    """
    truth, tolerance = layer.sequential(), TOLERANCE[layer.z.dtype]
    by_length = {steps: Count(steps, reason="" if truth[:steps].isfinite().all() else "network") for steps in lengths}
    left = [steps for steps, count in by_length.items() if not count.reason]
    states, k = layer.zeros(), 0
    while left:
        layer, states = layer.first(max(left)), states[: max(left)]  # a state depends on those before it alone
        off = residual(layer, states)
        far = torch.stack([states - truth[: len(states)], off]).abs().amax(dim=2)
        for steps in list(left):
            error, rest = far[:, :steps].amax(dim=1).tolist()
            count = by_length[steps]
            if error <= tolerance and count.iterations == math.inf:
                count = replace(count, iterations=k)
            if rest <= tolerance and count.stopped == math.inf:
                count = replace(count, stopped=k, error=error)
            reason = _hopeless(error, k, steps, most)
            if reason or max(count.iterations, count.stopped) < math.inf:
                left.remove(steps)
            by_length[steps] = replace(count, reason=reason if count.iterations == math.inf else "")
        states, k = improved(layer, states, off, way), k + 1
    return list(by_length.values())


def _hopeless(error: float, k: int, steps: int, most: int) -> str:
    """Why more iterations than k will not help; empty if they may."""
    if not error < math.inf:
        return "overflow"
    return "rounding" if k >= steps else "limit" if k >= most else ""
