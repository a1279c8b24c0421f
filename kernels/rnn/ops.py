"""The Triton recurrence as two torch operations, one for each direction, each on a whole layer and sequence.

They are registered with ``torch.library``, so torch.compile sees one node with known shapes and a known backward pass.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurrent_lm.kernels.backends import interpreted
from recurrent_lm.kernels.rnn.cells import CELLS, Weights
from recurrent_lm.kernels.rnn.host import (
    differentiable_gradients,
    dtype_of_products,
    transformed,
    under_autocast,
    without_autocast,
)
from recurrent_lm.kernels.rnn.launch import (  # fmt: skip
    device_limits,
    input_part,
    name_of,
    plan_for,
    ready_for_backward,
    run_backward,
    run_forward,
    unpacked,
)
from recurrent_lm.kernels.rnn.plan import Plan, faster_than_library, padded
from recurrent_lm.kernels.rnn.trace import step_norms, tracing

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
DTYPES_INTERPRETED = (torch.float16, torch.float32, torch.float64)  # the interpreter multiplies bfloat16 wrongly


class How(NamedTuple):
    """The options of ``recurrence_forward``, in the order of its arguments."""

    cell: str
    plan: str
    exchange: str
    precision: str
    clip: str
    limit: float
    save: bool
    recompute: bool


@torch.library.custom_op("recurrent_lm::recurrence_forward", mutates_args=())
def recurrence_forward(
    input: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: Tensor | None,
    cell: str,
    plan: str,
    exchange: str,
    precision: str,
    clip: str,
    limit: float,
    save: bool,
    recompute: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A layer over a whole sequence.

    Returns:
        The outputs [T, B, P] of P padded units, h(T) and c(T) [B, H], and for the backward pass c [T + 1, B, P] and gates
        [T, B, width]; parts that do not exist are empty.
    """
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    keep = save and CELLS[cell].slots > 1 and not recompute
    hs, h_n, c_n, cs, z = run_forward(
        cell, _plan(input, cell, plan, exchange, h0), weights, input, h0, c0, reset, save, precision, keep_gates=keep
    )
    return (
        hs,
        h_n,
        input.new_empty(0) if c_n is None else c_n,
        cs if save and cs is not None else input.new_empty(0),
        z if keep else input.new_empty(0),
    )


def _plan(input: Tensor, cell: str, plan: str, exchange: str, h0: Tensor) -> Plan:
    return plan_for(input.shape[1], input.shape[0], h0.shape[1], cell, input, plan, exchange)


@recurrence_forward.register_fake
def _(  # type: ignore[no-untyped-def]  # its signature is that of the operation above
    input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reset, cell, plan, exchange, precision, clip, limit, save, recompute
):  # fmt: skip
    steps, batch, _ = input.shape
    units, slots = padded(h0.shape[1]), CELLS[cell].slots
    keep = save and slots > 1 and not recompute
    return (
        input.new_empty(steps, batch, units),
        input.new_empty(h0.shape),
        input.new_empty(h0.shape if c0 is not None else 0),
        input.new_empty((steps + 1, batch, units) if save and c0 is not None else 0),
        input.new_empty((steps, batch, slots * units) if keep else 0),
    )


@torch.library.custom_op("recurrent_lm::recurrence_backward", mutates_args=())
def recurrence_backward(
    grad_hs: Tensor | None,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    input: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: Tensor | None,
    hs: Tensor,
    cs: Tensor,
    gates: Tensor,
    cell: str,
    plan: str,
    exchange: str,
    precision: str,
    clip: str,
    limit: float,
    recompute: bool,
    input_grad: bool,
    trace: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The backward pass of ``recurrence_forward``.

    Returns:
        Gradients of input, h0, c0, the two weights and the two biases, then the traced norms [T, B] and [T]; empty if they were
        not asked for or do not exist.
    """
    steps, batch, features = input.shape
    hidden, kind = h0.shape[1], CELLS[cell]
    acc = torch.promote_types(input.dtype, torch.float32)
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    rebuilt = recompute and kind.slots > 1
    ready = ready_for_backward(
        cell, _plan(input, cell, plan, exchange, h0), weights, steps, h0,
        *(None if g is None or g.numel() == 0 else g for g in (grad_h, grad_c)), bias=rebuilt, input=input_grad or rebuilt,
    )  # fmt: skip
    layer = ready.layer
    units, width, h_first = layer.plan.hidden, layer.width, layer.h_first

    h_before = torch.cat([h_first[None], hs[:-1]]) if reset is not None or recompute else None
    if h_before is not None and reset is not None:
        h_before = h_before.masked_fill(reset[:, :, None], 0)
    if rebuilt:
        assert h_before is not None
        gates = input_part(layer, input).view(-1, width).addmm_(h_before.view(-1, units), layer.w.t()).view(steps, batch, width)
    grad = torch.zeros_like(hs) if grad_hs is None else grad_hs.contiguous()
    done = run_backward(
        ready, grad, gates, hs, cs, reset, recompute=recompute, clip=clip, limit=limit, trace=trace, precision=precision
    )

    flat = done.d.view(steps * batch, width)
    if h_before is not None:
        d_w = flat.t() @ h_before.view(steps * batch, units)
    else:
        d_w = done.d[0].t() @ h_first
        d_w.addmm_(flat[batch:].t(), hs.view(steps * batch, units)[: (steps - 1) * batch])
    d_u = flat.t() @ input.reshape(steps * batch, features)
    d_bias = flat.sum(0, dtype=acc) if bias_ih is not None else None
    d_ih, d_hh, d_b_ih, d_b_hh = unpacked(layer, weights, d_w, d_u, d_bias)

    hidden_norms, weight_norms = input.new_empty(0, dtype=acc), input.new_empty(0, dtype=acc)
    if trace:
        assert done.norms is not None
        hidden_norms = done.norms
        d = done.d
        if len(kind.hidden_slots) < kind.slots:
            by_slot = d.view(steps, batch, units, kind.slots)
            d = torch.stack([by_slot[..., slot] for slot in kind.hidden_slots], dim=-1).flatten(2)
        h0_past, past = (h_first, hs) if h_before is None else (h_before[0], h_before[1:])
        weight_norms = step_norms(h0_past[:, :hidden], past[:, :, :hidden], d)  # of padded units d is 0, a sigmoid's h is not
    return (
        input.new_empty(0) if layer.u is None or not input_grad else (flat @ layer.u).view(steps, batch, features),
        done.dh,
        input.new_empty(0) if done.dc is None else done.dc,
        d_ih,
        d_hh,
        input.new_empty(0) if d_b_ih is None else d_b_ih,
        input.new_empty(0) if d_b_hh is None else d_b_hh,
        hidden_norms,
        weight_norms,
    )


@recurrence_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_hs, grad_h, grad_c, input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reset, hs, cs, gates,
    cell, plan, exchange, precision, clip, limit, recompute, input_grad, trace,
):  # fmt: skip
    steps, batch, _ = input.shape
    acc = torch.promote_types(input.dtype, torch.float32)
    return (
        input.new_empty(input.shape if input_grad else 0),
        input.new_empty(h0.shape),
        input.new_empty(h0.shape if c0 is not None else 0),
        input.new_empty(weight_ih.shape),
        input.new_empty(weight_hh.shape),
        input.new_empty(weight_ih.shape[0] if bias_ih is not None else 0),
        input.new_empty(weight_ih.shape[0] if bias_ih is not None else 0),
        input.new_empty((steps, batch) if trace else 0, dtype=acc),
        input.new_empty(steps if trace else 0, dtype=acc),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hs, _, _, cs, gates = output
    ctx.save_for_backward(*inputs[:8], hs, cs, gates)
    ctx.how = How(*inputs[8:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_hs: Tensor, grad_h: Tensor, grad_c: Tensor, *_: Tensor) -> tuple[Any, ...]:
    how: How = ctx.how
    *inputs, hs, cs, gates = ctx.saved_tensors
    again = not torch.compiler.is_compiling() and (torch.is_grad_enabled() or transformed())
    differentiable = _differentiable(ctx, inputs, grad_hs, grad_h, grad_c) if again else None
    trace = tracing()
    gradients: list[Tensor] = []
    if differentiable is None or trace is not None:
        # The dtypes of the forward pass hold, also if the backward pass runs within autocast.
        with torch.no_grad(), without_autocast(hs.device):
            *gradients, hidden_norms, weight_norms = recurrence_backward(
                grad_hs, grad_h, grad_c, *inputs, hs, cs, gates, how.cell, how.plan, how.exchange, how.precision,
                how.clip, how.limit, how.recompute, ctx.needs_input_grad[0], trace is not None,
            )  # fmt: skip
        if trace is not None:
            trace.add(hidden_norms, weight_norms)
    if differentiable is None:
        differentiable = [g if n else None for g, n in zip([*gradients, None], ctx.needs_input_grad[:8], strict=True)]
    return (*differentiable, *[None] * len(how))


def _differentiable(ctx: Any, inputs: list[Any], grad_hs: Tensor | None, *grads: Tensor | None) -> list[Tensor | None]:
    """Gradients that can be differentiated again, unlike the operation's."""
    input, h0, c0, *weights, reset = inputs
    states = [h0] if c0 is None else [h0, c0]
    outer = None if grad_hs is None else grad_hs[..., : h0.shape[1]]
    needs, how = ctx.needs_input_grad, ctx.how
    needed = (needs[0], *needs[3:7], *needs[1 : 1 + len(states)])
    clip = None if how.clip == "none" else (how.clip, how.limit)
    d_input, d_u, d_w, d_b, d_b_hh, d_h0, *d_c0 = differentiable_gradients(
        how.cell, [input, *weights, *states], reset, (outer, *grads[: len(states)]), clip, needed
    )
    return [d_input, d_h0, d_c0[0] if d_c0 else None, d_u, d_w, d_b, d_b_hh, None]


recurrence_forward.register_autograd(_backward, setup_context=_setup_context)


def triton_recurrence(
    cell: str,
    input: Tensor,
    state: tuple[Tensor, ...],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: Tensor | None,
    plan: str | None = None,
    exchange: str = "sentinel",
    precision: str = "ieee",
    clip: tuple[str, float] | None = None,
    recompute: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """``kernels.recurrence`` by the Triton scans, with shapes already checked.

    Raises:
        ValueError: for a dtype that the scans cannot multiply, and for a plan that does not fit.
    """
    dtype = dtype_of_products(input)
    if under_autocast(input.device):
        input, weight_ih, weight_hh = (t.to(dtype) for t in (input, weight_ih, weight_hh))
        bias_ih, bias_hh = (None if b is None else b.to(dtype) for b in (bias_ih, bias_hh))
        state = tuple(s.to(dtype) for s in state)
    allowed = DTYPES_INTERPRETED if interpreted() else DTYPES
    if dtype not in allowed:
        names = ", ".join(map(name_of, allowed))
        raise ValueError(f"input must be {names} for the triton backend here, not {name_of(dtype)}")
    if too_large(cell, input, weight_hh):
        raise ValueError(
            f"a step of {input.shape[1]:,} rows and {weight_hh.shape[1]} {cell} units is too large for the triton backend, "
            "which counts its numbers in 31 bits; split the batch, or use 'torch'"
        )
    if not torch.compiler.is_compiling():  # raises before any kernel runs; a compiled graph would trace the planner
        plan_for(input.shape[1], input.shape[0], weight_hh.shape[1], cell, input, plan, exchange)
    c0 = state[1] if len(state) == 2 else None
    tensors = [input, *state, weight_ih, weight_hh, bias_ih, bias_hh]
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    how = How(cell, plan or "", exchange, precision, *(clip or ("none", 0.0)), save, recompute)
    hs, h_n, c_n, _, _ = recurrence_forward(input, state[0], c0, weight_ih, weight_hh, bias_ih, bias_hh, reset, *how)
    return hs[:, :, : state[0].shape[1]].contiguous(), (h_n,) if c0 is None else (h_n, c_n)


def too_large(cell: str, input: Tensor, weight_hh: Tensor) -> bool:
    """Whether offsets within a step exceed the 32 bits that the scans use."""
    return bool(input.shape[1] * CELLS[cell].slots * padded(weight_hh.shape[1]) >= 2**31)


def better_than_library(cell: str, input: Tensor, weight_hh: Tensor, training: bool) -> bool:
    """Whether this project's kernels are predicted to run a CUDA sequence (with its backward pass if ``training``) faster
    than the library.
    """
    dtype = dtype_of_products(input)
    if dtype not in DTYPES or too_large(cell, input, weight_hh):
        return False
    steps, batch, _ = input.shape
    hidden = int(weight_hh.shape[1])
    return _better(int(batch), int(steps), hidden, cell, name_of(dtype), input.device.index, training)


def _library_takes_tf32() -> bool:
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # if a program has set this switch, torch does not let the other one be read
        return bool(getattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32") == "tf32")


def _better(batch: int, steps: int, hidden: int, cell: str, dtype: str, index: int | None, training: bool) -> bool:
    return _faster(batch, steps, hidden, cell, dtype, device_limits(index), training, _library_takes_tf32())


# torch.compiler.assume_constant_result sets this; calling it would import the compiler, and starting lm would take 1 s longer.
_better._dynamo_marked_constant = True  # type: ignore[attr-defined]


_faster = lru_cache(maxsize=4096)(faster_than_library)
