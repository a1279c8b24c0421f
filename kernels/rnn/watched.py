"""Recurrent clipping, and the gradient trace of a recurrence that is unrolled under autograd.

Every step's h and W_h pass through a node that clips and records the gradient that autograd computes there.
"""

from typing import Any

import torch
from torch import Tensor

from recurrent_lm.kernels.rnn.norms import scaled_norm, vector_norm
from recurrent_lm.kernels.rnn.trace import GradientTrace, LayerTrace, gate_norms, tracing

Clip = tuple[str, float]  # ("value", c): each element to [-c, c]; ("norm", c): each row's norm to at most c


def clipped(gradient: Tensor, clip: Clip | None) -> Tensor:
    """dL/dh[t], [B, H], after clipping; NaN stays NaN."""
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
    """One layer's norms, filled while autograd walks backward through its steps."""

    def __init__(self, steps: int, batch: int, like: Tensor) -> None:
        self.size, self.like = (steps, batch), like.detach()
        self.trace: GradientTrace | None = None

    def layer(self, trace: GradientTrace) -> LayerTrace:
        """This layer's entry in the trace, created by the first call."""
        if self.trace is not trace:
            self.trace = trace
            wide = torch.promote_types(self.like.dtype, torch.float32)
            self.entry = LayerTrace(*(self.like.new_zeros(size, dtype=wide) for size in (self.size, self.size[0])))
            trace.layers.insert(0, self.entry)
        return self.entry


class WatchHidden(torch.autograd.Function):
    """Identity on h[t]; its backward pass clips dL/dh[t] and records its norms."""

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


class WatchGate(torch.autograd.Function):
    """Identity on a linear cell's sums z [T, B, G * H]; its backward pass records the norms of the parts of dL/dW_z.

    W_z are the first H rows of weight_ih, which the input x [T, B, I] multiplies.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, x: Tensor, record: StepRecord) -> Tensor:
        ctx.save_for_backward(x)
        ctx.record = record
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        trace = tracing()
        if trace is not None:
            ctx.record.layer(trace).weight_norms.copy_(gate_norms(x, gradient.detach()))
        return gradient, None, None


class WatchWeight(torch.autograd.Function):
    """Identity on W_h as step t uses it; its backward pass records the norm of that step's part of the gradient."""

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
