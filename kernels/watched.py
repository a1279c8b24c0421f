"""Recurrent clipping and the gradient trace for the backends without kernels of their own.

``eager``: every step's h and W_h pass through a node that clips and writes down the gradient that autograd brings. ``torch``:
ATen's fused recurrences show nobody what arrives at h[t], so the gradients are made once more by hand, step by step:
when clipping, in their place; when only tracing, beside them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cells import CELLS
from kernels.norms import scaled_norm, vector_norm
from kernels.step_norms import step_norms
from kernels.trace import GradientTrace, LayerTrace, tracing

SCANS = ("rnn-sigmoid", "rnn-identity")  # cells that ATen does not have, see ``recurrence._ElmanScan``
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
    """h[t] as it is; backward clips dL/dh[t] and writes its norms down."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, t: int, record: StepRecord, clip: Clip | None) -> Tensor:
        ctx.how = (t, record, clip)
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        t, record, clip = ctx.how
        gradient = clipped(gradient, clip)
        trace = tracing()
        if trace is not None:
            norms = record.layer(trace).hidden_norms
            norms[t] = vector_norm(gradient.detach(), dim=-1)
        return gradient, None, None, None


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


def gradients_by_hand(
    cell: str,
    tensors: tuple[Tensor | None, ...],
    reset: Tensor | None,
    output: Tensor,
    grads: tuple[Tensor | None, ...],
    clip: Clip | None,
) -> tuple[list[Tensor | None], LayerTrace]:
    """Backward through a layer, step by step.

    Args:
        cell: a key of ``CELLS``.
        tensors: input, weight_ih, weight_hh, bias_ih, bias_hh, then the states before the first step.
        reset: [T, B] bool or None.
        output: [T, B, H].
        grads: of the output, then of the final states.
        clip: recurrent clipping.

    Returns:
        The gradients of ``tensors``, and the norms on the way.
    """
    input, weight_ih, weight_hh, bias_ih, bias_hh, h0, *c0 = tensors
    assert input is not None
    assert weight_ih is not None
    assert weight_hh is not None
    assert h0 is not None
    kind, steps = CELLS[cell], len(input)
    starts = torch.zeros(input.shape[:2], dtype=torch.bool, device=input.device) if reset is None else reset
    starts = starts[:, :, None]
    h_before = torch.cat([h0[None], output[:-1]]).masked_fill(starts, 0)
    gates = kind.gates_of(F.linear(input, weight_ih, bias_ih), F.linear(h_before, weight_hh, bias_hh))
    c_before, cs = [], [*c0]
    for t in range(steps if c0 else 0):
        c_before.append(cs[t].masked_fill(starts[t], 0))  # type: ignore[union-attr]
        cs.append(gates[1][t] * c_before[t] + gates[0][t] * gates[2][t])

    grad_output = torch.zeros_like(output) if grads[0] is None else grads[0]
    dh = torch.zeros_like(h0) if grads[1] is None else grads[1]
    dc = None if not c0 else torch.zeros_like(h0) if grads[2] is None else grads[2]
    wide = torch.promote_types(output.dtype, torch.float32)  # squares of halves overflow
    norms = output.new_empty(output.shape[:2], dtype=wide)
    d_z, d_a = ([torch.empty(0)] * steps for _ in range(2))
    for t in reversed(range(steps)):
        dh = clipped(dh + grad_output[t], clip)
        norms[t] = vector_norm(dh.detach(), dim=-1)
        state = (h_before[t], c_before[t] if c0 else None, cs[t + 1] if c0 else None)
        d_z[t], d_a[t], past, dc = kind.gradient(dh, dc, tuple(g[t] for g in gates), state)
        dh = torch.addmm(past, d_a[t], weight_hh).masked_fill(starts[t], 0)
        dc = None if dc is None else dc.masked_fill(starts[t], 0)
    of_input, of_state = torch.stack(d_z), torch.stack(d_a)
    flat_z, flat_a = of_input.flatten(0, 1), of_state.flatten(0, 1)
    return [
        of_input @ weight_ih,
        flat_z.t() @ input.flatten(0, 1),
        flat_a.t() @ h_before.flatten(0, 1),
        None if bias_ih is None else flat_z.sum(0),
        None if bias_hh is None else flat_a.sum(0),
        dh,
        *([dc] if c0 else []),
    ], LayerTrace(norms, step_norms(h_before[0].detach(), h_before[1:].detach(), of_state.detach()))


class Watch(torch.autograd.Function):
    """A layer's results as they are. Backward, when tracing, also works the norms out; with ``by_hand`` it is the gradient.

    ``apply(cell, reset, clip, by_hand, states, *results, *tensors)``: the output and the final states, then the tensors of
    ``gradients_by_hand``.
    """

    @staticmethod
    def forward(
        ctx: Any, cell: str, reset: Tensor | None, clip: Clip | None, by_hand: bool, states: int, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        # The scan's results belong to the caller, who may change them in place; ATen's may not be changed anyway.
        results = tuple(r.clone() if cell in SCANS else r.view_as(r) for r in tensors[: 1 + states] if r is not None)
        ctx.save_for_backward(reset, tensors[0], *tensors[1 + states :])
        ctx.how = (cell, clip, by_hand, states)
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        cell, clip, by_hand, states = ctx.how
        reset, output, *tensors = ctx.saved_tensors
        trace = tracing()
        through: tuple[Any, ...] = (*grads, *[None] * len(tensors))
        if by_hand or trace is not None:
            gradients, layer = gradients_by_hand(cell, tuple(tensors), reset, output, grads, clip)
            if by_hand:
                through = (*[None] * (1 + states), *gradients)
            if trace is not None:
                trace.add(layer.hidden_norms, layer.weight_norms)
        return (*[None] * 5, *through)
