"""Buffers and launches of the scans: packs torch.nn's weights for ``scan.py``, runs a plan, and unpacks the results.

Arguments are already checked; tensors here are padded and packed.
"""

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from recurrent_lm.kernels.backends import interpreted
from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.cells import CELLS, Weights
from recurrent_lm.kernels.rnn.norms import vector_norm
from recurrent_lm.kernels.rnn.plan import Device, Plan, Tiles
from recurrent_lm.kernels.rnn.scan import constants, finish, prepare, scan_backward, scan_forward

PROGRAMS_AT_ONCE = False  # whether the interpreter's programs run concurrently, as on a GPU
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@cache
def device_limits(index: int | None) -> Device:
    """Limits of the device with this index; the interpreter (None) has those of sm_90."""
    if index is None:
        return replace(plans.DEVICES["sm_90"], name="the interpreter")
    limits = triton.runtime.driver.active.utils.get_device_properties(index)
    major, minor = torch.cuda.get_device_capability(index)
    return Device(f"sm_{major}{minor}", limits["max_shared_mem"], limits["multiprocessor_count"], major in (9, 10))


def name_of(dtype: torch.dtype) -> str:
    """``torch.float16`` to "float16"."""
    return str(dtype).removeprefix("torch.")


def plan_for(batch: int, steps: int, hidden: int, cell: str, tensor: Tensor, strategy: str | None, exchange: str) -> Plan:
    """``plan.choose`` for a tensor's device and dtype.

    The interpreter runs programs one after another, so an exchange between them would never end: no such plan is chosen there,
    and one that is asked for by name is refused at its launch.
    """
    device = device_limits(tensor.device.index if tensor.is_cuda else None)
    sizes = (batch, steps, hidden, cell, name_of(tensor.dtype), device)
    if not strategy and not tensor.is_cuda:
        strategy = "stepwise" if plans.predict(*sizes)["resident"].plan is None else "resident"
    return _choose(*sizes, strategy or None, exchange)


_choose = lru_cache(maxsize=4096)(plans.choose)  # a search takes longer than a short sequence, and every call asks


def _missing(gate_slots: tuple[int, ...], slots: int) -> int:
    """The slot that no gate fills, or ``slots`` if there is none; gates fill the others in order."""
    left = [slot for slot in range(slots) if slot not in gate_slots]
    assert len(left) <= 1
    assert sorted(gate_slots) == list(gate_slots)
    return left[0] if left else slots


def _packing(cell: str, units: int, like: Tensor, *sizes: tuple[int, int]) -> tuple[int, dict[str, int]]:
    """The number of programs for matrices of these sizes, and the constexprs of ``prepare`` and ``finish``."""
    kind = CELLS[cell]
    elements = 2048 if like.is_cuda or not interpreted() else 16384  # an interpreted program takes as long for many as for one
    columns = min(256, units)
    rows = elements // columns
    programs = max(triton.cdiv(height, rows) * triton.cdiv(width, columns) for height, width in sizes)
    slots = {"MISSING_IH": _missing(kind.input_slots, kind.slots), "MISSING_HH": _missing(kind.hidden_slots, kind.slots)}
    return min(programs, 264), slots | {"UNITS": units, "SLOTS": kind.slots, "ROWS": rows, "COLUMNS": columns}


@dataclass(frozen=True)
class Layer:
    """One layer's weights, packed for a plan, and the buffers of one launch of its scan."""

    cell: str
    plan: Plan
    hidden: int  # units, of which the plan has P
    w: Tensor  # [width, P], of the state; transposed if ``w_transposed``
    u: Tensor | None  # [width, I], of the input
    bias: Tensor | None  # [width], of both
    h_first: Tensor  # [B, P], the state before the first step
    zeros: Tensor  # 32-bit words that are zero

    @property
    def slots(self) -> int:
        """Slots of a unit."""
        return CELLS[self.cell].slots

    @property
    def width(self) -> int:
        """Slots of all padded units."""
        return self.slots * self.plan.hidden

    @property
    def padded(self) -> bool:
        """Whether there are units of padding."""
        return self.hidden != self.plan.hidden


def prepared(
    cell: str,
    plan: Plan,
    weights: Weights,
    like: Tensor,
    h0: Tensor,
    *padding: tuple[Tensor | None, Tensor],
    words: Tensor | None,
    ones: int,
    zeros: int,
    bias: bool,
    input: bool = True,
    transposed: bool = False,
) -> Layer:
    """Launch ``prepare``.

    Args:
        cell, plan, weights: what the layer is made of.
        like: a tensor of the scan's dtype.
        h0: [B, H], becomes [B, P].
        padding: at most two pairs of [B, H], or None for zeros, and the [B, P] that it goes to.
        words, ones: the first ``ones`` 32-bit words of ``words`` get ones in all bits, the others are zero.
        zeros: the number of words that are zero elsewhere.
        bias, input: whether to pack the biases and the input's weights.
        transposed: whether W is transposed.
    """
    kind, units, hidden, features = CELLS[cell], plan.hidden, weights.hh.shape[1], weights.ih.shape[1]
    width, batch = kind.slots * units, h0.shape[0]
    given = Weights(*(None if w is None else w.contiguous() for w in weights))  # type: ignore[arg-type]
    w = like.new_empty((units, width) if transposed else (width, units))
    u = like.new_empty(width, features) if input else None
    both = like.new_empty(width) if bias and given.bias_ih is not None and given.bias_hh is not None else None
    h_first = h0.contiguous()
    states: list[Tensor | None] = [None, None]
    if hidden != units or h0.dtype != like.dtype:
        states = [h_first, like.new_empty(batch, units)]
        h_first = states[1]  # type: ignore[assignment]
    for source, target in padding:
        states += [None if source is None else source.contiguous(), target]
    states += [None] * (6 - len(states))
    clear = torch.empty(zeros, dtype=torch.int32, device=like.device)
    fill = clear[:0] if words is None else words
    programs, options = _packing(cell, units, like, (width, max(units, features)), (batch, units), (len(fill) // units, units))
    with torch.cuda.device_of(like):  # Triton launches on the current device, whatever tensors it gets
        prepare[(programs, 8)](
            given.hh, w, given.ih, u, given.bias_ih, given.bias_hh, both, *states, fill, clear,
            hidden, features, batch, ones, len(fill), zeros, TRANSPOSED=transposed, **options,
        )  # fmt: skip
    return Layer(cell, plan, hidden, w, u, both, h_first, clear)


def unpacked(
    layer: Layer, weights: Weights, d_w: Tensor, d_u: Tensor, d_bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The gradients of ``weights.ih``, ``weights.hh`` and both biases from those of packed weights: one launch."""
    rows, features = weights.ih.shape
    hh, ih = (w.new_empty(w.shape) for w in (weights.hh, weights.ih))  # contiguous, whatever the weights are
    biases = [None, None] if d_bias is None else [d_bias.new_empty(rows, dtype=weights.ih.dtype) for _ in range(2)]
    programs, options = _packing(layer.cell, layer.plan.hidden, d_w, (rows, max(layer.hidden, features)))
    with torch.cuda.device_of(d_w):
        finish[(programs, 4)](d_w, hh, d_u, ih, d_bias, *biases, layer.hidden, features, rows, **options)
    return ih, hh, *biases


def input_part(layer: Layer, input: Tensor) -> Tensor:
    """The input's part of the sums, with the biases: one product for all steps.

    Args:
        layer: the packed weights.
        input: [T, B, I].

    Returns:
        z [T, B, width], a new tensor.
    """
    assert layer.u is not None
    steps, batch, features = input.shape
    z = F.linear(input.reshape(steps * batch, features), layer.u, layer.bias).view(steps, batch, layer.width)
    for slot in set(range(layer.slots)) - set(CELLS[layer.cell].input_slots):  # zero times an infinite input is NaN
        z.view(steps, batch, layer.plan.hidden, layer.slots)[..., slot] = (
            0 if layer.bias is None else layer.bias.view(-1, layer.slots)[:, slot]
        )
    return z


def fresh(exchange: str, *size: int, like: Tensor) -> Tensor:
    """A buffer that programs write once, filled with ones in every bit where that means "not written yet"."""
    buffer = like.new_empty(size)
    if exchange == "sentinel":
        buffer.view(INTEGERS[buffer.element_size()]).fill_(-1)
    return buffer


def exchanged(exchange: str, steps: int, *size: int, like: Tensor, after: bool = False) -> tuple[Tensor, Tensor, int]:
    """A buffer that programs write once, step by step.

    Args:
        exchange: of the plan.
        steps, size: [steps, *size] or, with ``after``, [steps + 1, *size], whose last row is zero.
        like: a tensor of the dtype.
        after: whether there is one row more.

    Returns:
        The buffer, the part of it that ``prepare`` fills as 32-bit words, and the number of words of ones, "not written yet".
    """
    buffer = like.new_empty(steps + after, *size)
    words = buffer.view(torch.int32).flatten()
    ones = len(words) // (steps + after) * steps
    return (buffer, words, ones) if exchange == "sentinel" else (buffer, words[ones:], 0)


def _grid(layer: Layer, tiles: Tiles, batch: int, like: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    blocks, batch_tiles = layer.plan.hidden // tiles.block_h, triton.cdiv(batch, tiles.block_b)
    if layer.plan.strategy != "cooperative":
        return (blocks, batch_tiles), {}
    if blocks > 1 and not (like.is_cuda or PROGRAMS_AT_ONCE):
        raise ValueError(
            f"plan 'cooperative' takes {blocks} programs that wait for each other, and the interpreter runs one after another, "
            "so this would never end; ask for 'resident' or 'stepwise', or use a GPU"
        )
    # All programs must run at once: there are never more than multiprocessors, and the launch fails if they do not fit.
    device = device_limits(like.device.index if like.is_cuda else None)
    return (blocks, max(1, min(batch_tiles, device.multiprocessors // blocks))), {"launch_cooperative_grid": True}


def run_forward(
    cell: str,
    plan: Plan,
    weights: Weights,
    input: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    reset: Tensor | None,
    save: bool,
    precision: str = "ieee",
    keep_gates: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
    """Run ``scan_forward`` and what comes before it.

    Args:
        cell, plan, weights: what the layer is made of.
        input: [T, B, I].
        h0, c0: [B, H]; c0 only for cells with c.
        reset: [T, B] bool, or None.
        save: whether a backward pass will need c of all steps.
        precision: of float32 products, as ``tl.dot`` names it.
        keep_gates: whether it will need the gates, too.

    Returns:
        h(1) .. h(T) as [T, B, P]; h(T) and c(T) [B, H]; c(0) .. c(T) [T + 1, B, P], or without ``save`` [1, B, P]; and
        [T, B, width], the gates if ``save`` and ``keep_gates``. What belongs to c is None for cells without it.
    """
    steps, batch, _ = input.shape
    tiles, units, hidden = plan.forward, plan.hidden, weights.hh.shape[1]
    hs, words, ones = exchanged(plan.exchange, steps, batch, units, like=input)
    cs = c_n = None
    if c0 is not None:
        cs, c_n = input.new_empty(steps + 1 if save else 1, batch, units), input.new_empty(batch, hidden)
    h_n = input.new_empty(batch, hidden)
    counters = triton.cdiv(batch, tiles.block_b) if plan.exchange == "counter" else 1
    layer = prepared(
        cell, plan, weights, input, h0, *([] if cs is None else [(c0, cs[0])]), words=words, ones=ones, zeros=counters,
        bias=True, transposed=input.element_size() > 2,  # as ``scan_forward`` wants it
    )  # fmt: skip
    z = input_part(layer, input)
    grid, options = _grid(layer, tiles, batch, z)
    switches = {"PADDED": layer.padded, "RESET": reset is not None, "SAVE": save, "KEEP_GATES": save and keep_gates}
    options |= constants(cell, plan, tiles, name_of(z.dtype), precision, **switches)
    starts = layer.zeros if reset is None else reset.contiguous().view(torch.uint8)
    c_first, c_last = (hs, h_n) if cs is None or c_n is None else (cs, c_n)
    with torch.cuda.device_of(z):
        if batch == 0:
            pass
        elif plan.strategy == "stepwise":
            for t in range(steps):
                before = layer.h_first if t == 0 else hs[t - 1]
                start = starts if reset is None else starts[t:]
                scan_forward[grid](
                    z[t], before, hs[t], c_first[t:] if save and cs is not None else c_first, h_n, c_last, layer.w, start,
                    layer.zeros, 1, batch, hidden, **options,
                )  # fmt: skip
        else:
            scan_forward[grid](
                z, layer.h_first, hs, c_first, h_n, c_last, layer.w, starts, layer.zeros, steps, batch, hidden, **options
            )  # fmt: skip
    return hs, h_n, c_n, cs, z


@dataclass(frozen=True)
class Backward:
    """Results of ``run_backward``: d [T, B, width], dL/dh and dL/dc before the first step [B, H], norms of dL/dh[t]."""

    d: Tensor
    dh: Tensor
    dc: Tensor | None
    norms: Tensor | None  # [T, B]


@dataclass(frozen=True)
class Ready:
    """A layer that is ready for ``run_backward``: its packed weights, the buffer of d and gradients of the final state."""

    layer: Layer
    d: Tensor  # [T + 1, B, width]
    dh: Tensor  # [B, P], in the accumulator's type, as are the next two
    dc: Tensor | None  # [B, P]
    parts: Tensor  # [2, B, parts, P]
    arrivals: Tensor


def ready_for_backward(
    cell: str,
    plan: Plan,
    weights: Weights,
    steps: int,
    h0: Tensor,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    *,
    bias: bool,
    input: bool,
) -> Ready:
    """Launch what comes before ``run_backward``.

    Args:
        cell, plan, weights: what the layer is made of.
        steps: T.
        h0: [B, H].
        grad_h, grad_c: [B, H], dL/d final state; None for zeros.
        bias, input: whether the biases and the input's weights will be needed.
    """
    batch, tiles, kind = h0.shape[0], plan.backward, CELLS[cell]
    acc = torch.promote_types(h0.dtype, torch.float32)
    d, words, ones = exchanged(plan.exchange, steps, batch, kind.slots * plan.hidden, like=h0, after=True)
    dh = h0.new_empty(batch, plan.hidden, dtype=acc)
    dc = torch.empty_like(dh) if kind.states == 2 else None
    counters = triton.cdiv(batch, tiles.block_b) * (1 + plan.hidden // tiles.block_h) if plan.exchange == "counter" else 1
    parts = 2 * batch * tiles.parts * plan.hidden * dh.element_size() // 4 if tiles.parts > 1 else 0
    layer = prepared(
        cell, plan, weights, h0, h0, (grad_h, dh), *([] if dc is None else [(grad_c, dc)]), words=words, ones=ones,
        zeros=parts + counters, bias=bias, input=input,
    )  # fmt: skip
    return Ready(layer, d, dh, dc, layer.zeros[:parts].view(acc) if parts else dh, layer.zeros[parts:])


def run_backward(
    ready: Ready,
    grad: Tensor,
    gates: Tensor,
    hs: Tensor,
    cs: Tensor,
    reset: Tensor | None,
    *,
    recompute: bool = False,
    clip: str = "none",
    limit: float = 0.0,
    trace: bool = False,
    precision: str = "ieee",
) -> Backward:
    """Run ``scan_backward``.

    Args:
        ready: from ``ready_for_backward``; one run overwrites it.
        grad: [T, B, P], dL/d outputs, contiguous.
        gates: [T, B, width]; with ``recompute`` the sums before them. Unused for Elman cells.
        hs, cs: from ``run_forward``.
        reset: [T, B] bool, or None.
        clip: "none", "value" (each element of dL/dh[t] to [-limit, limit]) or "norm" (each row's norm to ``limit``).
        trace: whether to return ||dL/dh[t]||, too.
        precision: of float32 products, as ``tl.dot`` names it.

    Returns:
        The gradients of the slots and of the state before the first step, and the norms.
    """
    layer, d, arrivals = ready.layer, ready.d, ready.arrivals
    steps, batch, _ = grad.shape
    plan, tiles, lstm = layer.plan, layer.plan.backward, ready.dc is not None
    dh, dc = ready.dh, ready.dh if ready.dc is None else ready.dc
    dh0 = grad.new_empty(batch, layer.hidden)
    dc0 = grad.new_empty(batch, layer.hidden) if lstm else None
    deferred = clip == "norm" and plan.strategy != "resident"
    grid, options = _grid(layer, tiles, batch, grad)
    norms = dh
    if trace or deferred:
        norms = fresh(plan.exchange if deferred else "none", steps + deferred, grid[0], batch, like=dh)
    e, dc_alone = d, dc
    if deferred:
        norms[steps] = 0
        if lstm:  # at the end no part of dL/dc can be clipped any more
            e, dc_alone, dc = fresh(plan.exchange, steps + 1, batch, layer.width, like=grad), dc, torch.zeros_like(dc)
            e[steps] = 0
    switches = {"PADDED": layer.padded, "RESET": reset is not None, "RECOMPUTE": recompute, "CLIP": clip, "TRACE": trace}
    options |= constants(layer.cell, plan, tiles, name_of(grad.dtype), precision, **switches)
    starts = arrivals if reset is None else F.pad(reset.view(torch.uint8), (0, 0, 0, 1)).contiguous()

    def launch(t: int, count: int, first: int) -> None:
        scan_backward[grid](
            grad[t:], gates[t:] if layer.slots > 1 else grad, layer.h_first if t == 0 else hs[t - 1], hs[t:],
            cs[t:] if lstm else grad, d[t:], dh, dc, dh0, dh0 if dc0 is None else dc0, layer.w,
            starts if reset is None else starts[t:], arrivals, ready.parts, norms[t:] if trace or deferred else norms, e[t:],
            dc_alone, count, batch, layer.hidden, limit, FIRST=first, **options,
        )  # fmt: skip

    with torch.cuda.device_of(grad):
        if batch == 0:
            pass
        elif plan.strategy == "stepwise":
            for t in reversed(range(steps)):
                launch(t, 1, 0)
            launch(0, 0, 1)
        else:
            launch(0, steps, 1)
    total, d = vector_norm(norms[:steps], dim=1) if trace or deferred else None, d[:steps]
    if deferred:
        assert total is not None
        d = (d * torch.where(total > limit, limit / total, 1.0)[:, :, None]).to(d.dtype)
        total = total.clamp(max=limit)
        if lstm:
            d = d + e[:steps]
    return Backward(d, dh0, dc0, total)
