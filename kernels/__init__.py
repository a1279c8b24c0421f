"""What runs on the GPU, and its eager twin.

The front door of this room: ``RNN``, ``LSTM`` and ``GRU`` (drop-in for torch.nn), ``MinGRU``, ``layer`` (one of them by its
cell), ``recurrence`` (one layer as a function), ``step`` (one step of a cell), ``cross_entropy`` and ``linear_cross_entropy``
(with the ``Metrics`` they can return, and ``explain_linear_cross_entropy``), ``choose_backend``, ``vector_norm``,
``total_norm`` and ``total_norm_on_host`` (also of numbers whose squares no float holds), and for measuring ``ExchangeRun``
(the exchange alone), ``exchange_floor``, what plans ``predict`` for ``DEVICES``, and their constants (``CONSTANTS``,
``constant``, ``ESTIMATES``, ``MEASURED``). Names are imported when first used, so that ``from recurrent_lm import kernels``
costs nothing.
"""

from typing import TYPE_CHECKING

import recurrent_lm

if TYPE_CHECKING:
    from recurrent_lm.kernels.backends import BACKENDS as BACKENDS
    from recurrent_lm.kernels.backends import choose_backend as choose_backend
    from recurrent_lm.kernels.bench.exchange_floor import exchange_floor as exchange_floor
    from recurrent_lm.kernels.bench.exchange_run import ExchangeRun as ExchangeRun
    from recurrent_lm.kernels.loss.cross_entropy import cross_entropy as cross_entropy
    from recurrent_lm.kernels.loss.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
    from recurrent_lm.kernels.loss.plan import explain_linear_cross_entropy as explain_linear_cross_entropy
    from recurrent_lm.kernels.loss.terms import Metrics as Metrics
    from recurrent_lm.kernels.nn import GRU as GRU
    from recurrent_lm.kernels.nn import LSTM as LSTM
    from recurrent_lm.kernels.nn import RNN as RNN
    from recurrent_lm.kernels.nn import MinGRU as MinGRU
    from recurrent_lm.kernels.nn import layer as layer
    from recurrent_lm.kernels.rnn.cells import CELLS as CELLS
    from recurrent_lm.kernels.rnn.cells import EVERY_CELL as EVERY_CELL
    from recurrent_lm.kernels.rnn.cells import LINEAR_CELLS as LINEAR_CELLS
    from recurrent_lm.kernels.rnn.cells import Cell as Cell
    from recurrent_lm.kernels.rnn.cells import step as step
    from recurrent_lm.kernels.rnn.norms import total_norm as total_norm
    from recurrent_lm.kernels.rnn.norms import total_norm_on_host as total_norm_on_host
    from recurrent_lm.kernels.rnn.norms import vector_norm as vector_norm
    from recurrent_lm.kernels.rnn.plan import CONSTANTS as CONSTANTS
    from recurrent_lm.kernels.rnn.plan import DEVICES as DEVICES
    from recurrent_lm.kernels.rnn.plan import ESTIMATES as ESTIMATES
    from recurrent_lm.kernels.rnn.plan import MEASURED as MEASURED
    from recurrent_lm.kernels.rnn.plan import constant as constant
    from recurrent_lm.kernels.rnn.plan import explain as explain
    from recurrent_lm.kernels.rnn.plan import predict as predict
    from recurrent_lm.kernels.rnn.recurrence import recurrence as recurrence
    from recurrent_lm.kernels.rnn.trace import GradientTrace as GradientTrace
    from recurrent_lm.kernels.rnn.trace import LayerTrace as LayerTrace
    from recurrent_lm.kernels.rnn.trace import trace_gradients as trace_gradients

__all__, __getattr__, __dir__ = recurrent_lm.front_door(__name__, __file__)
