"""Buffers and launches of the scans: packs torch.nn's weights for ``scan.py``, runs a plan, and unpacks the results.

Arguments are already checked; tensors here are padded and packed.
"""

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from recurrent_lm.kernels.rnn import plan as plans
from recurrent_lm.kernels.rnn.cells import CELLS, Weights
from recurrent_lm.kernels.rnn.norms import vector_norm
from recurrent_lm.kernels.rnn.plan import Device, Plan, Tiles
from recurrent_lm.kernels.rnn.scan import constants, scan_backward, scan_forward
from recurrent_lm.kernels.rnn.trace import products

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


# Packing: rows [G * H, K] as torch.nn has them, to slots of padded units, [slots * P, K]


def pack(rows: Tensor, gate_slots: tuple[int, ...], slots: int, units: int, columns: int) -> Tensor:
    """Pack rows as torch.nn has them into slots of padded units.

    Args:
        rows: [G * H, K].
        gate_slots: gate k becomes slot ``gate_slots[k]`` of each unit.
        slots: slots a unit; those without a gate are zero.
        units, columns: padded sizes.

    Returns:
        [units * slots, columns].
    """
    gates, (length, k) = len(gate_slots), rows.shape
    hidden = length // gates
    by_unit = rows.reshape(gates, hidden, k).transpose(0, 1)
    if gates == slots and (hidden, k) == (units, columns):
        return by_unit.reshape(units * slots, columns).contiguous()
    packed = rows.new_zeros(units, slots, columns)
    ends = [gate for gate in range(1, gates) if gate_slots[gate] > gate_slots[gate - 1] + 1] + [gates]
    for first, end in pairwise([0, *ends]):  # adjacent slots are one copy
        packed[:hidden, gate_slots[first] : gate_slots[end - 1] + 1, :k] = by_unit[:, first:end]
    return packed.view(units * slots, columns)


def unpack(packed: Tensor, gate_slots: tuple[int, ...], slots: int, hidden: int, columns: int) -> Tensor:
    """The inverse of ``pack``: [units * slots, columns] to [G * H, K]."""
    units = packed.view(-1, slots, packed.shape[-1])[:hidden, :, :columns]
    return torch.cat([units[:, slot] for slot in gate_slots]).contiguous()


def padded_state(state: Tensor, units: int) -> Tensor:
    """[B, H] to [B, units], contiguous; returns the tensor itself if it already has this form, so callers must not write to
    it.
    """
    return state.contiguous() if state.shape[-1] == units else pad(state, units)


def pad(state: Tensor, units: int, dtype: torch.dtype | None = None) -> Tensor:
    """[..., H] to a new [..., units]."""
    hidden = state.shape[-1]
    if hidden == units:
        return state.to(dtype or state.dtype, copy=True, memory_format=torch.contiguous_format)
    padded = state.new_zeros(*state.shape[:-1], units, dtype=dtype)
    padded[..., :hidden] = state
    return padded


@dataclass(frozen=True)
class Layer:
    """One layer's weights, packed for a plan."""

    cell: str
    plan: Plan
    hidden: int  # units, of which the plan has P
    w: Tensor  # [width, P], of the state
    u: Tensor  # [width, I], of the input
    bias: Tensor | None  # [width], of both

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


def pack_layer(cell: str, plan: Plan, weights: Weights, biases: bool = True) -> Layer:
    """Pack torch.nn's weights into a ``Layer``; most of the backward pass has no use for the biases, and packs none."""
    kind, units, features = CELLS[cell], plan.hidden, weights.ih.shape[1]
    bias = None
    if not biases or weights.bias_ih is None or weights.bias_hh is None:
        pass
    elif kind.input_slots == kind.hidden_slots:
        bias = pack((weights.bias_ih + weights.bias_hh)[:, None], kind.input_slots, kind.slots, units, 1).flatten()
    else:
        bias = pack(weights.bias_ih[:, None], kind.input_slots, kind.slots, units, 1)
        bias = (bias + pack(weights.bias_hh[:, None], kind.hidden_slots, kind.slots, units, 1)).flatten()
    w = pack(weights.hh, kind.hidden_slots, kind.slots, units, units)
    return Layer(cell, plan, weights.hh.shape[1], w, pack(weights.ih, kind.input_slots, kind.slots, units, features), bias)


def input_part(layer: Layer, input: Tensor) -> Tensor:
    """The input's part of the sums, with the biases: one product for all steps.

    Args:
        layer: the packed weights.
        input: [T, B, I].

    Returns:
        z [T, B, width], a new tensor.
    """
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


def _arrivals(plan: Plan, count: int, like: Tensor) -> Tensor:
    """Zeroed counters for an exchange that counts arrivals; otherwise one unused element, which the kernels' signature
    requires.
    """
    if plan.exchange == "counter":
        return torch.zeros(count, dtype=torch.int32, device=like.device)
    return like.new_empty(1, dtype=torch.int32)


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
    layer: Layer,
    z: Tensor,
    h0: Tensor,
    cs: Tensor,
    reset: Tensor | None,
    save: bool,
    precision: str = "ieee",
    keep_gates: bool = True,
) -> Tensor:
    """Run ``scan_forward``; z becomes the gates if ``save`` and ``keep_gates``.

    Args:
        layer: the packed weights and the plan.
        z: [T, B, width].
        h0: [B, P].
        cs: [T + 1, B, P], or [1, B, P] without ``save``; holds c before the first step. Unused for cells without c.
        reset: [T, B] bool, or None.
        save: whether a backward pass will need c of all steps.
        precision: of float32 products, as ``tl.dot`` names it.
        keep_gates: whether it will need the gates, too.

    Returns:
        h(1) .. h(T) as [T, B, P].
    """
    steps, batch, _ = z.shape
    tiles, units = layer.plan.forward, layer.plan.hidden
    hs = fresh(layer.plan.exchange, steps, batch, units, like=z)
    grid, options = _grid(layer, tiles, batch, z)
    arrivals = _arrivals(layer.plan, triton.cdiv(batch, tiles.block_b), z)
    switches = {"PADDED": layer.padded, "RESET": reset is not None, "SAVE": save, "KEEP_GATES": save and keep_gates}
    options |= constants(layer.cell, layer.plan, tiles, name_of(z.dtype), precision, **switches)
    starts = arrivals if reset is None else reset.contiguous().view(torch.uint8)
    w = layer.w if z.element_size() == 2 else layer.w.t().contiguous()  # as ``scan_forward`` wants it
    if batch == 0:
        return hs
    with torch.cuda.device_of(z):  # Triton launches on the current device, whatever tensors it gets
        if layer.plan.strategy == "stepwise":
            for t in range(steps):
                before = h0 if t == 0 else hs[t - 1]
                start = starts if reset is None else starts[t:]
                scan_forward[grid](
                    z[t], before, hs[t], cs[t:] if save and layer.cell == "lstm" else cs, w, start, arrivals,
                    1, batch, layer.hidden, **options,
                )  # fmt: skip
        else:
            scan_forward[grid](z, h0, hs, cs, w, starts, arrivals, steps, batch, layer.hidden, **options)
    return hs


@dataclass(frozen=True)
class Backward:
    """Results of ``run_backward``: d [T, B, width], dL/dh before the first step, dL/dc [B, P], norms of dL/dh[t]."""

    d: Tensor
    dh: Tensor
    dc: Tensor
    norms: Tensor | None  # [T, B]


def run_backward(
    layer: Layer,
    grad: Tensor,
    gates: Tensor,
    h0: Tensor,
    hs: Tensor,
    cs: Tensor,
    dh: Tensor,
    dc: Tensor,
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
        layer: the packed weights and the plan.
        grad: [T, B, P], dL/d outputs, contiguous.
        gates: [T, B, width]; with ``recompute`` the sums before them. Unused for Elman cells.
        h0, hs, cs: as in ``run_forward``.
        dh, dc: [B, P] in the accumulator's type, dL/d final state; overwritten.
        reset: [T, B] bool, or None.
        clip: "none", "value" (each element of dL/dh[t] to [-limit, limit]) or "norm" (each row's norm to ``limit``).
        trace: whether to return ||dL/dh[t]||, too.

    Returns:
        The gradients of the slots and of the state before the first step, and the norms.
    """
    steps, batch, _ = grad.shape
    plan, tiles, lstm = layer.plan, layer.plan.backward, layer.cell == "lstm"
    deferred = clip == "norm" and plan.strategy != "resident"
    d = fresh(plan.exchange, steps, batch, layer.width, like=grad)
    after = grad.new_zeros(batch, layer.width)
    grid, options = _grid(layer, tiles, batch, grad)
    arrivals = _arrivals(plan, triton.cdiv(batch, tiles.block_b) * (1 + grid[0]), grad)
    parts = dh.new_zeros(2, batch, tiles.parts, plan.hidden) if tiles.parts > 1 else dh
    norms = fresh(plan.exchange if deferred else "none", steps, grid[0], batch, like=dh) if trace or deferred else dh
    none_after = dh.new_zeros(grid[0], batch) if deferred else dh
    e, dc_alone = d, dc
    if deferred and lstm:  # at the end no part of dL/dc can be clipped any more
        e, dc_alone, dc = fresh(plan.exchange, steps, batch, layer.width, like=grad), dc, torch.zeros_like(dc)
    switches = {"PADDED": layer.padded, "RESET": reset is not None, "RECOMPUTE": recompute, "CLIP": clip, "TRACE": trace}
    options |= constants(layer.cell, plan, tiles, name_of(grad.dtype), precision, **switches)
    starts = arrivals if reset is None else F.pad(reset.view(torch.uint8), (0, 0, 0, 1)).contiguous()

    def launch(t: int, count: int) -> None:
        last = t + count == steps
        scan_backward[grid](
            grad[t:], gates[t:] if layer.slots > 1 else grad, h0 if t == 0 else hs[t - 1], hs[t:], cs[t:] if lstm else grad,
            d[t:], after if last else d[t + 1], dh, dc, layer.w, starts if reset is None else starts[t:], arrivals, parts,
            norms[t:] if trace or deferred else norms, none_after if last or not deferred else norms[t + 1],
            e[t:], after if last else e[t + 1], dc_alone, count, batch, layer.hidden, limit, **options,
        )  # fmt: skip

    with torch.cuda.device_of(grad):
        if batch == 0:
            pass
        elif plan.strategy == "stepwise":
            for t in reversed(range(steps)):
                launch(t, 1)
        else:
            launch(0, steps)
    total = vector_norm(norms, dim=1) if trace or deferred else None
    first = products(d[:1], layer.w[None])[0]
    dh = dh + first if reset is None else dh + first.masked_fill(reset[0, :, None], 0)
    if deferred:
        assert total is not None
        scale = torch.where(total > limit, limit / total, 1.0)[:, :, None]
        dh, d = dh * scale[0], (d * scale).to(d.dtype)
        total = total.clamp(max=limit)
        if lstm:
            first = products(e[:1], layer.w[None])[0]
            dh += first if reset is None else first.masked_fill(reset[0, :, None], 0)
            dc, d = dc * scale[0] + dc_alone, d + e
    return Backward(d, dh, dc, total)
