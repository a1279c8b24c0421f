"""The recurrence without Triton: unrolled under autograd (``eager``), or by the fastest code of the device (``torch``).

On a CPU ``torch`` is the scan of ``host_scan.py``, except for an LSTM without resets and clipping, which oneDNN fuses. On other
devices it is ATen's fused recurrences, for the options that they have. The path also depends on the caller:

    torch.func and forward mode   unrolled: every transform knows its operations
    torch.compile, torch.export   one operation, so that no length of sequence is compiled anew
    torch.jit.trace               ATen's operation alone, which a saved program can hold
    a second derivative           the first one is computed again, unrolled
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from recurrent_lm.kernels.loss.terms import batched_gradient
from recurrent_lm.kernels.rnn.cells import CELLS, State, Weights
from recurrent_lm.kernels.rnn.host_scan import Kept, kept_of_output, scan_backward, scan_forward
from recurrent_lm.kernels.rnn.trace import tracing
from recurrent_lm.kernels.rnn.watched import Clip, StepRecord, WatchHidden, WatchWeight

ATEN = {"rnn-tanh": torch.rnn_tanh, "rnn-relu": torch.rnn_relu, "gru": torch.gru, "lstm": torch.lstm}


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is active."""
    return bool(torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0)


def traced() -> bool:
    """Whether torch.jit.trace is active."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def under_autocast(device: torch.device) -> bool:
    """Whether autocast is on for tensors of this device; some device types, such as "meta", have none."""
    return (device.type == "cpu" or torch.amp.is_autocast_available(device.type)) and torch.is_autocast_enabled(device.type)


def dtype_of_products(input: Tensor) -> torch.dtype:
    """Dtype of products and results: autocast's if it is on (float64 is left alone), otherwise the input's."""
    if input.dtype == torch.float64 or not under_autocast(input.device):
        return input.dtype
    return torch.get_autocast_dtype(input.device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context for backward passes, whose dtypes are those of the forward pass wherever they run."""
    return torch.autocast(device.type, enabled=False) if under_autocast(device) else nullcontext()


def host_recurrence(
    cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, clip: Clip | None, backend: str
) -> tuple[Tensor, State]:
    """``kernels.recurrence`` by the ``eager`` or the ``torch`` backend, with shapes already checked.

    Args:
        cell: a key of ``CELLS``.
        input: [T, B, I].
        state: h [B, H], and c for an LSTM.
        weights: as in torch.nn: weight_ih [G * H, I], weight_hh [G * H, H], and their biases or None.
        reset: [T, B] bool, True where the state is zero before the step; None for nowhere.
        clip: recurrent clipping, or None.
        backend: "eager" or "torch".

    Returns:
        The outputs [T, B, H] and the final state.

    Raises:
        NotImplementedError: for a gradient trace under torch.func, and under torch.jit.trace for options that need a loop.
    """
    if transformed():
        if tracing() is not None:
            raise NotImplementedError(
                "trace_gradients does not see gradients of torch.func; call loss.backward() inside the block"
            )
        output, final = unrolled(cell, input, state, weights, reset, clip)
    elif traced():
        if cell not in ATEN or reset is not None or clip is not None:
            raise NotImplementedError(
                f"torch.jit.trace keeps no loop over time, which {cell if cell not in ATEN else 'reset or clip_recurrent'} "
                "needs; use torch.export or torch.compile"
            )
        output, final = fused(cell, input, state, weights)
    elif torch.compiler.is_compiling():
        output, final = _operation(cell, input, state, weights, reset, clip)
    elif backend == "eager" or input.is_meta:
        output, final = unrolled(cell, input, state, weights, reset, clip, StepRecord(input.shape[0], input.shape[1], input))
    else:
        if reset is not None and reset.is_cpu and not bool(reset.any()):
            reset = None
        way = _by_library if library_is_faster(cell, input, reset, clip) else _by_scan
        output, final = way(cell, input, state, weights, reset, clip)
    dtype = dtype_of_products(input)
    return output.to(dtype), tuple(s.to(dtype) for s in final)


# Forward


def unrolled(
    cell: str,
    input: Tensor,
    state: State,
    weights: Weights,
    reset: Tensor | None,
    clip: Clip | None,
    record: StepRecord | None = None,
) -> tuple[Tensor, State]:
    """The equations step by step under autograd.

    Args:
        cell, input, state, weights, reset, clip: as in ``host_recurrence``.
        record: receives the norms of the backward pass; None without a gradient trace.

    Returns:
        The outputs [T, B, H] and the final state.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    z = F.linear(input, weight_ih, bias_ih)
    watched = torch.is_grad_enabled() and record is not None
    outputs = []
    for t in range(len(input)):
        if reset is not None:
            state = tuple(torch.where(reset[t].unsqueeze(1), torch.zeros_like(s), s) for s in state)
        weight = WatchWeight.apply(weight_hh, t, record) if watched else weight_hh
        h, *c = CELLS[cell].step(z[t], state, weight, bias_hh)
        state = (WatchHidden.apply(h, t, record, clip) if watched or clip is not None else h, *c)
        outputs.append(state[0])
    return torch.stack(outputs), state


def fused(cell: str, input: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
    """ATen's fused recurrence, without resets: the outputs [T, B, H] and the final state."""
    if cell == "lstm" and input.is_cpu and dtype_of_products(input) == torch.float16:  # oneDNN refuses float16
        return unrolled(cell, input, state, weights, None, None)
    parameters = [w for w in weights if w is not None]
    # has_biases, num_layers, dropout, train, bidirectional, batch_first
    how = (len(parameters) == 4, 1, 0.0, traced() or torch.is_grad_enabled(), False, False)
    before = [s.unsqueeze(0).contiguous() for s in state]
    aten: Any = ATEN[cell]
    if cell == "lstm":
        output, h, c = aten(input, before, parameters, *how)
        return output, (h[0], c[0])
    output, h = aten(input, before[0], parameters, *how)
    return output, (h[0],)


def library_is_faster(cell: str, input: Tensor, reset: Tensor | None, clip: Clip | None) -> bool:
    """Whether ATen's fused recurrence has these options and is the faster choice: on a CPU only oneDNN's LSTM is."""
    if clip is not None or cell not in ATEN:
        return False
    fused_here = (torch.float32, torch.bfloat16) if torch.backends.mkldnn.enabled else ()
    return not input.is_cpu or (cell == "lstm" and reset is None and dtype_of_products(input) in fused_here)


def between_resets(cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None) -> tuple[Tensor, State]:
    """``fused`` with resets: run up to the next reset, zero those rows, and continue. Documents are long, so resets are
    rare.
    """
    if reset is None:
        return fused(cell, input, state, weights)
    starts = [t for t in reset.any(dim=1).nonzero().flatten().tolist() if t > 0]
    outputs = []
    for begin, end in zip([0, *starts], [*starts, len(input)], strict=True):
        keep = ~reset[begin].unsqueeze(1)
        state = tuple(torch.where(keep, s, torch.zeros_like(s)) for s in state)
        output, state = fused(cell, input[begin:end], state, weights)
        outputs.append(output)
    return torch.cat(outputs), state


def _by_library(
    cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, clip: Clip | None
) -> tuple[Tensor, State]:
    tensors = (input, *weights, *state)
    output, final = between_resets(cell, input, state, weights, reset)
    if asks_for_gradients(tensors):
        output, *rest = Watch.apply(cell, reset, halves(input), output, *final, *tensors)
        final = tuple(rest)
    return output, final


def _by_scan(
    cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, clip: Clip | None
) -> tuple[Tensor, State]:
    tensors = (input, *weights, *state)
    if asks_for_gradients(tensors):
        output, *final = Scan.apply(cell, reset, clip, halves(input), *tensors)
        return output, tuple(final)
    with torch.no_grad(), without_autocast(input.device):
        kept = _scanned(cell, tensors, reset, halves(input))
    return kept.hs[1:], kept.final()


def asks_for_gradients(tensors: Sequence[Tensor | None]) -> bool:
    """Whether autograd will need the gradient of any of these tensors."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def halves(input: Tensor) -> bool:
    """Whether products may read their operands as bfloat16."""
    return dtype_of_products(input) == torch.bfloat16


def widened(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """All tensors in the widest of their dtypes, at least float32: under autocast an input may have 16 bits, and weights 32."""
    dtype = reduce(torch.promote_types, [t.dtype for t in tensors if t is not None], torch.float32)
    return [None if t is None else t.to(dtype) for t in tensors]


def _scanned(cell: str, tensors: Sequence[Tensor | None], reset: Tensor | None, halves: bool) -> Kept:
    input, *weights = widened(tensors)
    return scan_forward(cell, input, tuple(weights[4:]), Weights(*weights[:4]), reset, halves)  # type: ignore[arg-type]


# Backward


# Neither class has ``setup_context``: with it each call inspects signatures for 0.1 ms, and torch.func, which asks for it, runs
# unrolled.


class Watch(torch.autograd.Function):
    """Identity on a library's results; inside ``trace_gradients`` its backward pass replaces the library's by the scan's.

    ``apply(cell, reset, halves, *results, *tensors)``: the output and the final states, then the tensors of ``Scan``.
    """

    @staticmethod
    def forward(ctx: Any, cell: str, reset: Tensor | None, halves: bool, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        count = 1 + CELLS[cell].states
        ctx.save_for_backward(reset, tensors[0], *tensors[count:])
        ctx.how = (cell, halves, count)
        ctx.set_materialize_grads(False)
        return tuple(r.detach() for r in tensors[:count] if r is not None)  # no views: the caller may change these in place

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        cell, halves, count = ctx.how
        if tracing() is None:
            return (None, None, None, *grads, *[None] * (4 + count))
        reset, output, *tensors = ctx.saved_tensors
        with torch.no_grad(), without_autocast(output.device):
            output, input, *weights = widened((output, *tensors))
            own = Weights(*weights[:4])  # type: ignore[arg-type]
            kept = kept_of_output(cell, input, output, tuple(weights[4:]), own, reset, halves)  # type: ignore[arg-type]
        gradients = _gradients(cell, tensors, reset, kept, grads, None, halves, ctx.needs_input_grad[-len(tensors) :])
        if torch.is_grad_enabled():  # a second derivative needs the library's gradients, whose history autograd knows
            return (None, None, None, *grads, *[None] * len(tensors))
        return (None, None, None, *[None] * count, *gradients)


class Scan(torch.autograd.Function):
    """A layer by ``host_scan``: output and final states. ``apply(cell, reset, clip, halves, *tensors)``.

    ``tensors`` are input, weight_ih, weight_hh, bias_ih, bias_hh and the states before the first step.
    """

    @staticmethod
    def forward(
        ctx: Any, cell: str, reset: Tensor | None, clip: Clip | None, halves: bool, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        with without_autocast(next(t for t in tensors if t is not None).device):
            kept = _scanned(cell, tensors, reset, halves)
        ctx.save_for_backward(reset, *kept, *tensors)
        ctx.how = (cell, clip, halves)
        ctx.set_materialize_grads(False)
        return (kept.hs[1:].clone(), *kept.final())  # the caller may change the output in place

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        cell, clip, halves = ctx.how
        reset, hs, gates, cs, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[4:]
        again = torch.is_grad_enabled() or transformed() or batched_gradient(*grads)
        gradients: list[Tensor | None] = []
        if not again or tracing() is not None:
            gradients = _gradients(cell, tensors, reset, Kept(hs, gates, cs), grads, clip, halves, needed)
        if again:
            gradients = differentiable_gradients(cell, tensors, reset, grads, clip, needed)
        return (None, None, None, None, *gradients)


def _gradients(
    cell: str,
    tensors: Sequence[Tensor | None],
    reset: Tensor | None,
    kept: Kept,
    grads: Sequence[Tensor | None],
    clip: Clip | None,
    halves: bool,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of ``scan_backward``, each in its tensor's dtype."""
    with torch.no_grad(), without_autocast(kept.hs.device):
        input, *weights = widened(tensors)[:5]
        upstream = [None if g is None else g.to(kept.hs.dtype) for g in grads]
        own = Weights(*weights)  # type: ignore[arg-type]
        gradients = scan_backward(cell, kept, input, own, reset, upstream, clip, halves, tracing(), needed)  # type: ignore[arg-type]
        return [g if g is None or t is None else g.to(t.dtype) for g, t in zip(gradients, tensors, strict=True)]


def differentiable_gradients(
    cell: str,
    tensors: list[Tensor | None],
    reset: Tensor | None,
    grads: tuple[Tensor | None, ...],
    clip: Clip | None,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    """The gradients of the unrolled layer, which can be differentiated again.

    Args:
        tensors: input, weight_ih, weight_hh, bias_ih, bias_hh and the states before the first step.
        grads: of the output and of the final states; None for zero.
        needed: for each of ``tensors``, whether its gradient is asked for.

    Returns:
        A gradient for each of ``tensors``, or None.
    """
    device = next(t for t in tensors if t is not None).device
    with torch.enable_grad(), without_autocast(device):
        # Views, so that each argument has its own gradient if one tensor is passed twice.
        own = [None if t is None else t.view_as(t) for t in widened(tensors)]
        input, *weights = own[:5]
        output, final = unrolled(cell, input, tuple(own[5:]), Weights(*weights), reset, clip)  # type: ignore[arg-type]
        results = [(r, g.to(r.dtype)) for r, g in zip((output, *final), grads, strict=True) if g is not None]
    wanted = [o for o, n in zip(own, needed, strict=True) if n and o is not None]
    if not results or not wanted:
        return [None] * len(needed)
    gradients = iter(
        torch.autograd.grad(
            [r for r, _ in results], wanted, [g for _, g in results], create_graph=torch.is_grad_enabled(), allow_unused=True
        )
    )
    filled = [next(gradients) if n and o is not None else None for o, n in zip(own, needed, strict=True)]
    return [g if g is None or t is None else g.to(t.dtype) for g, t in zip(filled, tensors, strict=True)]


# One operation under torch.compile and torch.export, which would unroll the loop


def _operation(
    cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, clip: Clip | None
) -> tuple[Tensor, State]:
    dtype = dtype_of_products(input)
    h0, *c0 = (s.to(dtype) for s in state)
    cast: list[Any] = [None if w is None else w.to(dtype) for w in weights]
    how = (cell, *(clip or ("none", 0.0)), asks_for_gradients((input, *state, *weights)))
    output, h, c, *_ = host_forward(input.to(dtype), h0, c0[0] if c0 else None, *cast, reset, *how)
    return output, (h, c) if c0 else (h,)


@torch.library.custom_op("recurrent_lm::host_forward", mutates_args=())
def host_forward(
    input: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: Tensor | None,
    cell: str,
    clip: str,
    limit: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The outputs [T, B, H], h(T) and c(T) [B, H], and with ``save`` a ``Kept``; parts that do not exist are empty."""
    state, weights = (h0,) if c0 is None else (h0, c0), Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    if not save and library_is_faster(cell, input, reset, None):
        output, final = between_resets(cell, input, state, weights, reset)
    else:
        kept = _scanned(cell, (input, *weights, *state), reset, halves(input))
        output, final = kept.hs[1:].to(input.dtype, copy=True), kept.final()
    h, c = (*(f.to(input.dtype) for f in final), input.new_empty(0))[:2]
    return output.contiguous(), h.contiguous(), c.contiguous(), *(kept if save else (input.new_empty(0) for _ in Kept._fields))


@host_forward.register_fake
def _(input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reset, cell, clip, limit, save):  # type: ignore[no-untyped-def]
    (steps, batch, _), hidden = input.shape, h0.shape[1]
    wide = torch.promote_types(input.dtype, torch.float32)
    states, gates = (steps + 1, batch, hidden), (steps, batch, 4 * hidden)
    kept = (states, gates if CELLS[cell].gates > 1 else 0, states if c0 is not None else 0) if save else (0, 0, 0)
    return (
        input.new_empty(steps, batch, hidden),
        input.new_empty(h0.shape),
        input.new_empty(h0.shape if c0 is not None else 0),
        *(input.new_empty(shape, dtype=wide if save else input.dtype) for shape in kept),
    )


@torch.library.custom_op("recurrent_lm::host_backward", mutates_args=())
def host_backward(
    grad_output: Tensor | None,
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
    gates: Tensor,
    cs: Tensor,
    cell: str,
    clip: str,
    limit: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of input, h0, c0, the two weights and the two biases; empty for an argument that is None."""
    tensors = [input, weight_ih, weight_hh, bias_ih, bias_hh, h0, *([] if c0 is None else [c0])]
    grads = (grad_output, grad_h, *([] if c0 is None else [grad_c]))
    how = (None if clip == "none" else (clip, limit), halves(input), [t is not None for t in tensors])
    gradients = _gradients(cell, tensors, reset, Kept(hs, gates, cs), grads, *how)
    d_input, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh, d_h0, d_c0 = (
        input.new_empty(0) if g is None else g.contiguous() for g in (*gradients, None)[:7]
    )
    return d_input, d_h0, d_c0, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh


@host_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_output, grad_h, grad_c, input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reset, hs, gates, cs, cell, clip, limit
):  # fmt: skip
    arguments = (input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
    return tuple(input.new_empty(0 if a is None else a.shape) for a in arguments)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:8], *output[3:])
    ctx.how = inputs[8:]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None, *_: Any) -> tuple[Any, ...]:
    cell, clip, limit, _ = ctx.how
    gradients = host_backward(grad_output, grad_h, grad_c, *ctx.saved_tensors, cell, clip, limit)
    needed = [g if n else None for g, n in zip([*gradients, None], ctx.needs_input_grad[:8], strict=True)]
    return (*needed, *[None] * len(ctx.how))


host_forward.register_autograd(_backward, setup_context=_setup_context)
