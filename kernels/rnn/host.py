"""The recurrence without kernels of its own: unrolled under autograd (``eager``), or by ATen's fused recurrences (``torch``).

ATen has no sigmoid and no identity cell and clips nothing: for these the backward pass is written out (``watched.py``). Which
way a call takes depends on what surrounds it:

    torch.func and forward mode   unrolled: every transform knows its operations
    torch.compile, torch.export   one operation, so that no length of sequence is compiled anew
    torch.jit.trace               ATen's operation alone, which a saved program can hold
    a second derivative           the first one is made once more, unrolled
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from recurrent_lm.kernels.rnn.cells import CELLS, State, Weights
from recurrent_lm.kernels.rnn.trace import tracing
from recurrent_lm.kernels.rnn.watched import Clip, StepRecord, WatchHidden, WatchWeight, gradients_by_hand, in_one_dtype

ATEN = {"rnn-tanh": torch.rnn_tanh, "rnn-relu": torch.rnn_relu, "gru": torch.gru, "lstm": torch.lstm}


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work."""
    return bool(torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0)


def traced() -> bool:
    """Whether torch.jit.trace is at work."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def under_autocast(device: torch.device) -> bool:
    """Whether autocast is on for tensors of this device; some devices, as "meta", know none."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def dtype_of_products(input: Tensor) -> torch.dtype:
    """Autocast's dtype where that is on, which leaves float64 alone; otherwise the input's. Results have it, too."""
    if input.dtype == torch.float64 or not under_autocast(input.device):
        return input.dtype
    return torch.get_autocast_dtype(input.device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """For backward passes, whose dtypes are those of the forward pass wherever they run."""
    return torch.autocast(device.type, enabled=False) if under_autocast(device) else nullcontext()


def host_recurrence(
    cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, clip: Clip | None, backend: str
) -> tuple[Tensor, State]:
    """``kernels.recurrence`` by the ``eager`` or the ``torch`` backend; shapes are checked there.

    Raises:
        NotImplementedError: for a gradient trace under torch.func, and under torch.jit.trace for what only a loop can do.
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
        output, final = _operation(cell, input, state, weights, reset, clip, backend)
    elif backend == "eager":
        output, final = unrolled(cell, input, state, weights, reset, clip, StepRecord(input.shape[0], input.shape[1], input))
    else:
        output, final = _by_aten(cell, input, state, weights, reset, clip)
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
    """The textbook, step by step; a gradient trace goes into ``record``."""
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
    """ATen's recurrence."""
    if cell == "lstm" and input.is_cpu and dtype_of_products(input) == torch.float16:  # which oneDNN refuses
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


def elman_loop(cell: str, input: Tensor, state: State, weights: Weights) -> tuple[Tensor, State]:
    """The cells that ATen does not have, without autograd."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    z = F.linear(input, weight_ih, None if bias_ih is None or bias_hh is None else bias_ih + bias_hh)
    output, h, weight = torch.empty_like(z), state[0].to(z.dtype), weight_hh.to(z.dtype).t()
    for row, now in zip(z.unbind(0), output.unbind(0), strict=True):
        torch.addmm(row, h, weight, out=now)
        h = now.sigmoid_() if cell == "rnn-sigmoid" else now
    return output, (h.clone(),)  # no view: who changes the output must not change the state


def between_resets(cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None) -> tuple[Tensor, State]:
    """Up to the next reset, zero those rows, go on: documents are long, so resets are rare."""
    run = fused if cell in ATEN else elman_loop
    if reset is None:
        return run(cell, input, state, weights)
    if reset.is_meta:  # nobody knows where
        return unrolled(cell, input, state, weights, reset, None)
    starts = [t for t in reset.any(dim=1).nonzero().flatten().tolist() if t > 0]
    outputs = []
    for begin, end in zip([0, *starts], [*starts, len(input)], strict=True):
        keep = ~reset[begin].unsqueeze(1)
        state = tuple(torch.where(keep, s, torch.zeros_like(s)) for s in state)
        output, state = run(cell, input[begin:end], state, weights)
        outputs.append(output)
    return torch.cat(outputs), state


def _by_aten(
    cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, clip: Clip | None
) -> tuple[Tensor, State]:
    tensors = (input, *weights, *state)
    if not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)):
        with torch.no_grad():
            return between_resets(cell, input, state, weights, reset)
    if clip is None and cell in ATEN:
        output, final = between_resets(cell, input, state, weights, reset)
        output, *rest = Watch.apply(cell, reset, output, *final, *tensors)
    else:
        output, *rest = ByHand.apply(cell, reset, clip, *tensors)
    return output, tuple(rest)


# Backward


class Watch(torch.autograd.Function):
    """A layer's results as they are; a backward pass inside ``trace_gradients`` also works the norms out.

    ``apply(cell, reset, *results, *tensors)``: the output and the final states, then the tensors of ``gradients_by_hand``.
    """

    @staticmethod
    def forward(ctx: Any, cell: str, reset: Tensor | None, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        results = tensors[: 1 + CELLS[cell].states]
        ctx.save_for_backward(reset, *tensors[len(results) :])
        ctx.cell, ctx.results = cell, len(results)
        ctx.set_materialize_grads(False)
        return tuple(r.detach() for r in results if r is not None)  # no views, which may not be changed in place

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        if tracing() is not None:
            reset, *tensors = ctx.saved_tensors
            with torch.no_grad():
                input, *weights = tensors[:5]
                output, _ = between_resets(ctx.cell, input, tuple(tensors[5:]), Weights(*weights), reset)
                gradients_by_hand(ctx.cell, tensors, reset, output, grads, None)
        return (None, None, *grads, *[None] * (5 + CELLS[ctx.cell].states))


class ByHand(torch.autograd.Function):
    """A layer whose backward pass is ``gradients_by_hand``. ``apply(cell, reset, clip, *tensors)``."""

    @staticmethod
    def forward(ctx: Any, cell: str, reset: Tensor | None, clip: Clip | None, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        input, *weights = tensors[:5]
        state = tuple(s for s in tensors[5:] if s is not None)
        assert input is not None
        output, final = between_resets(cell, input, state, Weights(*weights), reset)  # type: ignore[arg-type]
        ctx.save_for_backward(reset, output, *tensors)
        ctx.how = (cell, clip)
        ctx.set_materialize_grads(False)
        return output.clone(), *final  # the caller may change the output in place

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        cell, clip = ctx.how
        reset, output, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled() or transformed():
            gradients = differentiable_gradients(cell, tensors, reset, grads, clip, needed)
            if tracing() is not None:
                with torch.no_grad():
                    gradients_by_hand(cell, tensors, reset, output, grads, clip)
        else:
            gradients = gradients_by_hand(cell, tensors, reset, output, grads, clip)
        return (None, None, None, *(g if n else None for g, n in zip(gradients, needed, strict=True)))


def differentiable_gradients(
    cell: str,
    tensors: list[Tensor | None],
    reset: Tensor | None,
    grads: tuple[Tensor | None, ...],
    clip: Clip | None,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    """The gradients of ``gradients_by_hand`` through the unrolled layer, which can be differentiated again.

    ``needed`` are those of ``tensors`` that ask for one.
    """
    device = next(t for t in tensors if t is not None).device
    with torch.enable_grad(), without_autocast(device):
        # Views, so that each argument has its own gradient where one tensor is given twice.
        own = [None if t is None else t.view_as(t) for t in in_one_dtype(tensors)]
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
    found = [next(gradients) if n and o is not None else None for o, n in zip(own, needed, strict=True)]
    return [g if g is None or t is None else g.to(t.dtype) for g, t in zip(found, tensors, strict=True)]


# One operation under torch.compile and torch.export, which would unroll ATen's


def _operation(
    cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, clip: Clip | None, backend: str
) -> tuple[Tensor, State]:
    dtype = dtype_of_products(input)
    h0, *c0 = (s.to(dtype) for s in state)
    cast: list[Any] = [None if w is None else w.to(dtype) for w in weights]
    how = (cell, backend, *(clip or ("none", 0.0)))
    output, h, c = host_forward(input.to(dtype), h0, c0[0] if c0 else None, *cast, reset, *how)
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
    backend: str,
    clip: str,
    limit: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs [T, B, H], h(T) [B, H], c(T) [B, H], empty for cells without c."""
    state, weights = (h0,) if c0 is None else (h0, c0), Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    if backend == "eager":
        output, final = unrolled(cell, input, state, weights, reset, None)
    else:
        output, final = between_resets(cell, input, state, weights, reset)
    h, c = (*final, input.new_empty(0))[:2]
    return output.contiguous(), h.contiguous(), c.contiguous()


@host_forward.register_fake
def _(input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reset, cell, backend, clip, limit):  # type: ignore[no-untyped-def]
    output = input.new_empty(*input.shape[:2], h0.shape[1])
    return output, input.new_empty(h0.shape), input.new_empty(h0.shape if c0 is not None else 0)


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
    output: Tensor,
    cell: str,
    clip: str,
    limit: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, h0, c0, the two weights and the two biases; empty where there is no such argument."""
    tensors = [input, weight_ih, weight_hh, bias_ih, bias_hh, h0, *([] if c0 is None else [c0])]
    grads = (grad_output, grad_h, *([] if c0 is None else [grad_c]))
    gradients = gradients_by_hand(cell, tensors, reset, output, grads, None if clip == "none" else (clip, limit))
    d_input, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh, d_h0, d_c0 = (
        input.new_empty(0) if g is None else g.contiguous() for g in (*gradients, None)[:7]
    )
    return d_input, d_h0, d_c0, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh


@host_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_output, grad_h, grad_c, input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, reset, output, cell, clip, limit
):  # fmt: skip
    arguments = (input, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
    return tuple(input.new_empty(0 if a is None else a.shape) for a in arguments)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:8], output[0])
    ctx.how = inputs[8:]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None) -> tuple[Any, ...]:
    cell, _, clip, limit = ctx.how
    gradients = host_backward(grad_output, grad_h, grad_c, *ctx.saved_tensors, cell, clip, limit)
    needed = [g if n else None for g, n in zip([*gradients, None], ctx.needs_input_grad[:8], strict=True)]
    return (*needed, *[None] * len(ctx.how))


host_forward.register_autograd(_backward, setup_context=_setup_context)
