"""Many small recurrent networks trained side by side: tensors have a first axis of replicas R, products are batched.

Backpropagation through time is written by hand: on such small steps it takes half of autograd's time, and Omega needs the
gradients of all hidden states. Replicas do not affect each other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recurrent_lm import kernels
from recurrent_lm.studies.long_range.tasks import Task

BOUND = 1e-20  # squared norm of a gradient below which Omega leaves a step out (Pascanu's code)


@dataclass
class Weights:
    """Of R networks of n units and G gates: h(t) = RNN(h(t-1) W_h, x(t) W_e), y(t) = h(t) U + c.

    Shapes: W_h [R, n, G n], W_e [R, channels, G n] (its last row is the bias), U [R, n, outputs], c [R, 1, outputs].
    """

    W_h: Tensor
    W_e: Tensor
    U: Tensor
    c: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.W_h, self.W_e, self.U, self.c

    def of(self, replicas: Tensor) -> "Weights":
        """The weights of the chosen replicas."""
        return Weights(*(t[replicas] for t in self.tensors()))


def initial(cell: str, task: Task, hidden: int, std: float, randoms: list[torch.Generator]) -> Weights:
    """Draw weights from N(0, std^2); biases are 0, but 1 for the gate that keeps the state (LSTM's f, GRU's u)."""
    gates = kernels.CELLS[cell].gates
    shapes = ((hidden, gates * hidden), (task.channels, gates * hidden), (hidden, task.outputs))
    drawn = [[std * torch.randn(shape, generator=random) for shape in shapes] for random in randoms]
    W_h, W_e, U = (torch.stack(tensors) for tensors in zip(*drawn, strict=True))
    W_e[:, -1] = 0
    if gates > 1:
        W_e[:, -1, hidden : 2 * hidden] = 1
    return Weights(W_h, W_e, U, U.new_zeros(len(randoms), 1, task.outputs))


def answers(cell: str, weights: Weights, x: Tensor, asked: int) -> Tensor:
    """y at the last ``asked`` steps, [asked, R, B, outputs], of inputs x [T, R, B, channels]."""
    state = _zeros(cell, weights, x)
    hidden = []
    for t in range(len(x)):
        state, _ = _forward(cell, torch.bmm(x[t], weights.W_e), state, weights.W_h)
        if t >= len(x) - asked:
            hidden.append(state[0])
    return torch.stack(hidden) @ weights.U + weights.c


def gradients(
    cell: str, task: Task, weights: Weights, x: Tensor, target: Tensor, omega: float = 0.0
) -> tuple[Tensor, Weights, Tensor]:
    """Loss of each replica [R], its gradients, and Omega [R] (0 unless ``omega``, its weight in W_h's gradient, is more).

    Args:
        x: [T, R, B, channels].
        target: [S, R, B], asked at the last S steps.
    """
    if cell == "rnn-tanh":
        h, deltas, loss, grads, onward = _elman(task, weights, x, target)
        if not omega:
            return loss, grads, torch.zeros_like(loss)
        value, slope = immediate(weights.W_h, h[1:], deltas, onward)
        grads.W_h += omega * slope
        return loss, grads, value
    if omega:
        raise ValueError(f"Omega is defined for rnn-tanh, not for {cell}")
    return *_gated(cell, task, weights, x, target), x.new_zeros(x.shape[1])


def immediate(W_h: Tensor, h: Tensor, deltas: Tensor, onward: Tensor) -> tuple[Tensor, Tensor]:
    """Pascanu's Omega and its immediate derivative with respect to W_h, of each replica.

    Omega is the mean, over steps k and sequences, of (||dE/dx(k+1) dx(k+1)/dx(k)|| / ||dE/dx(k+1)|| - 1)^2, x the sum
    inside the tanh (eq. 9). dE/dx and the slopes of the tanh count as constants (eq. 10). The paper sums over k; its code,
    whose weight 4 is ours, divides by the number of steps and sequences with a gradient, as here. (The code also squares
    both norms and takes h for x; here it is the paper's formula.)

    Args:
        h: [T, R, B, n], after each step.
        deltas: dE/dx, the same shape.
        onward: dE/dx(k+1) W_h^T at each k but the last, [T-1, R, B, n].
    """
    after, slopes = deltas[1:], 1 - h[:-1].square()
    length = after.square().sum(dim=-1, keepdim=True)
    seen = length >= BOUND
    length = length.sqrt().where(seen, 1.0)
    carried = onward * slopes
    norm = carried.square().sum(dim=-1, keepdim=True).sqrt()
    off = (norm / length - 1).where(seen, 0.0)
    count = seen.sum(dim=(0, 2, 3)).clamp_min(1)
    pull = (2 * off / (length * norm.clamp_min(BOUND))) * carried * slopes
    slope = torch.zeros_like(W_h)
    for k in range(len(after)):
        slope.baddbmm_(pull[k].transpose(1, 2), after[k])
    return off.square().sum(dim=(0, 2, 3)) / count, slope / count[:, None, None]


def _elman(task: Task, w: Weights, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Weights, Tensor]:
    steps, replicas, rows, _ = x.shape
    h = x.new_zeros(steps + 1, replicas, rows, w.W_h.shape[1])
    z = x @ w.W_e
    for t in range(steps):
        torch.baddbmm(z[t], h[t], w.W_h, out=h[t + 1])
        h[t + 1].tanh_()
    loss, dh, dU, dc = _decoder(task, w, h[-len(target) :], target)
    asked = steps - len(target)
    slopes, back = 1 - h[1:].square(), w.W_h.transpose(1, 2)
    d, onward = torch.empty_like(slopes), torch.empty_like(slopes)
    grads = Weights(torch.zeros_like(w.W_h), torch.zeros_like(w.W_e), dU, dc)
    onward[-1] = 0
    for t in range(steps - 1, -1, -1):
        torch.mul(onward[t] if t < asked else onward[t] + dh[t - asked], slopes[t], out=d[t])
        if t:
            torch.bmm(d[t], back, out=onward[t - 1])
        grads.W_h.baddbmm_(h[t].transpose(1, 2), d[t])
        grads.W_e.baddbmm_(x[t].transpose(1, 2), d[t])
    return h, d, loss, grads, onward[:-1]


def _gated(cell: str, task: Task, w: Weights, x: Tensor, target: Tensor) -> tuple[Tensor, Weights]:
    """LSTM or GRU, by the equations that the kernels are held to."""
    gradient = kernels.CELLS[cell].gradient
    states, gates = [_zeros(cell, w, x)], []
    z = x @ w.W_e
    for t in range(len(x)):
        state, of_step = _forward(cell, z[t], states[-1], w.W_h)
        states.append(state)
        gates.append(of_step)
    loss, dhs, dU, dc_out = _decoder(task, w, torch.stack([s[0] for s in states[-len(target) :]]), target)
    grads = Weights(torch.zeros_like(w.W_h), torch.zeros_like(w.W_e), dU, dc_out)
    asked, back = len(x) - len(target), w.W_h.transpose(1, 2)
    dh = torch.zeros_like(states[0][0])
    dc = torch.zeros_like(dh) if cell == "lstm" else None
    for t in range(len(x) - 1, -1, -1):
        if t >= asked:
            dh = dh + dhs[t - asked]
        h, *c = states[t]
        before, after = (c[0], states[t + 1][1]) if c else (None, None)
        dz, da, past, dc = gradient(dh, dc, gates[t], (h, before, after))
        dh = past.baddbmm_(da, back)
        grads.W_h.baddbmm_(h.transpose(1, 2), da)
        grads.W_e.baddbmm_(x[t].transpose(1, 2), dz)
    return loss, grads


def _decoder(task: Task, w: Weights, h: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, dL/dh at the asked steps [S, R, B, n], dL/dU, dL/dc."""
    loss, dy = task.loss(h @ w.U + w.c, target)
    return loss, dy @ w.U.transpose(1, 2), (h.transpose(2, 3) @ dy).sum(dim=0), dy.sum(dim=(0, 2))[:, None]


def _zeros(cell: str, w: Weights, x: Tensor) -> tuple[Tensor, ...]:
    return (x.new_zeros(*x.shape[1:3], w.W_h.shape[1]),) * kernels.CELLS[cell].states


def _forward(cell: str, z: Tensor, state: tuple[Tensor, ...], W_h: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The state after a step and its gates; z is the input's part."""
    gates = kernels.CELLS[cell].gates_of(z, torch.bmm(state[0], W_h))
    if cell == "lstm":
        i, f, g, o = gates
        c = f * state[1] + i * g
        return (o * c.tanh(), c), gates
    if cell == "gru":
        _, u, n, _ = gates
        return (torch.lerp(n, state[0], u),), gates
    return (gates[0],), gates
