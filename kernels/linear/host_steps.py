"""A linear cell (minGRU) in plain torch operations with a hand-written backward pass: the fast way on a CPU.

    z[t], c[t] = s(x[t] W_z + b_z), x[t] W_c + b_c      one product for all steps
    h[t] = lerp(h[t-1], c[t], z[t])                     one call a step
    dh[t-1] += (1 - z[t]) dh[t]                         one call a step
    dW = sum_t x[t]^T d[t]                              one product for all steps

Without W_h a step has no product: 35 calls on 20 rows of 256 units take a tenth of a millisecond, and the input's products take
nearly all of the time. A scan in blocks would need log2(T) passes over the same numbers, which one thread is slower at.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from recurrent_lm.kernels.rnn.cells import State, Weights
from recurrent_lm.kernels.rnn.host_scan import Kept, bfloat16_operands, limit, masks_of, zeroed
from recurrent_lm.kernels.rnn.norms import vector_norm
from recurrent_lm.kernels.rnn.trace import GradientTrace, gate_norms
from recurrent_lm.kernels.rnn.watched import Clip


def forward(cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, halves: bool = False) -> Kept:
    """All steps of a layer, without autograd; arguments as of ``host_scan.scan_forward``.

    Returns:
        The states [T + 1, B, H], and z and c side by side [T, B, 2 * H].
    """
    (count, batch, _), hidden = input.shape, state[0].shape[1]
    hs = input.new_empty(count + 1, batch, hidden)
    hs[0] = state[0]
    x, w = input.flatten(0, 1), weights.ih.t()
    with bfloat16_operands(halves):
        gates = (x @ w if weights.bias_ih is None else torch.addmm(weights.bias_ih, x, w)).view(count, batch, 2 * hidden)
    z, c = gates.split(hidden, 2)
    torch.sigmoid_(z)
    h, *states = hs.unbind(0)
    for after, z_now, c_now, mask in zip(states, z.unbind(0), c.unbind(0), masks_of(reset, count), strict=True):
        h = torch.lerp(zeroed(h, mask), c_now, z_now, out=after)
    return Kept(hs, gates, hs.new_empty(0))


def backward(
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
    """The gradients of a layer; arguments and results as of ``host_scan.scan_backward``, None for W_h and its bias."""
    hs, hidden = kept.hs[:-1], kept.hs.shape[2]
    dhs = torch.zeros_like(kept.hs) if grads[0] is None else torch.cat([torch.zeros_like(hs[:1]), grads[0]])
    if grads[1] is not None:
        dhs[-1] += grads[1]
    if reset is not None:
        hs = hs.masked_fill(reset[:, :, None], 0)
    z, c = kept.gates.split(hidden, 2)
    keep = 1 - z
    first, *later = dhs.unbind(0)
    steps = list(zip(later, [first, *later[:-1]], keep.unbind(0), masks_of(reset, len(input)), strict=True))
    for dh, before, kept_share, mask in reversed(steps):
        limit(dh, clip)
        if mask is None:
            before.addcmul_(dh, kept_share)
        else:  # the product, too, may hide a NaN or make one
            before.add_(zeroed(dh * kept_share, mask))
    d = torch.empty_like(kept.gates)
    d_z, d_c = d.split(hidden, 2)
    torch.mul(dhs[1:], z, out=d_c)
    torch.sub(c, hs, out=d_z).mul_(d_c).mul_(keep)
    if trace is not None:
        trace.add(vector_norm(dhs[1:], dim=-1), gate_norms(input, d))
    flat, x = d.flatten(0, 1), input.flatten(0, 1)
    with bfloat16_operands(halves):
        d_input = (flat @ weights.ih).view(input.shape) if needed[0] else None
        d_weight = flat.t() @ x if needed[1] else None
    d_bias = flat.sum(0) if needed[3] else None
    return [d_input, d_weight, None, d_bias, None, dhs[0].clone() if needed[5] else None]
