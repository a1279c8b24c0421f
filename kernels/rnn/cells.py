"""The equations of every recurrent cell for one step, in torch and beside it in Triton.

Notation of torch.nn: rows of ``weight_hh`` are gate units, so the lecture's W_h is ``weight_hh.T``. The part of the step that
does not depend on the state, z = x W_e + b, is an input; gates are adjacent along the last axis of z.

The Triton half works on tiles of ``slots``: 1 or 4 adjacent numbers a unit, so that one product serves all gates. The LSTM's
are i, f, g, o. The GRU's are r, u, n and a = h W_n + b_n, which the reset gate multiplies: the input's product fills the first
three, the state's product the first two and the last. ``pre`` is the sum of both products.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import triton
import triton.language as tl

with suppress(ModuleNotFoundError):  # without torch the Triton half still compiles
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


# Activations, and tiles of four numbers a unit


@triton.jit
def tanh(x):
    y = 1 - 2 / (1 + tl.exp(2 * tl.abs(x)))
    y = tl.where(x < 0, -y, y)
    if x.dtype == tl.float32:  # near zero the difference above cancels; the series does not
        s = x * x
        series = x * (1 + s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315 + s * (62 / 2835 + s * (-1382 / 155925))))))
        y = tl.where(s < 0.09, series, y)
    return y


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def take(slots, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Split [ROWS, 4 * UNITS] into four tiles [ROWS, UNITS]."""
    even, odd = tl.split(tl.reshape(slots, (ROWS, UNITS, 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def put(first, second, third, fourth, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Join four tiles [ROWS, UNITS] to [ROWS, 4 * UNITS]."""
    return tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (ROWS, 4 * UNITS))


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


@triton.jit
def elman(pre, CELL: tl.constexpr):
    if CELL == "rnn-tanh":
        return tanh(pre)
    elif CELL == "rnn-relu":
        return tl.where(pre < 0, 0.0, pre)  # keeps NaN
    elif CELL == "rnn-sigmoid":
        return sigmoid(pre)
    else:
        return pre


@triton.jit
def elman_gradient(dh, h, CELL: tl.constexpr):
    """dL/dpre from dL/dh; h determines the slope."""
    if CELL == "rnn-tanh":
        return dh * (1 - h * h)
    elif CELL == "rnn-relu":
        return tl.where(h <= 0, 0.0, dh)
    elif CELL == "rnn-sigmoid":
        return dh * h * (1 - h)
    else:
        return dh


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


@triton.jit
def lstm_gates(i, f, g, o):
    return sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)


@triton.jit
def lstm_cell(i, f, g, c):
    return f * c + i * g


@triton.jit
def lstm_hidden(o, c):
    return o * tanh(c)


@triton.jit
def lstm_gradient(dh, dc, i, f, g, o, c_before, c):
    """Gradients of the four sums and of c before the step, from dL/dh and dL/dc after it."""
    bounded = tanh(c)
    dc += dh * o * (1 - bounded * bounded)
    d_i = dc * g * i * (1 - i)
    d_f = dc * c_before * f * (1 - f)
    d_g = dc * i * (1 - g * g)
    d_o = dh * bounded * o * (1 - o)
    return d_i, d_f, d_g, d_o, dc * f


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


@triton.jit
def gru_gates(r, u, n, a):
    r = sigmoid(r)
    return r, sigmoid(u), tanh(n + r * a), a


@triton.jit
def gru_hidden(u, n, h):
    return (1 - u) * n + u * h


@triton.jit
def gru_gradient(dh, r, u, n, a, h_before):
    """Gradients of the four slots from dL/dh after the step, and the part of dL/dh before it that bypasses the product."""
    d_u = dh * (h_before - n) * u * (1 - u)
    d_n = dh * (1 - u) * (1 - n * n)
    d_r = d_n * a * r * (1 - r)
    return d_r, d_u, d_n, d_n * r, dh * u


# minGRU: h' = (1 - s(z)) h + s(z) c, in which z and c do not depend on h; torch's GRU keeps h by u, this gate replaces it


def _mingru(z: "torch.Tensor", state: State, weight_hh: "torch.Tensor | None", bias_hh: "torch.Tensor | None") -> State:
    gate, candidate = z.chunk(2, dim=-1)
    gate = torch.sigmoid(gate)
    return ((1 - gate) * state[0] + gate * candidate,)


@triton.jit
def mingru_gates(z):
    """The shares of h and of the candidate in the next h, 1 - s(z) and s(z), without overflow or cancellation."""
    e = tl.exp(-tl.abs(z))
    larger, smaller = 1 / (1 + e), e / (1 + e)
    return tl.where(z < 0, larger, smaller), tl.where(z < 0, smaller, larger)


@triton.jit
def mingru_gradient(dh, keep, gate, c, h_before):
    """Gradients of z and c from dL/dh after the step."""
    d_c = dh * gate
    return d_c * (c - h_before) * keep, d_c


# Any cell


@triton.jit
def gates_of(pre, CELL: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Apply the activations to the slots."""
    if CELL == "lstm":
        i, f, g, o = take(pre, ROWS, UNITS)
        i, f, g, o = lstm_gates(i, f, g, o)
        return put(i, f, g, o, ROWS, UNITS)
    elif CELL == "gru":
        r, u, n, a = take(pre, ROWS, UNITS)
        r, u, n, a = gru_gates(r, u, n, a)
        return put(r, u, n, a, ROWS, UNITS)
    else:
        return elman(pre, CELL)


@triton.jit
def state_of(gates, h, c, CELL: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """The state after the step from the gates and the state before it; cells without c return it unchanged."""
    if CELL == "lstm":
        i, f, g, o = take(gates, ROWS, UNITS)
        c = lstm_cell(i, f, g, c)
        return lstm_hidden(o, c), c
    elif CELL == "gru":
        _, u, n, _ = take(gates, ROWS, UNITS)
        return gru_hidden(u, n, h), c
    else:
        return gates, c


@triton.jit
def step_gradient(dh, dc, gates, h_before, c_before, c, CELL: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Gradients of one step.

    Returns (d, dh, dc): the slots' gradients, the part of dL/dh before the step that bypasses the product, and dL/dc before the
    step. ``gates`` of an Elman cell is its h after the step.
    """
    if CELL == "lstm":
        i, f, g, o = take(gates, ROWS, UNITS)
        d_i, d_f, d_g, d_o, dc = lstm_gradient(dh, dc, i, f, g, o, c_before, c)
        return put(d_i, d_f, d_g, d_o, ROWS, UNITS), tl.zeros_like(dh), dc
    elif CELL == "gru":
        r, u, n, a = take(gates, ROWS, UNITS)
        d_r, d_u, d_n, d_a, past = gru_gradient(dh, r, u, n, a, h_before)
        return put(d_r, d_u, d_n, d_a, ROWS, UNITS), past, dc
    else:
        return elman_gradient(dh, gates, CELL), tl.zeros_like(dh), dc


@dataclass(frozen=True)
class Cell:
    """A recurrent cell.

    ``gates`` is the number of gates in W_h, ``states`` the number of state tensors. ``gates_of`` computes the gates from both
    sums, z and h W_h + b; ``gradient`` computes the gradients of one step. In the Triton half gate k of a unit fills slot
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
