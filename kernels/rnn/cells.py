"""The equations of every recurrent cell for one step, in torch; ``tile_cells.py`` has the same in Triton.

Notation of torch.nn: rows of ``weight_hh`` are gate units, so the lecture's W_h is ``weight_hh.T``. The part of the step that
does not depend on the state, z = x W_e + b, is an input; gates are adjacent along the last axis of z.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

with suppress(ModuleNotFoundError):  # without torch the Triton kernels still compile
    import torch
    import torch.nn.functional as F

State = tuple["torch.Tensor", ...]  # (h,) or, for the LSTM, (h, c); each [B, H]
Step = Callable[["torch.Tensor", State, "torch.Tensor", "torch.Tensor | None"], State]
Activation = Callable[["torch.Tensor"], "torch.Tensor"]
Gates = tuple["torch.Tensor", ...]  # saved for a step's gradient: Elman (h,), LSTM (i, f, g, o), GRU (r, u, n, a)


class Weights(NamedTuple):
    """One layer's weights, [G * H, I], [G * H, H], [G * H] and [G * H], as in torch.nn.

    W_h of a linear cell has no gates: ``hh`` is [0, H], ``bias_hh`` is [0] or None.
    """

    ih: "torch.Tensor"
    hh: "torch.Tensor"
    bias_ih: "torch.Tensor | None"
    bias_hh: "torch.Tensor | None"


StateAtStep = tuple["torch.Tensor", "torch.Tensor | None", "torch.Tensor | None"]  # h and c before the step, c after it
# dL/dz, dL/d(h W_h), the part of dL/dh before the step that bypasses the product, and dL/dc before it
StepGradient = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor | None"]
Gradient = Callable[["torch.Tensor", "torch.Tensor | None", Gates, StateAtStep], StepGradient]


# Elman: h' = s(pre)


def _elman(activation: Activation) -> Step:
    def elman(z: "torch.Tensor", state: State, weight_hh: "torch.Tensor", bias_hh: "torch.Tensor | None") -> State:
        return (activation(z + F.linear(state[0], weight_hh, bias_hh)),)

    return elman


def _elman_gates(activation: Activation) -> Callable[["torch.Tensor", "torch.Tensor"], Gates]:
    return lambda z, a: (activation(z + a),)


def _elman_gradient(slope: Activation) -> "Gradient":
    def gradient(dh: "torch.Tensor", dc: "torch.Tensor | None", gates: Gates, state: StateAtStep) -> StepGradient:
        d = dh * slope(gates[0])
        return d, d, torch.zeros_like(dh), dc

    return gradient


# LSTM: c' = s(f) c + s(i) tanh(g), h' = s(o) tanh(c')


def _lstm(z: "torch.Tensor", state: State, weight_hh: "torch.Tensor", bias_hh: "torch.Tensor | None") -> State:
    h, c = state
    i, f, g, o = (z + F.linear(h, weight_hh, bias_hh)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _lstm_gates(z: "torch.Tensor", a: "torch.Tensor") -> Gates:
    i, f, g, o = (z + a).chunk(4, dim=-1)
    return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)


def _lstm_gradient(dh: "torch.Tensor", dc: "torch.Tensor | None", gates: Gates, state: StateAtStep) -> StepGradient:
    i, f, g, o = gates
    _, c_before, c = state
    assert dc is not None
    assert c_before is not None
    assert c is not None
    bounded = torch.tanh(c)
    dc = dc + dh * o * (1 - bounded * bounded)
    d_i, d_f = dc * g * i * (1 - i), dc * c_before * f * (1 - f)
    d_g, d_o = dc * i * (1 - g * g), dh * bounded * o * (1 - o)
    d = torch.cat([d_i, d_f, d_g, d_o], dim=-1)
    return d, d, torch.zeros_like(dh), dc * f


# GRU: n = tanh(z_n + s(r) a), h' = (1 - s(u)) n + s(u) h


def _gru(z: "torch.Tensor", state: State, weight_hh: "torch.Tensor", bias_hh: "torch.Tensor | None") -> State:
    (h,) = state
    z_r, z_u, z_n = z.chunk(3, dim=-1)
    a_r, a_u, a_n = F.linear(h, weight_hh, bias_hh).chunk(3, dim=-1)
    r, u = torch.sigmoid(z_r + a_r), torch.sigmoid(z_u + a_u)
    n = torch.tanh(z_n + r * a_n)  # the reset gate acts after the product, so the candidate keeps its own bias
    return ((1 - u) * n + u * h,)


def _gru_gates(z: "torch.Tensor", a: "torch.Tensor") -> Gates:
    z_r, z_u, z_n = z.chunk(3, dim=-1)
    a_r, a_u, a_n = a.chunk(3, dim=-1)
    r = torch.sigmoid(z_r + a_r)
    return r, torch.sigmoid(z_u + a_u), torch.tanh(z_n + r * a_n), a_n


def _gru_gradient(dh: "torch.Tensor", dc: "torch.Tensor | None", gates: Gates, state: StateAtStep) -> StepGradient:
    r, u, n, a = gates
    d_u = dh * (state[0] - n) * u * (1 - u)
    d_n = dh * (1 - u) * (1 - n * n)
    d_r = d_n * a * r * (1 - r)
    return torch.cat([d_r, d_u, d_n], dim=-1), torch.cat([d_r, d_u, d_n * r], dim=-1), dh * u, dc


# minGRU: h' = (1 - s(z)) h + s(z) c, in which z and c do not depend on h; torch's GRU keeps h by u, this gate replaces it


def _mingru(z: "torch.Tensor", state: State, weight_hh: "torch.Tensor | None", bias_hh: "torch.Tensor | None") -> State:
    gate, candidate = z.chunk(2, dim=-1)
    gate = torch.sigmoid(gate)
    return ((1 - gate) * state[0] + gate * candidate,)


@dataclass(frozen=True)
class Cell:
    """A recurrent cell.

    ``gates`` is the number of gates in W_h, ``states`` the number of state tensors. ``gates_of`` computes the gates from both
    sums, z and h W_h + b; ``gradient`` computes the gradients of one step. In the Triton kernels gate k of a unit fills slot
    ``input_slots[k]`` from the input and ``hidden_slots[k]`` from the state, of ``slots`` in all.
    """

    name: str
    gates: int
    states: int
    step: Step
    gates_of: Callable[["torch.Tensor", "torch.Tensor"], Gates]
    gradient: Gradient
    slots: int = 1
    input_slots: tuple[int, ...] = (0,)
    hidden_slots: tuple[int, ...] = (0,)


def _elman_cell(name: str, activation: Activation, slope: Activation) -> Cell:
    return Cell(name, 1, 1, _elman(activation), _elman_gates(activation), _elman_gradient(slope))


CELLS = {
    cell.name: cell
    for cell in (
        _elman_cell("rnn-tanh", lambda a: torch.tanh(a), lambda h: 1 - h * h),
        _elman_cell("rnn-relu", lambda a: torch.relu(a), lambda h: (~(h <= 0)).to(h.dtype)),
        _elman_cell("rnn-sigmoid", lambda a: torch.sigmoid(a), lambda h: h * (1 - h)),
        _elman_cell("rnn-identity", lambda a: a, lambda h: torch.ones_like(h)),
        Cell("lstm", 4, 2, _lstm, _lstm_gates, _lstm_gradient, 4, (0, 1, 2, 3), (0, 1, 2, 3)),
        Cell("gru", 3, 1, _gru, _gru_gates, _gru_gradient, 4, (0, 1, 2), (0, 1, 3)),
    )
}


@dataclass(frozen=True)
class LinearCell:
    """A cell whose step is linear in h and has no W_h, so that a sequence is a scan.

    ``gates`` is the number of blocks of H rows in weight_ih, ``states`` the number of state tensors.
    """

    name: str
    gates: int
    states: int
    step: Callable[["torch.Tensor", State, "torch.Tensor | None", "torch.Tensor | None"], State]


LINEAR_CELLS = {"mingru": LinearCell("mingru", 2, 1, _mingru)}
EVERY_CELL: dict[str, Cell | LinearCell] = {**CELLS, **LINEAR_CELLS}


def step(
    cell: str,
    z: "torch.Tensor",
    state: State,
    weight_hh: "torch.Tensor | None" = None,
    bias_hh: "torch.Tensor | None" = None,
) -> State:
    """One step of a cell, differentiable by autograd: state at t-1 to state at t.

    ========  =====================================================================================
    Elman     h' = s(z + h W_h + b_h)                                        (Elman 1990)
    LSTM      c' = s(f) c + s(i) tanh(g);  h' = s(o) tanh(c')                 (Hochreiter & Schmidhuber 1997,
                                                                              forget gate: Gers et al. 2000)
    GRU       n = tanh(z_n + s(r) (h W_n + b_n));  h' = (1 - s(u)) n + s(u) h  (Cho et al. 2014, as torch.nn)
    minGRU    h' = (1 - s(z)) h + s(z) c                                      (Feng et al. 2024)
    ========  =====================================================================================

    Args:
        cell: a key of ``EVERY_CELL``.
        z: [B, G * H], the input's part with its bias; G gates in torch.nn's order (LSTM: i f g o, GRU: r u n; minGRU: z c).
        state: (h,) or (h, c), each [B, H].
        weight_hh: [G * H, H]; None for a linear cell, which has no W_h.
        bias_hh: [G * H] or None.

    Returns:
        The next state, a tuple like ``state``.

    Raises:
        KeyError: for an unknown cell.
    """
    kind = EVERY_CELL[cell]
    if isinstance(kind, LinearCell):
        return kind.step(z, state, weight_hh, bias_hh)
    if weight_hh is None:
        raise ValueError(f"weight_hh of {cell} must be [{kind.gates} * H, H], not None")
    return kind.step(z, state, weight_hh, bias_hh)
