"""The equations of every recurrent cell, one step at a time: the eager twin.

Notation of torch.nn: rows of ``weight_hh`` are gate units, so the lecture's W_h is ``weight_hh.T``. The part of the step
that does not depend on the state, z = x W_e + b, is given; gates lie side by side along the last axis of z.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]  # (h,) or, for the LSTM, (h, c); each [B, H]
Step = Callable[[Tensor, State, Tensor, Tensor | None], State]


def _elman(activation: Callable[[Tensor], Tensor]) -> Step:
    def elman(z: Tensor, state: State, weight_hh: Tensor, bias_hh: Tensor | None) -> State:
        return (activation(z + F.linear(state[0], weight_hh, bias_hh)),)

    return elman


def _lstm(z: Tensor, state: State, weight_hh: Tensor, bias_hh: Tensor | None) -> State:
    h, c = state
    i, f, g, o = (z + F.linear(h, weight_hh, bias_hh)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(z: Tensor, state: State, weight_hh: Tensor, bias_hh: Tensor | None) -> State:
    (h,) = state
    z_r, z_u, z_n = z.chunk(3, dim=-1)
    a_r, a_u, a_n = F.linear(h, weight_hh, bias_hh).chunk(3, dim=-1)
    r, u = torch.sigmoid(z_r + a_r), torch.sigmoid(z_u + a_u)
    n = torch.tanh(z_n + r * a_n)  # the reset gate acts after the product, so the candidate keeps its own bias
    return ((1 - u) * n + u * h,)


@dataclass(frozen=True)
class Cell:
    """A recurrent cell: its name, the number of gates packed in W_h, the number of state tensors, and its step."""

    name: str
    gates: int
    states: int
    step: Step


CELLS = {
    cell.name: cell
    for cell in (
        Cell("rnn-tanh", 1, 1, _elman(torch.tanh)),
        Cell("rnn-relu", 1, 1, _elman(torch.relu)),
        Cell("rnn-sigmoid", 1, 1, _elman(torch.sigmoid)),
        Cell("rnn-identity", 1, 1, _elman(lambda a: a)),
        Cell("lstm", 4, 2, _lstm),
        Cell("gru", 3, 1, _gru),
    )
}


def step(cell: str, z: Tensor, state: State, weight_hh: Tensor, bias_hh: Tensor | None = None) -> State:
    """One step of a cell, differentiable by autograd: state at t-1 to state at t.

    ========  =====================================================================================
    Elman     h' = s(z + h W_h + b_h)                                        (Elman 1990)
    LSTM      c' = s(f) c + s(i) tanh(g);  h' = s(o) tanh(c')                 (Hochreiter & Schmidhuber 1997,
                                                                              forget gate: Gers et al. 2000)
    GRU       n = tanh(z_n + s(r) (h W_n + b_n));  h' = (1 - s(u)) n + s(u) h  (Cho et al. 2014, as torch.nn)
    ========  =====================================================================================

    Args:
        cell: a key of ``CELLS``.
        z: [B, G * H], the input's part with its bias; G gates in torch.nn's order (LSTM: i f g o, GRU: r u n).
        state: (h,) or (h, c), each [B, H].
        weight_hh: [G * H, H].
        bias_hh: [G * H] or None.

    Returns:
        The next state, a tuple like ``state``.
    """
    return CELLS[cell].step(z, state, weight_hh, bias_hh)
