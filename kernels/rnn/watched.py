"""Recurrent clipping and the gradient trace for the backends without kernels of their own.

Unrolled, every step's h and W_h pass through a node that clips and writes down the gradient that autograd brings. ATen's fused
recurrences show nobody what arrives at h[t], so the gradients are made by hand, step by step: when clipping, in their place;
when only tracing, beside them.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm.kernels.rnn.cells import CELLS, Gates
from recurrent_lm.kernels.rnn.norms import scaled_norm, vector_norm
from recurrent_lm.kernels.rnn.trace import GradientTrace, LayerTrace, step_norms, tracing

Clip = tuple[str, float]  # ("value", c): each element to [-c, c]; ("norm", c): each row's norm to at most c


def clipped(gradient: Tensor, clip: Clip | None) -> Tensor:
    """dL/dh[t], [B, H], after clipping. A NaN stays one."""
    if clip is None:
        return gradient
    kind, limit = clip
    if kind == "value":
        return gradient.clamp(-limit, limit)
    most = limit / torch.finfo(torch.promote_types(gradient.dtype, torch.float32)).tiny  # limit / norm is a normal number
    norm, scale = scaled_norm(gradient, dim=-1, keepdim=True, most=most)
    if scale is None:
        return torch.where(norm > limit, gradient * (limit / norm), gradient).to(gradient.dtype)
    return torch.where(norm > limit * scale, gradient * scale * (limit / norm), gradient).to(gradient.dtype)


class ClipOnce(torch.autograd.Function):
    """``clipped``, whose results no longer are the gradient of anything, so that none is taken of them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, clip: Clip) -> Tensor:
        return clipped(gradient, clip)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("gradients that clip_recurrent clipped cannot be differentiated again; leave it out")


class StepRecord:
    """One layer's norms while autograd walks backward through its steps."""

    def __init__(self, steps: int, batch: int, like: Tensor) -> None:
        self.size, self.like = (steps, batch), like.detach()
        self.trace: GradientTrace | None = None

    def layer(self, trace: GradientTrace) -> LayerTrace:
        """This layer's entry in the trace; the first call makes it."""
        if self.trace is not trace:
            self.trace = trace
            wide = torch.promote_types(self.like.dtype, torch.float32)
            self.entry = LayerTrace(*(self.like.new_zeros(size, dtype=wide) for size in (self.size, self.size[0])))
            trace.layers.insert(0, self.entry)
        return self.entry


class WatchHidden(torch.autograd.Function):
    """h[t] as it is; backward clips dL/dh[t] and writes its norms down if there is a record."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h: Tensor, t: int, record: StepRecord | None, clip: Clip | None) -> Tensor:
        return h.view_as(h)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.how = inputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        t, record, clip = ctx.how
        gradient = gradient if clip is None else ClipOnce.apply(gradient, clip)
        trace = tracing()
        if trace is not None and record is not None:
            norms = record.layer(trace).hidden_norms
            norms[t] = vector_norm(gradient.detach(), dim=-1)
        return gradient, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        raise NotImplementedError(
            "clip_recurrent changes the backward pass alone and has no forward-mode derivative; leave it out"
        )


class WatchWeight(torch.autograd.Function):
    """W_h as step t uses it; backward writes the norm of that step's part of its gradient down."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, t: int, record: StepRecord) -> Tensor:
        ctx.how = (t, record)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        t, record = ctx.how
        trace = tracing()
        if trace is not None:
            norms = record.layer(trace).weight_norms
            norms[t] = vector_norm(gradient.detach())
        return gradient, None, None


def in_one_dtype(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The widest of theirs: under autocast a layer's input may be of halves, its weights of float32."""
    dtype = reduce(torch.promote_types, [t.dtype for t in tensors if t is not None])
    return [None if t is None else t.to(dtype) for t in tensors]


def gradients_by_hand(
    cell: str,
    tensors: Sequence[Tensor | None],
    reset: Tensor | None,
    output: Tensor,
    grads: Sequence[Tensor | None],
    clip: Clip | None,
) -> list[Tensor | None]:
    """Backward through a layer, step by step; inside ``trace_gradients`` the norms on the way are written down.

    Args:
        cell: a key of ``CELLS``.
        tensors: input, weight_ih, weight_hh, bias_ih, bias_hh, then the states before the first step.
        reset: [T, B] bool or None.
        output: [T, B, H].
        grads: of the output, then of the final states.
        clip: recurrent clipping.

    Returns:
        The gradients of ``tensors``, each in its dtype.
    """
    dtypes = [None if t is None else t.dtype for t in tensors]
    input, weight_ih, weight_hh, bias_ih, bias_hh, h0, *c0 = in_one_dtype(tensors)
    assert input is not None
    assert weight_ih is not None
    assert weight_hh is not None
    assert h0 is not None
    dtype, trace = input.dtype, tracing()
    output, (grad_output, dh, *grad_c) = output.to(dtype), [None if g is None else g.to(dtype) for g in grads]
    kind, steps = CELLS[cell], len(input)
    starts = torch.zeros(input.shape[:2], dtype=torch.bool, device=input.device) if reset is None else reset
    starts = starts[:, :, None]
    h_before = torch.cat([h0[None], output[:-1]]).masked_fill(starts, 0)
    gates: Gates = (output,)  # of an Elman cell
    if kind.gates > 1:
        gates = kind.gates_of(F.linear(input, weight_ih, bias_ih), F.linear(h_before, weight_hh, bias_hh))
    c_before, cs = [], [*c0]
    for t in range(steps if c0 else 0):
        c_before.append(cs[t].masked_fill(starts[t], 0))  # type: ignore[union-attr]
        cs.append(gates[1][t] * c_before[t] + gates[0][t] * gates[2][t])

    dh = torch.zeros_like(h0) if dh is None else dh
    dc = None if not c0 else torch.zeros_like(h0) if grad_c[0] is None else grad_c[0]
    wide = torch.promote_types(dtype, torch.float32)  # squares of halves overflow
    norms = input.new_empty(output.shape[:2], dtype=wide)
    d_z, d_a = ([torch.empty(0)] * steps for _ in range(2))
    for t in reversed(range(steps)):
        dh = clipped(dh if grad_output is None else dh + grad_output[t], clip)
        if trace is not None:
            norms[t] = vector_norm(dh.detach(), dim=-1)
        state = (h_before[t], c_before[t] if c0 else None, cs[t + 1] if c0 else None)
        d_z[t], d_a[t], past, dc = kind.gradient(dh, dc, tuple(g[t] for g in gates), state)
        dh = torch.addmm(past, d_a[t], weight_hh).masked_fill(starts[t], 0)
        dc = None if dc is None else dc.masked_fill(starts[t], 0)
    of_input, of_state = torch.stack(d_z), torch.stack(d_a)
    if trace is not None:
        trace.add(norms, step_norms(h_before[0], h_before[1:], of_state))
    flat_z, flat_a = (d.reshape(-1, d.shape[-1]) for d in (of_input, of_state))
    gradients = [
        of_input @ weight_ih,
        flat_z.t() @ input.flatten(0, 1),
        flat_a.t() @ h_before.flatten(0, 1),
        None if bias_ih is None else flat_z.sum(0),
        None if bias_hh is None else flat_a.sum(0),
        dh,
        *([dc] if c0 else []),
    ]
    return [None if g is None else g.to(dtype) for g, dtype in zip(gradients, dtypes, strict=True)]
