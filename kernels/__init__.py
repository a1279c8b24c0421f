"""What runs on the GPU, and its eager twin.

The front door of this room: ``RNN``, ``LSTM`` and ``GRU`` (drop-in for torch.nn), ``recurrence`` (one layer as a
function), ``step`` (one step of a cell), ``cross_entropy`` and ``linear_cross_entropy`` (with the ``Metrics`` they can
return, and ``explain_linear_cross_entropy``), ``choose_backend``, ``vector_norm``, ``total_norm`` and
``total_norm_on_host`` (also of numbers whose squares no float holds), and for measuring ``ExchangeRun`` (the exchange alone),
``exchange_floor``, what plans ``predict`` for ``DEVICES``, and their constants (``CONSTANTS``, ``constant``, ``ESTIMATES``,
``MEASURED``). Names are imported when first used, so that ``import kernels`` costs nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

_ROOMS = {
    "RNN": "modules",
    "LSTM": "modules",
    "GRU": "modules",
    "CELLS": "cells",
    "Cell": "cells",
    "step": "cells",
    "recurrence": "recurrence",
    "cross_entropy": "cross_entropy",
    "linear_cross_entropy": "linear_cross_entropy",
    "trace_gradients": "trace",
    "GradientTrace": "trace",
    "LayerTrace": "trace",
    "vector_norm": "norms",
    "total_norm": "norms",
    "total_norm_on_host": "norms",
    "exchange_floor": "exchange_floor",
    "ExchangeRun": "exchange_run",
    "constant": "constants",
    "CONSTANTS": "constants",
    "MEASURED": "constants",
    "ESTIMATES": "plan",
    "DEVICES": "plan",
    "predict": "plan",
    "explain": "explain",
    "explain_linear_cross_entropy": "loss_plan",
    "Metrics": "loss_terms",
    "choose_backend": "backends",
    "BACKENDS": "backends",
}
__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from kernels.backends import BACKENDS as BACKENDS
    from kernels.backends import choose_backend as choose_backend
    from kernels.cells import CELLS as CELLS
    from kernels.cells import Cell as Cell
    from kernels.cells import step as step
    from kernels.constants import CONSTANTS as CONSTANTS
    from kernels.constants import MEASURED as MEASURED
    from kernels.constants import constant as constant
    from kernels.cross_entropy import cross_entropy as cross_entropy
    from kernels.exchange_floor import exchange_floor as exchange_floor
    from kernels.exchange_run import ExchangeRun as ExchangeRun
    from kernels.explain import explain as explain
    from kernels.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
    from kernels.loss_plan import explain_linear_cross_entropy as explain_linear_cross_entropy
    from kernels.loss_terms import Metrics as Metrics
    from kernels.modules import GRU as GRU
    from kernels.modules import LSTM as LSTM
    from kernels.modules import RNN as RNN
    from kernels.norms import total_norm as total_norm
    from kernels.norms import total_norm_on_host as total_norm_on_host
    from kernels.norms import vector_norm as vector_norm
    from kernels.plan import DEVICES as DEVICES
    from kernels.plan import ESTIMATES as ESTIMATES
    from kernels.plan import predict as predict
    from kernels.recurrence import recurrence as recurrence
    from kernels.trace import GradientTrace as GradientTrace
    from kernels.trace import LayerTrace as LayerTrace
    from kernels.trace import trace_gradients as trace_gradients


class _Door(ModuleType):
    """Looks names up when they are first used. A function keeps its name even where its file has the same one."""

    def __getattr__(self, name: str) -> Any:
        if name not in _ROOMS:
            raise AttributeError(f"module 'kernels' has no attribute {name!r}")
        value = getattr(import_module(f"kernels.{_ROOMS[name]}"), name)
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _ROOMS and isinstance(value, ModuleType)):  # the import system announcing a submodule
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Door
