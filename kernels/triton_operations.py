"""The functions that launch Triton kernels, imported when the first of them is used.

Triton and the kernels' modules take 0.16 s of CPU time to import, and a host that runs none of them starts without.
"""

from typing import TYPE_CHECKING

import recurrent_lm

if TYPE_CHECKING:
    from recurrent_lm.kernels.linear.ops import triton_has as triton_has
    from recurrent_lm.kernels.linear.ops import triton_linear as triton_linear
    from recurrent_lm.kernels.loss.launch import chunked_gradients as chunked_gradients
    from recurrent_lm.kernels.loss.launch import cut_gradients as cut_gradients
    from recurrent_lm.kernels.loss.launch import cut_loss as cut_loss
    from recurrent_lm.kernels.loss.launch import rows_gradient as rows_gradient
    from recurrent_lm.kernels.loss.launch import rows_loss as rows_loss
    from recurrent_lm.kernels.rnn.ops import better_than_library as better_than_library
    from recurrent_lm.kernels.rnn.ops import triton_recurrence as triton_recurrence

__all__, __getattr__, __dir__ = recurrent_lm.front_door(__name__, __file__)
