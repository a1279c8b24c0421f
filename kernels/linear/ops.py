"""The Triton scan of a linear cell as two torch operations, one for each direction; the input's product is outside of them."""

from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from recurrent_lm.kernels.backends import interpreted
from recurrent_lm.kernels.linear.blocks import linear_backward, linear_forward
from recurrent_lm.kernels.rnn.cells import State, Weights, step
from recurrent_lm.kernels.rnn.host import dtype_of_products, transformed, without_autocast
from recurrent_lm.kernels.rnn.launch import name_of
from recurrent_lm.kernels.rnn.norms import vector_norm
from recurrent_lm.kernels.rnn.trace import gate_norms, tracing
from recurrent_lm.kernels.rnn.watched import Clip

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
STEPS, UNITS = 64, 32  # of a tile, at most: 128 threads hold 16 numbers each of a, b and what is read
FUSION = {"enable_fp_fusion": True}  # the default changes between versions of Triton


def triton_has(input: Tensor) -> bool:
    """Whether the scan runs in the dtype of this input's products."""
    return dtype_of_products(input) in DTYPES


def triton_linear(
    cell: str, input: Tensor, state: State, weights: Weights, reset: Tensor | None, clip: Clip | None
) -> tuple[Tensor, State]:
    """``kernels.recurrence`` of a linear cell by the Triton scan, with shapes already checked.

    Raises:
        ValueError: for clipping, and for a dtype that the interpreter computes wrongly.
    """
    if clip is not None:
        raise ValueError(f"clip_recurrent of {cell} needs one step after another, and triton scans them; use backend 'torch'")
    dtype = dtype_of_products(input)
    if dtype not in DTYPES or (interpreted() and dtype == torch.bfloat16):
        allowed = [d for d in DTYPES if not interpreted() or d != torch.bfloat16]
        raise ValueError(f"input must be {', '.join(map(name_of, allowed))} for the triton backend here, not {name_of(dtype)}")
    sums = F.linear(input, weights.ih, weights.bias_ih).to(dtype)
    hs, h = scan_linear(sums, state[0].to(dtype), reset, input.detach(), cell)
    return hs, (h,)


@torch.library.custom_op("recurrent_lm::scan_linear", mutates_args=())
def scan_linear(sums: Tensor, h0: Tensor, reset: Tensor | None, input: Tensor, cell: str) -> tuple[Tensor, Tensor]:
    """All steps of a linear layer.

    Args:
        sums: [T, B, G * H], the input's product with its bias.
        h0: [B, H].
        reset: [T, B] bool, True where the state is zero before the step; None for nowhere.
        input: [T, B, I], of which a gradient trace needs the parts of dL/dW_z; nothing flows through it.
        cell: a key of ``LINEAR_CELLS``.

    Returns:
        The outputs [T, B, H] and h(T) [B, H].
    """
    (steps, batch, _), hidden = sums.shape, h0.shape[1]
    hs = sums.new_empty(steps, batch, hidden)
    if hs.numel():
        grid, options = _launch(steps, batch, hidden, reset, sums)
        with torch.cuda.device_of(sums):
            linear_forward[grid](sums.contiguous(), h0.contiguous(), _starts(reset, hs), hs, steps, batch, **options)
    return hs, hs[-1].clone()


@scan_linear.register_fake
def _(sums, h0, reset, input, cell):  # type: ignore[no-untyped-def]  # its signature is that of the operation above
    return sums.new_empty(*sums.shape[:2], h0.shape[1]), sums.new_empty(h0.shape)


@torch.library.custom_op("recurrent_lm::scan_linear_backward", mutates_args=())
def scan_linear_backward(
    grad: Tensor | None, grad_h: Tensor | None, sums: Tensor, h0: Tensor, reset: Tensor | None, hs: Tensor, trace: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the sums and of h0, and with ``trace`` dL/dh of every step [T, B, H] in the accumulator's type."""
    (steps, batch, _), hidden = sums.shape, h0.shape[1]
    acc = torch.promote_types(sums.dtype, torch.float32)
    sums, d = sums.contiguous(), sums.new_empty(sums.shape)
    dh = h0.new_zeros(h0.shape, dtype=acc) if grad_h is None else grad_h.to(acc, copy=True).contiguous()
    dhs = sums.new_empty(hs.shape if trace else 0, dtype=acc)
    if d.numel():
        grad = torch.zeros_like(hs) if grad is None else grad.contiguous()
        grid, options = _launch(steps, batch, hidden, reset, sums)
        with torch.cuda.device_of(sums):
            linear_backward[grid](
                grad, sums, h0.contiguous(), _starts(reset, hs), hs, dh, d, dhs if trace else d, steps, batch,
                TRACE=trace, **options,
            )  # fmt: skip
    return d, dh.to(h0.dtype, copy=True), dhs


@scan_linear_backward.register_fake
def _(grad, grad_h, sums, h0, reset, hs, trace):  # type: ignore[no-untyped-def]
    acc = torch.promote_types(sums.dtype, torch.float32)
    return sums.new_empty(sums.shape), h0.new_empty(h0.shape), sums.new_empty(hs.shape if trace else 0, dtype=acc)


def _launch(steps: int, batch: int, hidden: int, reset: Tensor | None, like: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    units = min(UNITS, triton.next_power_of_2(hidden))
    options = constants(name_of(like.dtype), hidden, reset is not None, min(STEPS, triton.next_power_of_2(steps)), units)
    return (batch, triton.cdiv(hidden, units)), options


def constants(dtype: str, hidden: int, reset: bool, steps: int = STEPS, units: int = UNITS) -> dict[str, Any]:
    """Constexprs and launch options of both bodies, for tiles of so many steps and units."""
    acc = triton.language.float64 if dtype == "float64" else triton.language.float32
    sizes = {"HIDDEN": hidden, "RESET": reset, "ACC": acc, "BLOCK_T": steps, "BLOCK_H": units}
    return sizes | {"num_warps": 4, "num_stages": 1} | FUSION


def _starts(reset: Tensor | None, unused: Tensor) -> Tensor:
    return unused if reset is None else reset.contiguous().view(torch.uint8)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:4], output[0])
    ctx.cell = inputs[4]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_h: Tensor | None) -> tuple[Any, ...]:
    sums, h0, reset, input, hs = ctx.saved_tensors
    again = not torch.compiler.is_compiling() and (torch.is_grad_enabled() or transformed())
    trace = tracing()
    gradients: tuple[Tensor | None, Tensor | None] = (None, None)
    if not again or trace is not None:
        with torch.no_grad(), without_autocast(sums.device):
            d, d_h0, dhs = scan_linear_backward(grad, grad_h, sums, h0, reset, hs, trace is not None)
        gradients = (d, d_h0)
        if trace is not None:
            trace.add(vector_norm(dhs, dim=-1), gate_norms(input, d))
    if again:
        gradients = _differentiable(ctx.cell, sums, h0, reset, grad, grad_h)
    return (*gradients, None, None, None)


def _differentiable(
    cell: str, sums: Tensor, h0: Tensor, reset: Tensor | None, grad: Tensor | None, grad_h: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of the unrolled steps, which can be differentiated again."""
    with torch.enable_grad(), without_autocast(sums.device):
        own = (sums.view_as(sums), h0.view_as(h0))
        h, outputs = own[1], []
        for t in range(len(sums)):
            h = h if reset is None else torch.where(reset[t].unsqueeze(1), torch.zeros_like(h), h)
            (h,) = step(cell, own[0][t], (h,))
            outputs.append(h)
        results = [(torch.stack(outputs), grad), (h, grad_h)]
        flowing = [(r, g) for r, g in results if g is not None]
        wanted = [o for o in own if o.requires_grad]
        create = torch.is_grad_enabled()
        found = iter(torch.autograd.grad([r for r, _ in flowing], wanted, [g for _, g in flowing], create_graph=create))
    return tuple(next(found) if o.requires_grad else None for o in own)  # type: ignore[return-value]


scan_linear.register_autograd(_backward, setup_context=_setup_context)
