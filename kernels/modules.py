"""RNN, LSTM and GRU as modules: constructor, parameters, shapes and state_dict of torch.nn."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.backends import asked_backend
from kernels.cells import CELLS
from kernels.recurrence import check_clip, recurrence
from kernels.watched import Clip


class _Recurrent(nn.Module):
    """What the three modules share. Not nn.RNNBase, because torch.compile refuses that."""

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        backend: str | None = None,
        clip_recurrent: Clip | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if bidirectional:
            raise NotImplementedError("bidirectional=True is not supported: a language model reads left to right")
        if proj_size:
            raise NotImplementedError("proj_size is not supported; put an nn.Linear behind the module")
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability between 0 and 1, not {dropout}")
        asked_backend(backend)  # an unknown name is refused here, not at the first batch
        check_clip(clip_recurrent)
        self.cell = cell
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.backend = bias, batch_first, float(dropout), backend
        self.clip_recurrent, self.recompute = clip_recurrent, recompute
        packed = CELLS[cell].gates * hidden_size
        for layer in range(num_layers):
            sizes: dict[str, tuple[int, ...]] = {
                "weight_ih": (packed, input_size if layer == 0 else hidden_size),
                "weight_hh": (packed, hidden_size),
            }
            if bias:
                sizes |= {"bias_ih": (packed,), "bias_hh": (packed,)}
            for name, size in sizes.items():
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(torch.empty(size, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """U(-1/sqrt(H), 1/sqrt(H)) for every parameter, in torch.nn's order: the same seed gives the same weights."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, cell={self.cell}, num_layers={self.num_layers}"

    def forward(self, input: Tensor, hx: Any = None, *, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """Run all layers over a sequence.

        Args:
            input: [T, B, I], or [B, T, I] with ``batch_first``, or [T, I] for one row.
            hx: the state before the first step, [layers, B, H] (LSTM: a pair (h, c) of them); None is zero.
            reset: optional [T, B] bool ([B, T] with ``batch_first``, [T] for one row); where True the state is zero
                before that step.

        Returns:
            The last layer's outputs, shaped like ``input``, and the state after the last step, shaped like ``hx``.
        """
        if isinstance(input, nn.utils.rnn.PackedSequence):
            raise NotImplementedError("packed sequences are not supported; pad them, or use a reset mask")
        if input.dim() not in (2, 3):
            raise ValueError(f"input must be [T, B, I] or [T, I], not {list(input.shape)}")
        if input.shape[-1] != self.input_size:
            raise ValueError(f"input must have {self.input_size} features, not {list(input.shape)}")
        single = input.dim() == 2
        if reset is not None and reset.dim() != input.dim() - 1:
            raise ValueError(f"reset must have one dimension less than input, not be {list(reset.shape)}")
        states = self._states(hx, input, single)
        if single:
            input = input.unsqueeze(1)
            reset = None if reset is None else reset.unsqueeze(1)
        elif self.batch_first:
            input = input.transpose(0, 1)
            reset = None if reset is None else reset.transpose(0, 1)
        finals = []
        for layer in range(self.num_layers):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if self.bias else ("weight_ih", "weight_hh")
            weights = [getattr(self, f"{name}_l{layer}") for name in names]
            state = tuple(s[layer] for s in states)
            input, final = recurrence(
                self.cell, input, state, *weights,
                reset=reset, backend=self.backend, clip_recurrent=self.clip_recurrent, recompute=self.recompute,
            )  # fmt: skip
            finals.append(final)
            if self.dropout and self.training and layer < self.num_layers - 1:
                input = F.dropout(input, self.dropout)
        stacked = [torch.stack(parts) for parts in zip(*finals, strict=True)]
        if single:
            input, stacked = input.squeeze(1), [s.squeeze(1) for s in stacked]
        elif self.batch_first:
            input = input.transpose(0, 1)
        return input, stacked[0] if len(stacked) == 1 else tuple(stacked)

    def _states(self, hx: Any, input: Tensor, single: bool) -> list[Tensor]:
        batch = [] if single else [input.shape[0 if self.batch_first else 1]]
        size = [self.num_layers, *batch, self.hidden_size]
        count = CELLS[self.cell].states
        if hx is None:
            states = [input.new_zeros(size) for _ in range(count)]
        elif isinstance(hx, Tensor) != (count == 1):
            raise ValueError(f"hx must be {'a tensor' if count == 1 else 'a pair (h_0, c_0)'}, not {type(hx).__name__}")
        else:
            states = [hx] if count == 1 else list(hx)
        for name, state in zip(("h_0", "c_0"), states, strict=False):
            if list(state.shape) != size:
                raise ValueError(f"{name} must be {size}, not {list(state.shape)}")
        return [s.unsqueeze(1) for s in states] if single else states


class RNN(_Recurrent):
    """Elman network, h(t) = s(h(t-1) W_h + x(t) W_i + b) (Elman 1990); drop-in for torch.nn.RNN.

    ``nonlinearity`` is "tanh", "relu", "sigmoid" or "identity".
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", *args: Any, **kwargs: Any
    ) -> None:
        if f"rnn-{nonlinearity}" not in CELLS:
            raise ValueError(f"nonlinearity must be tanh, relu, sigmoid or identity, not {nonlinearity!r}")
        super().__init__(f"rnn-{nonlinearity}", input_size, hidden_size, num_layers, *args, **kwargs)
        self.nonlinearity = nonlinearity


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gate); drop-in for torch.nn.LSTM."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, *args: Any, **kwargs: Any) -> None:
        super().__init__("lstm", input_size, hidden_size, num_layers, *args, **kwargs)


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al. 2014; reset gate after the product); drop-in for torch.nn.GRU."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, *args: Any, **kwargs: Any) -> None:
        super().__init__("gru", input_size, hidden_size, num_layers, *args, **kwargs)
