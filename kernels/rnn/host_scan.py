"""The recurrence on a CPU with a hand-written backward pass, with as few torch calls a step as the equations need.

A step of 20 rows and 200 units multiplies for 10 to 30 microseconds, and each call of torch costs one or two, so the number of
calls matters. Buffers of the whole sequence are allocated once, and every call writes into its place in them:

    h[t] = cell(z[t] + h[t-1] W_h)           one product a step, added into z[t] in place
    d[t] = F[t] dh[t]                        F, the cell's derivative, is computed for all t before the loop
    dh[t-1] += d[t] W_h                      one product a step, added into the gradient from the layer above
    dW_h = sum_t h[t-1]^T d[t]               one product after the loop; likewise for x, W_e and b

Afterwards the buffers hold all dh[t] and d[t], so a gradient trace costs only its norms. The equations are those of
``cells.py``. W_h is transposed once before the forward loop: MKL multiplies few rows by a matrix 1.3 to 1.8 times as fast if it
does not have to read the matrix by columns.

Slots are blocks of H columns: one for an Elman cell, i, f, g, o for the LSTM, and a, r, u, n for the GRU, where the reset gate
multiplies a = h W_n + b_n. The GRU's state thus reaches the first three and its input the last three, each with one product.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurrent_lm.kernels.rnn.cells import CELLS, State, Weights
from recurrent_lm.kernels.rnn.norms import vector_norm
from recurrent_lm.kernels.rnn.trace import GradientTrace, weight_norms
from recurrent_lm.kernels.rnn.watched import Clip, clipped

Masks = list[Tensor | None]  # for each step [B, 1], True where the state is zero before it; None if no row is reset
# dL/dx of y = s(x) from (dL/dy, y)
through_sigmoid, through_tanh = torch.ops.aten.sigmoid_backward.grad_input, torch.ops.aten.tanh_backward.grad_input
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "rnn-tanh": torch.tanh_, "rnn-relu": torch.relu_, "rnn-sigmoid": torch.sigmoid_, "rnn-identity": lambda x: x,
}  # fmt: skip


@contextmanager
def bfloat16_operands(on: bool) -> Iterator[None]:
    """Let oneDNN read float32 operands of large products as bfloat16, which CPUs with AMX multiply several times as fast.

    Sums and results stay float32. CPUs without such instructions multiply in float32 as before. The switch belongs to the
    process: products of other threads during the block have the same precision.
    """
    switch: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = switch.fp32_precision
    if on:
        switch.fp32_precision = "bf16"
    try:
        yield
    finally:
        if on:
            switch.fp32_precision = before


class Kept(NamedTuple):
    """A layer's states and gates; ``cs`` and ``gates`` are empty for cells without them.

    ``hs`` and ``cs`` [T + 1, B, H] begin with the state before the first step. ``gates`` [T, B, slots * H] are values after the
    activations.
    """

    hs: Tensor
    gates: Tensor
    cs: Tensor

    def final(self) -> State:
        """Copies of the state after the last step."""
        return (self.hs[-1].clone(), self.cs[-1].clone()) if len(self.cs) else (self.hs[-1].clone(),)


def scan_forward(cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, halves: bool = False) -> Kept:
    """All steps of a layer, without autograd.

    Args:
        cell: a key of ``CELLS``.
        input: [T, B, I]; all tensors have its dtype.
        state: h [B, H], and c for an LSTM.
        weights: as in torch.nn.
        reset: [T, B] bool, True where the state is zero before the step; None for nowhere.
        halves: whether products over all steps may read float32 operands as bfloat16; sums, states and gates are float32.

    Returns:
        The states and gates that the backward pass needs.
    """
    steps = len(input)
    hs = input.new_empty(steps + 1, *state[0].shape)
    hs[0] = state[0]
    w, masks = _by_slots(cell, weights.hh).t().contiguous(), _masks(reset, steps)
    with bfloat16_operands(halves):
        z = _input_part(cell, input, weights, hs[1:] if cell in ACTIVATIONS else None)
    if cell in ACTIVATIONS:
        return _elman(hs, w, masks, ACTIVATIONS[cell])
    return _gru(z, hs, w, masks) if cell == "gru" else _lstm(z, hs, state[1], w, masks)


def kept_of_output(
    cell: str, input: Tensor, output: Tensor, state: State, weights: Weights, reset: Tensor | None, halves: bool
) -> Kept:
    """What ``scan_forward`` would keep, of a layer whose output another implementation computed.

    All h are known, so one product gives the gates of all steps; only c, elementwise, is still sequential.

    Args:
        cell, input, state, weights, reset, halves: as in ``scan_forward``.
        output: [T, B, H], h of every step.
    """
    hs = torch.cat([state[0][None], output])
    if cell in ACTIVATIONS:
        return Kept(hs, hs.new_empty(0), hs.new_empty(0))
    before, hidden = _reset_to_zero(hs[:-1], reset), hs.shape[2]
    with bfloat16_operands(halves):
        gates = _input_part(cell, input, weights)
        recurrent = gates.flatten(0, 1)[:, : CELLS[cell].gates * hidden]
        recurrent.addmm_(before.flatten(0, 1), _by_slots(cell, weights.hh).t())
    first, second, third, fourth = gates.split(hidden, 2)
    if cell == "gru":
        torch.sigmoid_(gates[..., hidden : 3 * hidden])
        torch.tanh_(fourth.addcmul_(second, first))
        return Kept(hs, gates, hs.new_empty(0))
    torch.sigmoid_(gates[..., : 2 * hidden])
    torch.tanh_(third)
    torch.sigmoid_(fourth)
    cs = torch.cat([state[1][None], first * third])
    c, *cells = cs.unbind(0)
    for after, f, mask in zip(cells, second.unbind(0), _masks(reset, len(input)), strict=True):
        c = after.addcmul_(f, _zeroed(c, mask))
    return Kept(hs, gates, cs)


def scan_backward(
    cell: str,
    kept: Kept,
    input: Tensor,
    weights: Weights,
    reset: Tensor | None,
    grads: Sequence[Tensor | None],
    clip: Clip | None,
    halves: bool,
    trace: GradientTrace | None,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of a layer.

    Args:
        cell, input, weights, reset, halves: as in ``scan_forward``.
        kept: its result.
        grads: of the output [T, B, H] and of the final states [B, H]; None for zero.
        clip: recurrent clipping.
        trace: receives this layer's norms.
        needed: for each gradient, whether it is asked for.

    Returns:
        Gradients of input, weight_ih, weight_hh, bias_ih, bias_hh and the states; None for those that are not ``needed``.
    """
    hs, hidden = kept.hs[:-1], kept.hs.shape[2]
    dhs = torch.zeros_like(kept.hs) if grads[0] is None else torch.cat([torch.zeros_like(hs[:1]), grads[0]])
    if grads[1] is not None:
        dhs[-1] += grads[1]
    hs = _reset_to_zero(hs, reset)
    how = (_by_slots(cell, weights.hh), _masks(reset, len(input)), clip, any(needed[5:]))
    dc: list[Tensor] = []
    if cell == "gru":
        d = _gru_factors(kept.gates, hs)
        _gru_backward(dhs, d, kept.gates[..., 2 * hidden : 3 * hidden], *how)
    elif cell == "lstm":
        d, to_c = _lstm_factors(kept.gates, _reset_to_zero(kept.cs[:-1], reset), kept.cs[1:])
        dc = [torch.zeros_like(dhs[0]) if grads[2] is None else grads[2].clone()]
        _lstm_backward(dhs, dc[0], d, to_c, kept.gates[..., hidden : 2 * hidden], *how)
    else:
        d = _elman_slope(cell, kept.hs[1:])
        _elman_backward(dhs, d, *how)
    own = slice(hidden, None) if cell == "gru" else slice(None)  # the input's slots
    d_a, d_z = d[..., : CELLS[cell].gates * hidden], d[..., own]
    if trace is not None:
        trace.add(vector_norm(dhs[1:], dim=-1), weight_norms(hs, d_a))
    flat_a, flat_z, x = d_a.flatten(0, 1), d_z.flatten(0, 1), input.flatten(0, 1)
    sums = d.sum((0, 1)) if needed[3] or needed[4] else None
    with bfloat16_operands(halves):
        d_input = (flat_z @ weights.ih).view(input.shape) if needed[0] else None
        d_weight_ih = flat_z.t() @ x if needed[1] else None
        d_weight_hh = _from_slots(cell, flat_a.t() @ hs.flatten(0, 1)) if needed[2] else None
    d_biases = (None, None) if sums is None else (sums[own].clone(), _from_slots(cell, sums[: d_a.shape[2]]))
    gradients = [d_input, d_weight_ih, d_weight_hh, *d_biases, dhs[0].clone(), *dc]
    return [g if n else None for g, n in zip(gradients, needed, strict=True)]


def _by_slots(cell: str, weight: Tensor) -> Tensor:
    """Rows of W_h in the order of their slots: for the GRU n, r, u instead of r, u, n."""
    hidden = weight.shape[1]
    return torch.cat([weight[2 * hidden :], weight[: 2 * hidden]]) if cell == "gru" else weight


def _from_slots(cell: str, gradient: Tensor) -> Tensor:
    """The inverse of ``_by_slots``, for a matrix or a bias."""
    hidden = len(gradient) // 3
    return torch.cat([gradient[hidden:], gradient[:hidden]]) if cell == "gru" else gradient.clone()


def _masks(reset: Tensor | None, steps: int) -> Masks:
    if reset is None:
        return [None] * steps
    return [m if some else None for m, some in zip(reset.unsqueeze(2).unbind(0), reset.any(1).tolist(), strict=True)]


def _reset_to_zero(states: Tensor, reset: Tensor | None) -> Tensor:
    """States [T, B, H] as the steps after them read them."""
    return states if reset is None else states.masked_fill(reset[:, :, None], 0)


def _zeroed(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x.masked_fill(mask, 0)


# Forward


def _input_part(cell: str, input: Tensor, weights: Weights, out: Tensor | None = None) -> Tensor:
    """x W_e plus the biases, for all steps: [T, B, slots * H]."""
    steps, batch, features = input.shape
    hidden = weights.hh.shape[1]
    first = hidden if cell == "gru" else 0  # the input does not contribute to the GRU's slot a
    z = input.new_empty(steps, batch, first + len(weights.ih)) if out is None else out
    bias_ih, bias_hh = weights.bias_ih, weights.bias_hh
    if cell == "gru":
        z[..., :hidden] = 0 if bias_hh is None else bias_hh[2 * hidden :]
    target = z.view(steps * batch, z.shape[2])[:, first:]
    x, w = input.reshape(steps * batch, features), weights.ih.t()
    if bias_ih is None or bias_hh is None:
        torch.mm(x, w, out=target)
        return z
    bias = (
        bias_ih + bias_hh
        if cell != "gru"
        else torch.cat([bias_ih[: 2 * hidden] + bias_hh[: 2 * hidden], bias_ih[2 * hidden :]])
    )
    torch.addmm(bias, x, w, out=target)
    return z


def _elman(hs: Tensor, w: Tensor, masks: Masks, activate: Callable[[Tensor], Tensor]) -> Kept:
    """``hs`` [T + 1, B, H] holds the input's part of the sums in the place of h, which replaces it."""
    h, *zs = hs.unbind(0)
    for z, mask in zip(zs, masks, strict=True):
        h = activate(z.addmm_(_zeroed(h, mask), w))
    return Kept(hs, hs.new_empty(0), hs.new_empty(0))


def _gru(gates: Tensor, hs: Tensor, w: Tensor, masks: Masks) -> Kept:
    hidden = hs.shape[2]
    h, *states = hs.unbind(0)
    slots = [gates[..., part].unbind(0) for part in _parts(hidden, (0, 3), (1, 3), (0, 1), (1, 2), (2, 3), (3, 4))]
    for after, mask, aru, ru, a, r, u, n in zip(states, masks, *slots, strict=True):
        h = _zeroed(h, mask)
        aru.addmm_(h, w)
        torch.sigmoid_(ru)
        torch.tanh_(n.addcmul_(r, a))
        h = torch.lerp(n, h, u, out=after)  # (1 - u) n + u h
    return Kept(hs, gates, hs.new_empty(0))


def _lstm(gates: Tensor, hs: Tensor, c: Tensor, w: Tensor, masks: Masks) -> Kept:
    hidden = hs.shape[2]
    cs = torch.empty_like(hs)
    cs[0] = c
    h, *states = hs.unbind(0)
    c, *cells = cs.unbind(0)
    bounded = torch.empty_like(h)
    slots = [gates[..., part].unbind(0) for part in _parts(hidden, (0, 4), (0, 2), (0, 1), (1, 2), (2, 3), (3, 4))]
    for after, c_after, mask, ifgo, i_f, i, f, g, o in zip(states, cells, masks, *slots, strict=True):
        ifgo.addmm_(_zeroed(h, mask), w)
        torch.sigmoid_(i_f)
        torch.tanh_(g)
        torch.sigmoid_(o)
        c = torch.mul(f, _zeroed(c, mask), out=c_after).addcmul_(i, g)
        h = torch.mul(o, torch.tanh(c, out=bounded), out=after)
    return Kept(hs, gates, cs)


def _parts(hidden: int, *slots: tuple[int, int]) -> list[slice]:
    return [slice(first * hidden, last * hidden) for first, last in slots]


# Backward: ``dhs`` [T + 1, B, H] begins as the gradients from above and ends as all of dL/dh, that of the first state at 0


def _elman_slope(cell: str, h: Tensor) -> Tensor:
    """The derivative of the activation, computed from its value."""
    if cell == "rnn-tanh":
        return torch.addcmul(h.new_ones(()), h, h, value=-1)
    if cell == "rnn-sigmoid":
        return (1 - h).mul_(h)
    return (~(h <= 0)).to(h.dtype) if cell == "rnn-relu" else torch.ones_like(h)


def _elman_backward(dhs: Tensor, d: Tensor, w: Tensor, masks: Masks, clip: Clip | None, whole: bool) -> None:
    """``d`` [T, B, H] holds the slopes on entry, and the gradients of the slots on exit."""
    for dh, before, now, mask in _backwards(dhs, whole, masks, d):
        _limit(dh, clip)
        now.mul_(dh)
        if before is not None:
            before.addmm_(_zeroed(now, mask), w)


def _gru_factors(gates: Tensor, h: Tensor) -> Tensor:
    """The factors of dL/dh[t] that give the gradients of a, r, u and n: [T, B, 4 * H]."""
    hidden, factors = h.shape[2], torch.empty_like(gates)
    (a, r, u, n), (d_a, d_r, d_u, d_n) = gates.split(hidden, 2), factors.split(hidden, 2)
    through_tanh(torch.sub(h.new_ones(()), u, out=d_n), n, grad_input=d_n)
    torch.mul(d_n, r, out=d_a)
    through_sigmoid(a, r, grad_input=d_r).mul_(d_n)
    through_sigmoid(torch.sub(h, n, out=d_u), u, grad_input=d_u)
    return factors


def _gru_backward(dhs: Tensor, d: Tensor, u: Tensor, w: Tensor, masks: Masks, clip: Clip | None, whole: bool) -> None:
    """``d`` [T, B, 4 * H] holds ``_gru_factors`` on entry, and the gradients of the slots on exit."""
    slots, hidden = d.unflatten(2, (4, -1)), dhs.shape[2]
    for dh, before, now, aru, keep, mask in _backwards(dhs, whole, masks, slots, d[..., : 3 * hidden], u):
        _limit(dh, clip)
        now.mul_(dh.unsqueeze(1))
        if before is not None:
            before.addcmul_(_zeroed(dh, mask), keep).addmm_(_zeroed(aru, mask), w)


def _lstm_factors(gates: Tensor, c_before: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of dL/dc[t] (for o, of dL/dh[t]) that give the gradients of the gates: [T, B, 4 * H]; and the factor of
    dL/dh[t] in dL/dc[t]: [T, B, H].
    """
    hidden, factors, bounded = c.shape[2], torch.empty_like(gates), torch.tanh(c)
    (i, f, g, o), (d_i, d_f, d_g, d_o) = gates.split(hidden, 2), factors.split(hidden, 2)
    through_sigmoid(g, i, grad_input=d_i)
    through_sigmoid(c_before, f, grad_input=d_f)
    through_tanh(i, g, grad_input=d_g)
    through_sigmoid(bounded, o, grad_input=d_o)
    return factors, through_tanh(o, bounded, grad_input=bounded)


def _lstm_backward(
    dhs: Tensor, dc: Tensor, d: Tensor, to_c: Tensor, f: Tensor, w: Tensor, masks: Masks, clip: Clip | None, whole: bool
) -> None:
    """``d`` [T, B, 4 * H] and ``to_c`` hold ``_lstm_factors`` on entry, ``d`` the gradients of the slots on exit; ``dc`` [B, H]
    is dL/dc of the last state on entry, of the first on exit.
    """
    slots = d.unflatten(2, (4, -1))
    for dh, before, now, ifg, o, reach, keep, mask in _backwards(
        dhs, whole, masks, d, slots[:, :, :3], slots[:, :, 3], to_c, f
    ):
        _limit(dh, clip)
        dc.addcmul_(dh, reach)
        ifg.mul_(dc.unsqueeze(1))
        o.mul_(dh)
        if before is not None:
            before.addmm_(_zeroed(now, mask), w)
        dc.mul_(keep)
        if mask is not None:
            dc.masked_fill_(mask, 0)


def _backwards(dhs: Tensor, whole: bool, masks: Masks, *others: Tensor) -> Iterator[tuple[Any, ...]]:
    """(dL/dh[t], dL/dh[t-1], the others at t, the mask) from the last step to the first.

    Unless ``whole``, which asks for the gradient of the first state too, dL/dh[t-1] is None at the first step.
    """
    at = list(dhs.unbind(0))
    before = [at[0] if whole else None, *at[1:-1]]
    each: list[list[Any]] = [at[1:], before, *(list(o.unbind(0)) for o in others), masks]
    return zip(*(reversed(x) for x in each), strict=True)


def _limit(dh: Tensor, clip: Clip | None) -> None:
    if clip is not None:
        dh.copy_(clipped(dh, clip))
