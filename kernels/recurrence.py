"""A recurrence over a whole sequence, one layer, by backend.

The input's part of every step, z = x W_e + b, is one large product; what is left is sequential. The ``eager`` backend
unrolls the step of ``cells.py`` under autograd. The ``torch`` backend calls ATen's fused recurrence where ATen has
one, and otherwise (sigmoid, identity) a scan whose backward pass is written out by hand.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.backends import asked_backend, choose_backend
from kernels.cells import CELLS, State
from kernels.watched import SCANS, Clip, StepRecord, Watch, WatchHidden, WatchWeight


def recurrence(
    cell: str,
    input: Tensor,
    state: State,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    clip_recurrent: Clip | None = None,
    backend: str | None = None,
    plan: str | None = None,
    recompute: bool = False,
    precision: str = "ieee",
) -> tuple[Tensor, State]:
    """Run one recurrent layer over a sequence.

    Args:
        cell: a key of ``kernels.CELLS``.
        input: [T, B, I], T >= 1.
        state: the state before the first step, (h,) or (h, c), each [B, H].
        weight_ih, weight_hh, bias_ih, bias_hh: [G * H, I], [G * H, H], [G * H], [G * H], as in torch.nn.
        reset: optional [T, B] bool; where True the state is zero before that step.
        clip_recurrent: ("value", c) clips each element of dL/dh(t) to [-c, c], ("norm", c) each row's norm to c, at every
            step inside the backward pass, before it goes on to step t - 1.
        backend: see ``kernels.choose_backend``; left open, CUDA tensors run ``triton`` where the plan predicts it to be
            faster (see ``kernels.explain``) and for what only it has: ``plan`` and, without unrolling, ``clip_recurrent``.
        plan: of the triton backend: "stepwise", "resident", "cooperative", or None to choose; see ``kernels.explain``.
        recompute: of the triton backend: rebuild the gates in the backward pass by one product instead of keeping them.
        precision: of the triton backend's float32 products: "ieee", or "tf32x3", "tf32" on tensor cores.

    Returns:
        The outputs h(1) .. h(T) as [T, B, H], and the state after the last step.

    Raises:
        ValueError: for an unknown cell or backend, and for shapes that do not fit, before anything runs.
    """
    _check(cell, input, state, weight_ih, weight_hh, bias_ih, bias_hh, reset)
    _check_options(clip_recurrent, precision)
    if (bias_ih is None) != (bias_hh is None):
        zero = weight_hh.new_zeros(len(weight_hh))
        bias_ih, bias_hh = (zero, bias_hh) if bias_ih is None else (bias_ih, zero)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    tensors = (input, *weights, *state)
    training = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    chosen = choose_backend(backend, input.device)
    if asked_backend(backend) is None and input.is_cuda:
        from kernels.scan_op import better_than_library

        wished = plan is not None or clip_recurrent is not None  # what the library's kernels do not have
        chosen = "triton" if wished or better_than_library(cell, input, weight_hh, training) else "torch"
    if chosen == "triton":
        from kernels.scan_op import triton_recurrence

        return triton_recurrence(
            cell, input, state, *weights, reset, plan=plan, clip=clip_recurrent, recompute=recompute, precision=precision
        )
    if plan is not None:
        raise ValueError(f"plan {plan!r} belongs to the triton backend, and the {chosen} backend was chosen")
    if chosen == "eager":
        return _eager(cell, input, state, *weights, reset, clip_recurrent)
    if not training:
        return _torch(cell, input, state, *weights, reset)
    by_hand = clip_recurrent is not None
    with torch.set_grad_enabled(not by_hand):
        output, final = _torch(cell, input, state, *weights, reset)
    output, *rest = Watch.apply(cell, reset, clip_recurrent, by_hand, len(state), output, *final, *tensors)
    return output, tuple(rest)


def _torch(
    cell: str,
    input: Tensor,
    state: State,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, State]:
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    if reset is None:
        return _fused(cell, input, state, *weights)
    # Documents are long, so resets are rare: run up to the next one, zero those rows, go on.
    starts = [t for t in reset.any(dim=1).nonzero().flatten().tolist() if t > 0]
    outputs = []
    for begin, end in zip([0, *starts], [*starts, len(input)], strict=True):
        keep = ~reset[begin].unsqueeze(1)
        state = tuple(torch.where(keep, s, torch.zeros_like(s)) for s in state)
        output, state = _fused(cell, input[begin:end], state, *weights)
        outputs.append(output)
    return torch.cat(outputs), state


def _eager(
    cell: str,
    input: Tensor,
    state: State,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: Tensor | None,
    clip: Clip | None,
) -> tuple[Tensor, State]:
    z = F.linear(input, weight_ih, bias_ih)
    watched = torch.is_grad_enabled() and (clip is not None or not torch.compiler.is_compiling())
    record = StepRecord(input.shape[0], input.shape[1], input)
    outputs = []
    for t in range(len(input)):
        if reset is not None:
            state = tuple(torch.where(reset[t].unsqueeze(1), torch.zeros_like(s), s) for s in state)
        weight = WatchWeight.apply(weight_hh, t, record) if watched else weight_hh
        h, *c = CELLS[cell].step(z[t], state, weight, bias_hh)
        state = (WatchHidden.apply(h, t, record, clip) if watched else h, *c)
        outputs.append(state[0])
    return torch.stack(outputs), state


def _fused(
    cell: str,
    input: Tensor,
    state: State,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
) -> tuple[Tensor, State]:
    if cell in SCANS:
        bias = None if bias_ih is None or bias_hh is None else bias_ih + bias_hh
        z = F.linear(input, weight_ih, bias)  # autocast chooses its dtype, and that of the rest
        output = _ElmanScan.apply(z, state[0].to(z.dtype), weight_hh.to(z.dtype), cell == "rnn-sigmoid")
        return output, (output[-1].clone(),)  # no view: who changes the output must not change the state
    parameters = [p for p in (weight_ih, weight_hh, bias_ih, bias_hh) if p is not None]
    has_bias = len(parameters) == 4
    # has_biases, num_layers, dropout, train, bidirectional, batch_first
    how = (has_bias, 1, 0.0, torch.is_grad_enabled(), False, False)
    before = [s.unsqueeze(0).contiguous() for s in state]
    if cell == "lstm":
        output, h, c = torch.lstm(input, before, parameters, *how)
        return output, (h[0], c[0])
    aten = {"rnn-tanh": torch.rnn_tanh, "rnn-relu": torch.rnn_relu, "gru": torch.gru}[cell]
    output, h = aten(input, before[0], parameters, *how)
    return output, (h[0],)


class _ElmanScan(torch.autograd.Function):
    """h[t] = s(z[t] + h[t-1] W_h), backward d[t] = s'(dh[t] + d[t+1] W_h^T); dW_h is one product after the loop."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, h0: Tensor, weight_hh: Tensor, sigmoid: bool) -> Tensor:
        output = torch.empty_like(z)
        before = h0
        for row, h in zip(z.unbind(0), output.unbind(0), strict=True):
            torch.addmm(row, before, weight_hh.t(), out=h)
            if sigmoid:
                h.sigmoid_()
            before = h
        ctx.save_for_backward(h0, output, weight_hh)
        ctx.sigmoid = sigmoid
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        h0, h, weight_hh = ctx.saved_tensors
        slope = h * (1 - h) if ctx.sigmoid else None
        d = torch.empty_like(grad)
        total = grad[-1]
        for t in reversed(range(len(grad))):
            d[t] = total if slope is None else total * slope[t]
            if t > 0:
                total = torch.addmm(grad[t - 1], d[t], weight_hh)
        weight_grad = torch.addmm(d[0].t() @ h0, d[1:].flatten(0, 1).t(), h[:-1].flatten(0, 1))
        return d, d[0] @ weight_hh, weight_grad, None


def _check(
    cell: str,
    input: Tensor,
    state: State,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: Tensor | None,
) -> None:
    if cell not in CELLS:
        raise ValueError(f"cell must be one of {', '.join(CELLS)}, not {cell!r}")
    if input.dim() != 3 or len(input) == 0:
        raise ValueError(f"input must be [T, B, I] with T >= 1, not {list(input.shape)}")
    if not input.is_floating_point():
        raise ValueError(f"input must hold floating point numbers, not {input.dtype}")
    if weight_hh.dim() != 2:
        raise ValueError(f"weight_hh must be [{CELLS[cell].gates} * H, H], not {list(weight_hh.shape)}")
    if len(state) != CELLS[cell].states:
        raise ValueError(f"state of {cell} must hold {CELLS[cell].states} tensors, not {len(state)}")
    steps, batch, features = input.shape
    hidden = weight_hh.shape[-1]
    packed = CELLS[cell].gates * hidden
    expected = {
        "weight_ih": (weight_ih, (packed, features)),
        "weight_hh": (weight_hh, (packed, hidden)),
        "bias_ih": (bias_ih, (packed,)),
        "bias_hh": (bias_hh, (packed,)),
        "reset": (reset, (steps, batch)),
    }
    expected |= {f"state[{i}]": (s, (batch, hidden)) for i, s in enumerate(state)}
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {list(shape)}, not {list(tensor.shape)}")
    if reset is not None and reset.dtype != torch.bool:
        raise ValueError(f"reset must be bool, not {reset.dtype}")
    for name, (tensor, _) in expected.items():
        if tensor is None:
            continue
        if tensor.device != input.device:
            raise ValueError(f"{name} must be on {input.device} as input is, not on {tensor.device}")
        if name != "reset" and tensor.dtype != input.dtype and not torch.is_autocast_enabled(input.device.type):
            raise ValueError(f"{name} must be {input.dtype} as input is, not {tensor.dtype}")


def check_clip(clip: Clip | None) -> None:
    """Refuse what is no recurrent clipping."""
    known = clip is None or (
        isinstance(clip, tuple | list) and len(clip) == 2 and clip[0] in ("value", "norm") and isinstance(clip[1], int | float)
    )
    if not known or (clip is not None and not clip[1] > 0):
        raise ValueError(f'clip_recurrent must be ("value", c) or ("norm", c) with c > 0, not {clip!r}')


def _check_options(clip: Clip | None, precision: str) -> None:
    check_clip(clip)
    if precision not in ("ieee", "tf32", "tf32x3"):
        raise ValueError(f"precision must be ieee, tf32 or tf32x3, not {precision!r}")
