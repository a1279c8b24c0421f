"""RNN, LSTM and GRU as modules: constructor, parameters, shapes, state_dict and exceptions of torch.nn; MinGRU is like them."""

import math
import warnings
from numbers import Number
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_lm.kernels.backends import asked_backend
from recurrent_lm.kernels.rnn.cells import CELLS, EVERY_CELL, LINEAR_CELLS
from recurrent_lm.kernels.rnn.host import traced
from recurrent_lm.kernels.rnn.recurrence import check_clip, recurrence
from recurrent_lm.kernels.rnn.watched import Clip


class _Recurrent(nn.Module):
    """What the modules share. Not nn.RNNBase, because torch.compile refuses that.

    ``all_weights``, ``_all_weights``, ``_flat_weights`` and ``flatten_parameters`` are there for programs that touch those of
    torch.nn.
    """

    bidirectional = property(lambda self: False)
    proj_size = property(lambda self: 0)
    mode = property(
        lambda self: self.cell.replace("-", "_").upper(), doc='"LSTM", "GRU", "RNN_TANH" and so on, as in torch.nn.'
    )

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: Any,
        dtype: Any,
        backend: str | None,
        clip_recurrent: Clip | None,
        recompute: bool,
    ) -> None:
        super().__init__()
        for name, flag in (("bias", bias), ("batch_first", batch_first)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, not {flag!r}")
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if not isinstance(size, int):
                raise TypeError(f"{name} must be an integer, not {size!r}")
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        if not isinstance(dropout, Number) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability between 0 and 1, not {dropout}")
        if bidirectional:
            raise NotImplementedError("bidirectional=True is not supported: a language model reads left to right")
        if dropout and num_layers == 1:
            message = (
                f"dropout={dropout} does nothing in one layer: it is applied between layers; set num_layers or leave it out"
            )
            warnings.warn(message, stacklevel=3)
        asked_backend(backend)  # an unknown name is refused here, not at the first batch
        check_clip(clip_recurrent)
        self.cell = cell
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.backend = bias, batch_first, float(dropout), backend
        self.clip_recurrent, self.recompute = clip_recurrent, recompute
        packed = EVERY_CELL[cell].gates * hidden_size
        for layer, names in enumerate(self._all_weights):
            columns = input_size if layer == 0 else hidden_size
            sizes = {
                "weight_ih": (packed, columns),
                "weight_hh": (packed, hidden_size),
                "bias_ih": (packed,),
                "bias_hh": (packed,),
            }
            for name, kind in zip(names, self._kinds, strict=True):
                shape = sizes[kind]
                self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    @property
    def _kinds(self) -> list[str]:
        parts = ("ih",) if self.cell in LINEAR_CELLS else ("ih", "hh")
        return [f"{kind}_{part}" for kind in (("weight", "bias") if self.bias else ("weight",)) for part in parts]

    @property
    def _all_weights(self) -> list[list[str]]:
        return [[f"{kind}_l{layer}" for kind in self._kinds] for layer in range(self.num_layers)]

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """Each layer's weight_ih, weight_hh and, with ``bias``, bias_ih, bias_hh; of MinGRU weight_ih and bias_ih."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _flat_weights(self) -> list[Tensor]:
        return [weight for layer in self.all_weights for weight in layer]

    def flatten_parameters(self) -> None:
        """Nothing to do: no backend needs the weights in one piece."""

    def reset_parameters(self) -> None:
        """U(-1/sqrt(H), 1/sqrt(H)) for every parameter, in torch.nn's order: the same seed gives the same weights."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        defaults = {
            "nonlinearity": "tanh", "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "backend": None,
            "clip_recurrent": None, "recompute": False,
        }  # fmt: skip
        given = {name: getattr(self, name, default) for name, default in defaults.items()}
        shown = [f"{name}={value}" for name, value in given.items() if value != defaults[name]]
        return ", ".join([str(self.input_size), str(self.hidden_size), *shown])

    def forward(self, input: Tensor, hx: Any = None, *, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """Run all layers over a sequence.

        Args:
            input: [T, B, I], or [B, T, I] with ``batch_first``, or [T, I] for one row.
            hx: the state before the first step, [layers, B, H] (LSTM: a pair (h, c) of them); None is zero.
            reset: optional [T, B] bool ([B, T] with ``batch_first``, [T] for one row); where True the state is zero
                before that step.

        Returns:
            The last layer's outputs, shaped like ``input``, and the state after the last step, shaped like ``hx``.

        Raises:
            RuntimeError: for an input or a state of another size than the module's, as torch.nn.
            ValueError: for an input of another rank or dtype, and for a mask that does not fit.
        """
        if isinstance(input, torch.fx.Proxy):  # torch.fx.symbolic_trace keeps the module whole, as it keeps torch.nn's
            tracer: Any = input.tracer
            more = {"reset": reset} if reset is not None else {}
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (input, hx), more)
        single = input.dim() == 2 if isinstance(input, Tensor) else False
        if not traced():
            self._check_input(input, reset)
        states = self._states(hx, input, single)
        if single:
            input = input.unsqueeze(1)
            reset = None if reset is None else reset.unsqueeze(1)
        elif self.batch_first:
            input = input.transpose(0, 1)
            reset = None if reset is None else reset.transpose(0, 1)
        finals = []
        for layer, weights in enumerate(self.all_weights):
            state = tuple(s[layer] for s in states)
            named: dict[str, Any] = dict(zip(self._kinds, weights, strict=True))
            input, final = recurrence(
                self.cell, input, state, **named,
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

    def _check_input(self, input: Tensor, reset: Tensor | None) -> None:
        if isinstance(input, nn.utils.rnn.PackedSequence):
            raise NotImplementedError("packed sequences are not supported; pad them, or use a reset mask")
        if input.dim() not in (2, 3):
            raise ValueError(f"input must be [T, B, I] or [T, I], not {list(input.shape)}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"input must have {self.input_size} features, not {list(input.shape)}")
        if input.shape[1 if self.batch_first and input.dim() == 3 else 0] == 0:
            raise RuntimeError(f"input must have at least one time step, not be {list(input.shape)}")
        if reset is not None and reset.dim() != input.dim() - 1:
            raise ValueError(f"reset must have one dimension less than input, not be {list(reset.shape)}")

    def _states(self, hx: Any, input: Tensor, single: bool) -> list[Tensor]:
        batch = [] if single else [input.shape[0 if self.batch_first else 1]]
        size = [self.num_layers, *batch, self.hidden_size]
        count = EVERY_CELL[self.cell].states
        if hx is None:
            states = [input.new_zeros(size) for _ in range(count)]
        elif isinstance(hx, Tensor) != (count == 1):
            raise RuntimeError(f"hx must be {'a tensor' if count == 1 else 'a pair (h_0, c_0)'}, not {type(hx).__name__}")
        else:
            states = [hx] if count == 1 else list(hx)
            if len(states) != count:
                raise RuntimeError(f"hx must be a pair (h_0, c_0), not {len(states)} of them")
        for name, state in zip(("h_0", "c_0"), states, strict=False):
            if not traced() and list(state.shape) != size:
                raise RuntimeError(f"{name} must be {size}, not {list(state.shape)}")
        return [s.unsqueeze(1) for s in states] if single else states


class RNN(_Recurrent):
    """Elman network, h(t) = s(h(t-1) W_h + x(t) W_i + b) (Elman 1990); drop-in for torch.nn.RNN.

    ``nonlinearity`` is "tanh", "relu", "sigmoid" or "identity". ``backend``, ``clip_recurrent`` and ``recompute`` are those of
    ``kernels.recurrence``. ``bidirectional`` is refused, and so is ``proj_size``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
        backend: str | None = None,
        clip_recurrent: Clip | None = None,
        recompute: bool = False,
    ) -> None:
        if f"rnn-{nonlinearity}" not in CELLS:
            raise ValueError(f"nonlinearity must be tanh, relu, sigmoid or identity, not {nonlinearity!r}")
        if proj_size:
            raise ValueError("proj_size is of torch.nn.LSTM alone; put an nn.Linear behind the module")
        super().__init__(
            f"rnn-{nonlinearity}", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device, dtype, backend, clip_recurrent, recompute,
        )  # fmt: skip
        self.nonlinearity = nonlinearity


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gate); drop-in for torch.nn.LSTM.

    ``backend``, ``clip_recurrent`` and ``recompute`` are those of ``kernels.recurrence``. ``bidirectional`` and ``proj_size``
    are refused.
    """

    def __init__(
        self,
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
        *,
        backend: str | None = None,
        clip_recurrent: Clip | None = None,
        recompute: bool = False,
    ) -> None:
        if proj_size:
            raise NotImplementedError("proj_size is not supported; put an nn.Linear behind the module")
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device, dtype, backend, clip_recurrent, recompute,
        )  # fmt: skip


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al. 2014; reset gate after the product); drop-in for torch.nn.GRU.

    ``backend``, ``clip_recurrent`` and ``recompute`` are those of ``kernels.recurrence``. ``bidirectional`` and ``proj_size``
    are refused.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
        backend: str | None = None,
        clip_recurrent: Clip | None = None,
        recompute: bool = False,
    ) -> None:
        if proj_size:
            raise ValueError("proj_size is of torch.nn.LSTM alone; put an nn.Linear behind the module")
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device, dtype, backend, clip_recurrent, recompute,
        )  # fmt: skip


class MinGRU(_Recurrent):
    """Minimal gated recurrent unit, h(t) = (1 - z) h(t-1) + z (x(t) W_c + b_c), z = s(x(t) W_z + b_z) (Feng et al. 2024).

    Gate and candidate do not depend on h, so that a sequence is a scan. Arguments and shapes are those of ``GRU``.
    A layer has ``weight_ih`` [2 * H, I], the rows of z first, and ``bias_ih`` [2 * H]; it has no W_h. ``backend`` and
    ``clip_recurrent`` are those of ``kernels.recurrence``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str | None = None,
        clip_recurrent: Clip | None = None,
    ) -> None:
        super().__init__(
            "mingru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device, dtype, backend, clip_recurrent, False,
        )  # fmt: skip


def layer(cell: str, input_size: int, hidden_size: int, backend: str | None = None) -> "RNN | LSTM | GRU | MinGRU":
    """One layer of a cell, by the cell's name.

    Args:
        cell: a key of ``EVERY_CELL``.
        input_size: I of inputs [T, B, I].
        hidden_size: H of outputs [T, B, H].
        backend: see ``choose_backend``.

    Returns:
        The module.

    Raises:
        ValueError: for an unknown cell or backend.
    """
    if cell not in EVERY_CELL:
        raise ValueError(f"cell must be one of {', '.join(EVERY_CELL)}, not {cell!r}")
    modules: dict[str, type[LSTM] | type[GRU] | type[MinGRU]] = {"lstm": LSTM, "gru": GRU, "mingru": MinGRU}
    if cell in modules:
        return modules[cell](input_size, hidden_size, backend=backend)
    return RNN(input_size, hidden_size, nonlinearity=cell.removeprefix("rnn-"), backend=backend)
