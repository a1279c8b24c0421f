"""A recurrence over a whole sequence, as one Triton body for each direction.

    forward    h[t] = cell(z[t] + h[t-1] W)              t = 0 .. T-1
    backward   d[t] = cell'(dh[t] + d[t+1] W^T)          t = T-1 .. 0

z and d hold ``slots`` (``tile_cells.py``); the slots of a unit are adjacent, and ``width`` is SLOTS * HIDDEN. W is packed the
same way: [width, HIDDEN], its rows are slots and its columns units. HIDDEN is padded to whole tiles with weights of zero, so
products need no masks. Rows of the batch are masked. With padding (PADDED), sums of padded units are set to zero, because zero
times an infinity is NaN and would reach all units a step later.

Plans differ in the place of W and in the way that units reach other programs:

``stepwise``     one step a launch, W read from memory tile by tile
``resident``     one program a batch tile owns all units: W stays on chip, and the state never leaves the registers
``cooperative``  one program a block of units: its tiles of W stay on chip, the state travels each step (``exchange.py``)

``prepare`` packs weights and fills buffers before a scan, ``finish`` unpacks gradients after it.
"""

from dataclasses import replace
from typing import Any

import triton
import triton.language as tl

from recurrent_lm.kernels.rnn.cells import CELLS
from recurrent_lm.kernels.rnn.exchange import arrive, gather, meet, put, unpacked
from recurrent_lm.kernels.rnn.plan import Plan, Tiles
from recurrent_lm.kernels.tile_cells import gates_of, state_of, step_gradient, take
from recurrent_lm.kernels.tile_cells import put as put_slots

THREADS = tl.constexpr(256)  # of a program, at most


@triton.jit
def weight_tile(
    p_w,
    k,
    columns,
    K_STRIDE: tl.constexpr,
    COLUMN_STRIDE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    W_FIRST: tl.constexpr,
):
    """Load tile k of W: [BLOCK_K, columns], transposed if W_FIRST."""
    at = k * BLOCK_K + tl.arange(0, BLOCK_K)
    if W_FIRST:
        return tl.load(p_w + at[None, :] * K_STRIDE + columns[:, None] * COLUMN_STRIDE)
    else:
        return tl.load(p_w + at[:, None] * K_STRIDE + columns[None, :] * COLUMN_STRIDE)


@triton.jit
def resident_weights(
    p_w,
    columns,
    TILES: tl.constexpr,
    K_STRIDE: tl.constexpr,
    COLUMN_STRIDE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    W_FIRST: tl.constexpr,
):
    """Load all tiles of W before the loop over time, as a tuple that stays on chip."""
    tiles = ()
    for k in tl.static_range(TILES):
        tiles = tiles + (weight_tile(p_w, k, columns, K_STRIDE, COLUMN_STRIDE, BLOCK_K, W_FIRST),)
    return tiles


@triton.jit
def product(
    own,
    p_before,
    rows,
    live,
    present,
    p_w,
    weights,
    columns,
    p_arrivals,
    target,
    K: tl.constexpr,
    PITCH: tl.constexpr,
    N: tl.constexpr,
    COLUMNS: tl.constexpr,
    K_STRIDE: tl.constexpr,
    COLUMN_STRIDE: tl.constexpr,
    PLAN: tl.constexpr,
    EXCHANGE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    AHEAD: tl.constexpr,
    W_FIRST: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply the state of the step before by N columns of W: [BLOCK_B, K] x [K, N].

    ``p_before`` points to K numbers a row, rows PITCH apart; COLUMNS is the number of columns of the whole W. ``own`` is that
    step's tile in registers, which in the resident plan is all of it. ``present`` are the rows that the exchange reads: rows
    beyond the batch are replaced by its last row, which needs no masks and no cleared registers. Their sums are never stored.
    """
    PACK: tl.constexpr = 2 if EXCHANGE == "sentinel" and own.dtype.primitive_bitwidth == 16 else 1  # elements a polled word
    if PLAN == "resident":
        acc = tl.dot(own, weights[0], input_precision=PRECISION, out_dtype=ACC)
    elif PLAN == "stepwise":
        acc = tl.zeros((BLOCK_B, N), ACC)
        inner = tl.arange(0, BLOCK_K)
        # K // BLOCK_K, but unknown to the compiler, which would unroll the loop and spill
        for k in range(tl.num_programs(0) * N * K // COLUMNS // BLOCK_K):
            tile = tl.load(p_before + rows[:, None] * PITCH + (k * BLOCK_K + inner)[None, :], mask=live[:, None], other=0)
            w = weight_tile(p_w, k, columns, K_STRIDE, COLUMN_STRIDE, BLOCK_K, False)
            acc = tl.dot(tile, w, acc, input_precision=PRECISION, out_dtype=ACC)
    else:
        TILES: tl.constexpr = K // BLOCK_K
        offsets = present[:, None] * (PITCH // PACK) + tl.arange(0, BLOCK_K // PACK)[None, :]
        acc = tl.zeros((N, BLOCK_B) if W_FIRST else (BLOCK_B, N), ACC)
        for first in tl.static_range(0, TILES, AHEAD):
            p_tiles = p_before + first * BLOCK_K
            tiles = gather(
                p_tiles, offsets, None, p_arrivals, target, EXCHANGE, min(AHEAD, TILES - first), BLOCK_K, PACK
            )  # fmt: skip
            for k in tl.static_range(min(AHEAD, TILES - first)):
                if W_FIRST:
                    acc = tl.dot(weights[first + k], tl.trans(tiles[k]), acc, input_precision=PRECISION, out_dtype=ACC)
                else:
                    acc = tl.dot(tiles[k], weights[first + k], acc, input_precision=PRECISION, out_dtype=ACC)
        if W_FIRST:
            acc = tl.trans(acc)
    return acc


@triton.jit
def sum_of(z, acc, SLOTS: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """z + acc, slot by slot: the layout of the product is converted to that of loads and stores once, before the sum."""
    if SLOTS == 1:
        return z + acc
    else:
        z0, z1, z2, z3 = take(z, ROWS, UNITS)
        a0, a1, a2, a3 = take(acc, ROWS, UNITS)
        return put_slots(z0 + a0, z1 + a1, z2 + a2, z3 + a3, ROWS, UNITS)


@triton.jit
def store_state(
    p_h, p_c, h, c, rows, units, live, hidden, HIDDEN: tl.constexpr, CELL: tl.constexpr, PADDED: tl.constexpr
):  # fmt: skip
    """Store a tile of h, and of c for a cell that has it, to [B, hidden], where there is no padding."""
    at, mask = rows[:, None] * HIDDEN + units[None, :], live[:, None]
    if PADDED:
        at, mask = rows[:, None] * hidden + units[None, :], live[:, None] & (units[None, :] < hidden)
    tl.store(p_h + at, h.to(p_h.dtype.element_ty), mask=mask)
    if CELL == "lstm":
        tl.store(p_c + at, c.to(p_c.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["hidden"], do_not_specialize_on_alignment=["steps"])
def scan_forward(
    p_z,  # [T, B, width]: in, the input's part; out, the gates, if KEEP_GATES
    p_h0,  # [B, HIDDEN]
    p_hs,  # [T, B, HIDDEN]: out
    p_cs,  # [T + 1, B, HIDDEN], or without SAVE [1, ...]: in, c before the first step; out, c
    p_h_n,  # [B, hidden]: out, h after the last step
    p_c_n,  # [B, hidden]: out, c after it
    p_w,  # [width, HIDDEN]; of more than 16 bits [HIDDEN, width]
    p_reset,  # [T, B]: not 0 where the state is zero before the step
    p_arrivals,  # [batch tiles]: zeros
    steps,
    batch,
    hidden,  # units that are not padding
    CELL: tl.constexpr,
    SLOTS: tl.constexpr,
    HIDDEN: tl.constexpr,
    PLAN: tl.constexpr,
    EXCHANGE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    AHEAD: tl.constexpr,
    W_FIRST: tl.constexpr,
    PARTS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    PADDED: tl.constexpr,
    RESET: tl.constexpr,
    SAVE: tl.constexpr,
    KEEP_GATES: tl.constexpr,
):
    """Grid: (blocks of hidden units, batch tiles or fewer)."""
    WIDTH: tl.constexpr = SLOTS * HIDDEN
    N: tl.constexpr = SLOTS * BLOCK_H
    dtype: tl.constexpr = p_hs.dtype.element_ty
    PACK: tl.constexpr = 2 if dtype.primitive_bitwidth == 16 else 1
    # Without tensor cores threads read columns of W, adjacent in shared memory if they are in memory, else on one bank.
    K_STRIDE: tl.constexpr = 1 if PACK == 2 else WIDTH
    COLUMN_STRIDE: tl.constexpr = HIDDEN if PACK == 2 else 1
    p_words = p_z.to(tl.pointer_type(tl.int32), bitcast=True) if PACK == 2 else p_z
    units = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    columns = tl.program_id(0) * N + tl.arange(0, N)
    weights = ()
    if PLAN != "stepwise":
        weights = resident_weights(p_w, columns, HIDDEN // BLOCK_K, K_STRIDE, COLUMN_STRIDE, BLOCK_K, W_FIRST)
    step_of_h = tl.cast(batch, tl.int64) * HIDDEN
    step_of_z = tl.cast(batch, tl.int64) * WIDTH
    for tile in range(tl.program_id(1), tl.cdiv(batch, BLOCK_B), tl.num_programs(1)):
        rows = tile * BLOCK_B + tl.arange(0, BLOCK_B)
        live = rows < batch
        present = tl.minimum(rows, batch - 1)
        own = rows[:, None] * HIDDEN + units[None, :]
        slots = rows[:, None] * WIDTH + columns[None, :]
        # z is requested a step early, in words of 32 bits that are unpacked where they are used. With elements the compiler
        # would wait at the end of the step before; with a request in the same step, before the product.
        words = rows[:, None] * (WIDTH // PACK) + (tl.program_id(0) * (N // PACK) + tl.arange(0, N // PACK))[None, :]
        mask = live[:, None]
        h = tl.load(p_h0 + own, mask=mask, other=0)
        c = tl.zeros((BLOCK_B, BLOCK_H), ACC)
        if CELL == "lstm":
            c = tl.load(p_cs + own, mask=mask, other=0).to(ACC)
        z = tl.load(p_words + words, mask=mask, other=0)
        for t in range(steps):
            now = tl.cast(t, tl.int64)
            keep = live
            if RESET:
                keep = tl.load(p_reset + now * batch + rows, mask=live, other=0) == 0
                h = tl.where(keep[:, None], h, tl.zeros_like(h))
                c = tl.where(keep[:, None], c, 0.0)
            p_before = tl.where(t > 0, p_hs + (now - 1) * step_of_h, p_h0)
            acc = product(
                h, p_before, rows, live, present, p_w, weights, columns, p_arrivals + tile, t * tl.num_programs(0),
                HIDDEN, HIDDEN, N, WIDTH, K_STRIDE, COLUMN_STRIDE, PLAN, EXCHANGE, BLOCK_B, BLOCK_K, AHEAD, W_FIRST,
                ACC, PRECISION,
            )  # fmt: skip
            if RESET:
                acc = tl.where(keep[:, None], acc, 0.0)
            if CELL == "gru":  # n, to which the state's product does not contribute
                acc = tl.where(columns[None, :] % SLOTS == 2, 0.0, acc)
            z_now = unpacked(z, dtype, PACK)
            to_come = rows[:, None] < tl.where(t + 1 < steps, batch, 0)
            z = tl.load(p_words + (now + 1) * (step_of_z // PACK) + words, mask=to_come, other=0)
            pre = sum_of(z_now.to(ACC), acc, SLOTS, BLOCK_B, BLOCK_H)
            if PADDED:
                pre = tl.where(columns[None, :] < hidden * SLOTS, pre, 0.0)
            gates = gates_of(pre, CELL, BLOCK_B, BLOCK_H)
            h_new, c = state_of(gates, h.to(ACC), c, CELL, BLOCK_B, BLOCK_H)
            h = h_new.to(dtype)
            put(p_hs + now * step_of_h, own, h, mask, EXCHANGE)
            arrive(p_arrivals + tile, EXCHANGE)
            if CELL == "lstm":
                c = c.to(dtype).to(ACC)  # rounded as a step that reads c from memory has it
                if SAVE:
                    tl.store(p_cs + (now + 1) * step_of_h + own, c.to(dtype), mask=mask)
            if KEEP_GATES and SLOTS > 1:
                tl.store(p_z + now * step_of_z + slots, gates.to(dtype), mask=mask)
        store_state(p_h_n, p_c_n, h, c, rows, units, live, hidden, HIDDEN, CELL, PADDED)
        if CELL == "lstm" and PLAN == "stepwise" and not SAVE:
            tl.store(p_cs + own, c.to(dtype), mask=mask)


@triton.jit
def norms_of(x, AXIS: tl.constexpr):
    """Norms along an axis, right also where squares of elements overflow or underflow float32.

    Rows that are that large or small are first multiplied by a power of two: no other row changes, and no digit is lost.
    """
    largest = tl.max(tl.abs(x), axis=AXIS)
    large, small = largest > 2.0**50, largest < 2.0**-40
    x = x * tl.expand_dims(tl.where(large, 2.0**-80, tl.where(small, 2.0**86, 1.0)), AXIS)
    # A choice between product and sum: an fma rounds one square of a pair only, and lanes with one row would differ in it.
    squares = tl.where(x == x, x * x, x)
    return tl.sqrt(tl.sum(squares, axis=AXIS)) * tl.where(large, 2.0**80, tl.where(small, 2.0**-86, 1.0))


@triton.jit
def scale_of(norms, limit):
    """The factors that bring rows of these norms to a norm of at most ``limit``."""
    above = norms > limit
    return tl.where(above, limit / tl.where(above, norms, 1.0), 1.0)


@triton.jit
def clip_scale(p, rows, live, batch, limit, p_arrivals, target, BLOCKS: tl.constexpr, EXCHANGE: tl.constexpr):
    """``scale_of`` for each row, from the norms [BLOCKS, B] of its parts, which are exchanged with the tiles of a step.

    The tile has at least one element a thread: several threads load the same element of a smaller one, perhaps at two moments,
    and the check sees only one of them.
    """
    WHOLE: tl.constexpr = triton.next_power_of_2(BLOCKS)
    LEAST: tl.constexpr = THREADS // rows.shape[0]
    blocks = tl.arange(0, WHOLE if WHOLE > LEAST else LEAST)[:, None]
    mask = (blocks < BLOCKS) & live[None, :]
    norms = gather(p, blocks * batch + rows[None, :], mask, p_arrivals, target, EXCHANGE, 1, 0)
    return scale_of(norms_of(norms[0], 0), limit)


@triton.jit(do_not_specialize=["hidden"], do_not_specialize_on_alignment=["steps"])
def scan_backward(
    p_grad,  # [T, B, HIDDEN]: dL/d outputs
    p_gates,  # [T, B, width]: the gates, or with RECOMPUTE the sums before them; Elman: unused
    p_h0,  # [B, HIDDEN]
    p_hs,  # [T, B, HIDDEN]
    p_cs,  # [T + 1, B, HIDDEN]
    p_d,  # [T + 1, B, width]: out, the gradients of the slots; in, d of the step after the last
    p_dh,  # [B, HIDDEN], float32: in, dL/dh after the last step; out, without FIRST, the part that bypasses the product
    p_dc,  # [B, HIDDEN], float32: in, dL/dc after the last step; out, without FIRST, before it
    p_dh0,  # [B, hidden]: out, with FIRST, dL/dh before the first step
    p_dc0,  # [B, hidden]: out, with FIRST, dL/dc before it
    p_w,  # [width, HIDDEN]
    p_reset,  # [T + 1, B]: as forward, with one more row, which is 0
    p_arrivals,  # [batch tiles, then batch tiles x groups]: zeros
    p_parts,  # [2, B, PARTS, HIDDEN], float32: zeros; the parts of the product that meet, if PARTS > 1
    p_norms,  # [T + 1, blocks of units, B], float32: out, if TRACE or DEFER, the norms of the parts of dL/dh[t]
    p_e,  # [T + 1, B, width]: out, the part of d that is not clipped, if DEFER; as p_d
    p_dc_alone,  # [B, HIDDEN]: the part of dL/dc that is not clipped; p_dc then holds the rest
    steps,
    batch,
    hidden,
    limit,
    CELL: tl.constexpr,
    SLOTS: tl.constexpr,
    HIDDEN: tl.constexpr,
    PLAN: tl.constexpr,
    EXCHANGE: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    AHEAD: tl.constexpr,
    W_FIRST: tl.constexpr,
    PARTS: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
    PADDED: tl.constexpr,
    RESET: tl.constexpr,
    RECOMPUTE: tl.constexpr,
    CLIP: tl.constexpr,
    TRACE: tl.constexpr,
    FIRST: tl.constexpr,  # 1 or 0
):
    """Grid: (blocks of hidden units, batch tiles or fewer). With FIRST a launch ends with the first step of the sequence, and
    goes on to the state before it.

    Clipping by norm needs the norm over all units, which no program has when it stores its tile of d[t]. d is linear in dh, up
    to the LSTM's part e by way of c, so with DEFER the tile is stored unclipped, its norms beside it, and every reader scales
    the product: s * (d W^T) + e W^T. That takes one exchange a step, as without clipping.

    A row of d has SLOTS * HIDDEN numbers; loading all of them in every program takes longer than the product. With PARTS > 1
    that many programs form a group: each loads one part of the row and multiplies it for the units of the whole group, and a
    second, smaller exchange adds the parts of the sums.
    """
    WIDTH: tl.constexpr = SLOTS * HIDDEN
    DEFER: tl.constexpr = CLIP == "norm" and PLAN != "resident"
    dtype: tl.constexpr = p_d.dtype.element_ty
    # The gradients of the state before the first step leave the loop in registers, or are stored in its last round: beside sums
    # of tensor cores such registers spill, and for others each round would convert their layout, with four barriers.
    CARRIED: tl.constexpr = dtype.primitive_bitwidth > 16
    units = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    columns = tl.program_id(0) * BLOCK_H * SLOTS + tl.arange(0, BLOCK_H * SLOTS)
    K: tl.constexpr = WIDTH // PARTS
    N: tl.constexpr = BLOCK_H * PARTS
    part, group = tl.program_id(0) % PARTS, tl.program_id(0) // PARTS
    summed = group * N + tl.arange(0, N)  # the units of the group
    p_share = p_w + part * K * HIDDEN
    weights = ()
    if PLAN != "stepwise":
        weights = resident_weights(p_share, summed, K // BLOCK_K, HIDDEN, 1, BLOCK_K, W_FIRST)
    step_of_h = tl.cast(batch, tl.int64) * HIDDEN
    step_of_d = tl.cast(batch, tl.int64) * WIDTH
    for tile in range(tl.program_id(1), tl.cdiv(batch, BLOCK_B), tl.num_programs(1)):
        rows = tile * BLOCK_B + tl.arange(0, BLOCK_B)
        live = rows < batch
        present = tl.minimum(rows, batch - 1)
        mask = live[:, None]
        own = rows[:, None] * HIDDEN + units[None, :]
        slots = rows[:, None] * WIDTH + columns[None, :]
        dh = tl.load(p_dh + own, mask=mask, other=0)
        dc = tl.zeros((BLOCK_B, BLOCK_H), ACC)
        if CELL == "lstm":
            dc = tl.load(p_dc + own, mask=mask, other=0)
        dc_alone = tl.zeros((BLOCK_B, BLOCK_H), ACC)
        if DEFER and CELL == "lstm":
            dc_alone = tl.load(p_dc_alone + own, mask=mask, other=0)
        d = tl.load(p_d + steps * step_of_d + slots, mask=mask, other=0)
        c = tl.zeros((BLOCK_B, BLOCK_H), ACC)
        if CELL == "lstm":
            c = tl.load(p_cs + steps * step_of_h + own, mask=mask, other=0).to(ACC)
        # Not dc, which they would equal: Triton then does not carry them (findings/triton-3.9-loop-forgets-a-second-name.sh).
        dh_end, dc_end = tl.zeros((BLOCK_B, BLOCK_H), ACC), tl.zeros((BLOCK_B, BLOCK_H), ACC)
        for s in range(steps + FIRST):
            # With FIRST one round more: its product is of d of the first step, and what comes after it is stored nowhere.
            later = tl.cast(steps - s, tl.int64)
            now = tl.maximum(later - 1, 0) if FIRST else later - 1
            there = rows < tl.where(s < steps, batch, 0) if FIRST else live
            upstream = tl.load(p_grad + now * step_of_h + own, mask=mask, other=0)
            h_before = tl.zeros((BLOCK_B, BLOCK_H), ACC)
            c_before = tl.zeros((BLOCK_B, BLOCK_H), ACC)
            c_stored = c_before
            keep = live
            if RESET:
                keep = tl.load(p_reset + now * batch + rows, mask=live, other=0) == 0
            if SLOTS == 1:
                gates = tl.load(p_hs + now * step_of_h + own, mask=mask, other=0).to(ACC)
            else:
                gates = tl.load(p_gates + now * step_of_d + slots, mask=mask, other=0).to(ACC)
                if RECOMPUTE:
                    if PADDED:
                        gates = tl.where(columns[None, :] < hidden * SLOTS, gates, 0.0)
                    gates = gates_of(gates, CELL, BLOCK_B, BLOCK_H)
            if CELL == "gru":
                p_before = tl.where(s < steps - 1, p_hs + (now - 1) * step_of_h, p_h0)
                h_before = tl.load(p_before + own, mask=mask, other=0).to(ACC)
                if RESET:
                    h_before = tl.where(keep[:, None], h_before, 0.0)
            if CELL == "lstm":
                c_stored = tl.load(p_cs + now * step_of_h + own, mask=mask, other=0).to(ACC)
                c_before = c_stored
                if RESET:
                    c_before = tl.where(keep[:, None], c_before, 0.0)
            acc = product(
                d, p_d + later * step_of_d + part * K, rows, live, present, p_share, weights, summed, p_arrivals + tile,
                s * tl.num_programs(0), K, WIDTH, N, HIDDEN, HIDDEN, 1, PLAN, EXCHANGE, BLOCK_B, BLOCK_K, AHEAD, W_FIRST, ACC,
                PRECISION,
            )  # fmt: skip
            if DEFER:
                scale = clip_scale(
                    p_norms + later * tl.num_programs(0) * batch, rows, live, batch, limit, p_arrivals + tile,
                    s * tl.num_programs(0), HIDDEN // BLOCK_H, EXCHANGE,
                )[:, None]  # fmt: skip
                acc = acc * scale
                dh = dh * scale
                if CELL == "lstm":
                    dc = dc * scale + dc_alone
                    acc += product(
                        d, p_e + later * step_of_d + part * K, rows, live, present, p_share, weights, summed, p_arrivals + tile,
                        s * tl.num_programs(0), K, WIDTH, N, HIDDEN, HIDDEN, 1, PLAN, EXCHANGE, BLOCK_B, BLOCK_K, AHEAD,
                        W_FIRST, ACC, PRECISION,
                    )  # fmt: skip
            if PARTS > 1:
                p_met = p_arrivals + tl.cdiv(batch, BLOCK_B) + tile * (HIDDEN // N) + group
                # Of more than 16 bits eight warps share 16 rows of 8 units.
                stacked: tl.constexpr = dtype.primitive_bitwidth > 16
                acc = meet(
                    acc, p_parts, rows, live, present, summed, units, part, batch, s, p_met, PARTS, HIDDEN, EXCHANGE, stacked
                )  # fmt: skip
            if RESET:
                no_reset = tl.load(p_reset + later * batch + rows, mask=live, other=0) == 0
                acc = tl.where(no_reset[:, None], acc, 0.0)
            if FIRST and CARRIED:
                dh_end, dc_end = dh + acc, dc
            elif FIRST:
                last = rows < tl.where(s < steps, 0, batch)
                store_state(p_dh0, p_dc0, dh + acc, dc, rows, units, last, hidden, HIDDEN, CELL, PADDED)
            dh = dh + acc + upstream.to(ACC)
            if PADDED:
                dh = tl.where(units[None, :] < hidden, dh, 0.0)
            if CLIP == "value":
                dh = tl.where(dh > limit, limit, tl.where(dh < -limit, -limit, dh))
            elif CLIP == "norm" and not DEFER:
                dh = dh * scale_of(norms_of(dh, 1), limit)[:, None]
            p_part = p_norms + (now * tl.num_programs(0) + tl.program_id(0)) * batch
            arrived = dh
            if DEFER:
                put(p_part, rows, norms_of(dh, 1), there, EXCHANGE)
            if DEFER and CELL == "lstm":
                nothing = tl.zeros((BLOCK_B, BLOCK_H), ACC)
                e, _, dc_alone = step_gradient(nothing, dc, gates, h_before, c_before, c, CELL, BLOCK_B, BLOCK_H)
                put(p_e + now * step_of_d, slots, e.to(dtype), there[:, None], EXCHANGE)
                gradient, dh, dc = step_gradient(dh, nothing, gates, h_before, c_before, c, CELL, BLOCK_B, BLOCK_H)
            else:
                gradient, dh, dc = step_gradient(dh, dc, gates, h_before, c_before, c, CELL, BLOCK_B, BLOCK_H)
            c = c_stored
            d = gradient.to(dtype)
            put(p_d + now * step_of_d, slots, d, there[:, None], EXCHANGE)
            arrive(p_arrivals + tile, EXCHANGE)
            if TRACE and not DEFER:  # no program waits for these
                tl.store(p_part + rows, norms_of(arrived, 1), mask=there)
            if RESET:
                dh = tl.where(keep[:, None], dh, 0.0)
                dc = tl.where(keep[:, None], dc, 0.0)
                dc_alone = tl.where(keep[:, None], dc_alone, 0.0)
        if FIRST and CARRIED:
            store_state(p_dh0, p_dc0, dh_end, dc_end, rows, units, live, hidden, HIDDEN, CELL, PADDED)
        elif not FIRST:
            tl.store(p_dh + own, dh, mask=mask)
            if CELL == "lstm":
                tl.store(p_dc + own, dc, mask=mask)
                if DEFER:
                    tl.store(p_dc_alone + own, dc_alone, mask=mask)


# Packing: rows [G * H, K] as torch.nn has them, to slots of padded units, [slots * P, K]. A slot that no gate fills is zero.


@triton.jit
def _tile(index, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows and columns of a tile of a matrix with this number of columns; tiles are counted along rows."""
    across = tl.cdiv(columns, COLUMNS)
    return index // across * ROWS + tl.arange(0, ROWS), index % across * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def _tiles(rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    return tl.cdiv(rows, ROWS) * tl.cdiv(columns, COLUMNS)


@triton.jit
def _row_of_slot(row, hidden, SLOTS: tl.constexpr, MISSING: tl.constexpr):
    """The row of torch.nn's weights that fills a packed row, and whether there is one; no gate fills slot MISSING."""
    unit, slot = row // SLOTS, row % SLOTS
    return tl.where(slot > MISSING, slot - 1, slot) * hidden + unit, (unit < hidden) & (slot != MISSING)


@triton.jit
def _pack(
    p_rows,
    p_packed,
    hidden,
    columns,
    padded,
    UNITS: tl.constexpr,
    SLOTS: tl.constexpr,
    MISSING: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """[G * hidden, columns] to [SLOTS * UNITS, padded], or the transposed of that."""
    WIDTH: tl.constexpr = UNITS * SLOTS
    for index in range(tl.program_id(0), _tiles(WIDTH, padded, ROWS, COLUMNS), tl.num_programs(0)):
        row, column = _tile(index, padded, ROWS, COLUMNS)
        source, there = _row_of_slot(row, hidden, SLOTS, MISSING)
        mask = (there & (row < WIDTH))[:, None] & (column < columns)[None, :]
        value = tl.load(p_rows + source.to(tl.int64)[:, None] * columns + column[None, :], mask=mask, other=0)
        place = row.to(tl.int64)[:, None] * padded + column[None, :]
        if TRANSPOSED:
            place = column.to(tl.int64)[None, :] * WIDTH + row[:, None]
        tl.store(p_packed + place, value, mask=(row < WIDTH)[:, None] & (column < padded)[None, :])


@triton.jit
def _pad(p_from, p_to, batch, hidden, UNITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[batch, hidden] to [batch, UNITS], in the type of ``p_to``; zeros if ``p_from`` is None."""
    for index in range(tl.program_id(0), _tiles(batch, UNITS, ROWS, COLUMNS), tl.num_programs(0)):
        row, column = _tile(index, UNITS, ROWS, COLUMNS)
        value = tl.zeros((ROWS, COLUMNS), p_to.dtype.element_ty)
        if p_from is not None:
            mask = (row < batch)[:, None] & (column < hidden)[None, :]
            value = tl.load(p_from + row[:, None] * hidden + column[None, :], mask=mask, other=0).to(p_to.dtype.element_ty)
        tl.store(p_to + row[:, None] * UNITS + column[None, :], value, mask=(row < batch)[:, None] & (column < UNITS)[None, :])


@triton.jit
def _fill(p_words, ones, words, N: tl.constexpr):
    """All bits of the first ``ones`` words become 1, those of the other ones 0."""
    for index in range(tl.program_id(0), tl.cdiv(words, N), tl.num_programs(0)):
        at = tl.cast(index, tl.int64) * N + tl.arange(0, N)
        tl.store(p_words + at, tl.where(at < ones, -1, 0), mask=at < words)


@triton.jit(do_not_specialize=["ones", "words", "zeros"])
def prepare(
    p_hh,  # [G * hidden, hidden]
    p_w,  # [SLOTS * UNITS, UNITS], or with TRANSPOSED its transposed: out
    p_ih,  # [G * hidden, features]
    p_u,  # [SLOTS * UNITS, features]: out, or None
    p_b_ih,  # [G * hidden]
    p_b_hh,  # [G * hidden]
    p_bias,  # [SLOTS * UNITS]: out, the sum of both, or None
    p_first,  # [batch, hidden], or None for zeros; so are the next two
    p_first_out,  # [batch, UNITS]: out, or None; so are the next two
    p_second,
    p_second_out,
    p_third,
    p_third_out,
    p_words,  # [words]: out, ones in every bit of the first ``ones`` words, then zeros
    p_zeros,  # [zeros]: out, zeros
    hidden,
    features,
    batch,
    ones,
    words,
    zeros,
    UNITS: tl.constexpr,
    SLOTS: tl.constexpr,
    MISSING_IH: tl.constexpr,
    MISSING_HH: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """All that a scan needs before it begins, in one launch. Grid: (any number, 8 kinds of work)."""
    acc: tl.constexpr = tl.float64 if p_w.dtype.element_ty == tl.float64 else tl.float32
    kind = tl.program_id(1)
    if kind < 1:
        _pack(p_hh, p_w, hidden, hidden, UNITS, UNITS, SLOTS, MISSING_HH, TRANSPOSED, ROWS, COLUMNS)
    elif kind < 2:
        if p_u is not None:
            _pack(p_ih, p_u, hidden, features, features, UNITS, SLOTS, MISSING_IH, False, ROWS, COLUMNS)
    elif kind < 3:
        if p_bias is not None:
            for index in range(tl.program_id(0), tl.cdiv(UNITS * SLOTS, ROWS * COLUMNS), tl.num_programs(0)):
                row = index * ROWS * COLUMNS + tl.arange(0, ROWS * COLUMNS)
                inside = row < UNITS * SLOTS
                of_ih, there_ih = _row_of_slot(row, hidden, SLOTS, MISSING_IH)
                of_hh, there_hh = _row_of_slot(row, hidden, SLOTS, MISSING_HH)
                both = tl.load(p_b_ih + of_ih, mask=there_ih & inside, other=0).to(acc)
                both += tl.load(p_b_hh + of_hh, mask=there_hh & inside, other=0).to(acc)
                tl.store(p_bias + row, both.to(p_bias.dtype.element_ty), mask=inside)
    elif kind < 4:
        if p_first_out is not None:
            _pad(p_first, p_first_out, batch, hidden, UNITS, ROWS, COLUMNS)
    elif kind < 5:
        if p_second_out is not None:
            _pad(p_second, p_second_out, batch, hidden, UNITS, ROWS, COLUMNS)
    elif kind < 6:
        if p_third_out is not None:
            _pad(p_third, p_third_out, batch, hidden, UNITS, ROWS, COLUMNS)
    elif kind < 7:
        _fill(p_words, ones, words, ROWS * COLUMNS)
    else:
        _fill(p_zeros, 0, zeros, ROWS * COLUMNS)


@triton.jit
def _unpack(
    p_packed,
    p_rows,
    hidden,
    columns,
    padded,
    rows,
    SLOTS: tl.constexpr,
    MISSING: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The inverse of ``_pack``, in the type of ``p_rows``: [SLOTS * UNITS, padded] to [rows, columns]; rows are G * hidden."""
    for index in range(tl.program_id(0), _tiles(rows, columns, ROWS, COLUMNS), tl.num_programs(0)):
        row, column = _tile(index, columns, ROWS, COLUMNS)
        gate, unit = row // hidden, row % hidden
        source = unit * SLOTS + tl.where(gate >= MISSING, gate + 1, gate)
        mask = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(p_packed + source.to(tl.int64)[:, None] * padded + column[None, :], mask=mask, other=0)
        place = row.to(tl.int64)[:, None] * columns + column[None, :]
        tl.store(p_rows + place, value.to(p_rows.dtype.element_ty), mask=mask)


@triton.jit
def finish(
    p_d_w,  # [SLOTS * UNITS, UNITS]
    p_hh,  # [rows, hidden]: out
    p_d_u,  # [SLOTS * UNITS, features]
    p_ih,  # [rows, features]: out
    p_d_bias,  # [SLOTS * UNITS]
    p_b_ih,  # [rows]: out, or None; so is the next
    p_b_hh,
    hidden,
    features,
    rows,
    UNITS: tl.constexpr,
    SLOTS: tl.constexpr,
    MISSING_IH: tl.constexpr,
    MISSING_HH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The gradients of packed weights as torch.nn has them, in one launch. Grid: (any number, 4 gradients)."""
    kind = tl.program_id(1)
    if kind < 1:
        _unpack(p_d_w, p_hh, hidden, hidden, UNITS, rows, SLOTS, MISSING_HH, ROWS, COLUMNS)
    elif kind < 2:
        _unpack(p_d_u, p_ih, hidden, features, features, rows, SLOTS, MISSING_IH, ROWS, COLUMNS)
    elif kind < 3:
        if p_b_ih is not None:
            _unpack(p_d_bias, p_b_ih, hidden, 1, 1, rows, SLOTS, MISSING_IH, ROWS * COLUMNS, 1)
    else:
        if p_b_hh is not None:
            _unpack(p_d_bias, p_b_hh, hidden, 1, 1, rows, SLOTS, MISSING_HH, ROWS * COLUMNS, 1)


def constants(cell: str, plan: Plan, tiles: Tiles, dtype: str, precision: str, **switches: Any) -> dict[str, Any]:
    """The constexprs and launch options of one direction.

    Args:
        cell: a key of ``CELLS``.
        plan, tiles: the plan, and its tiles for this direction.
        dtype: "float16", "bfloat16", "float32" or "float64".
        precision: of float32 products, as ``tl.dot`` names it.
        switches: the remaining constexprs, such as RESET.

    Returns:
        Keyword arguments of the launch.
    """
    if switches.get("CLIP") == "norm" and CELLS[cell].states == 2 and plan.strategy == "cooperative":
        # Two products, of d and e: their tiles and sums spill unless fewer are in flight and eight warps hold them.
        tiles = replace(tiles, ahead=max(1, tiles.ahead // 2), warps=8 if tiles.w_first else tiles.warps, w_first=False)
    return switches | {
        "CELL": cell,
        "SLOTS": CELLS[cell].slots,
        "HIDDEN": plan.hidden,
        "PLAN": plan.strategy,
        "EXCHANGE": plan.exchange,
        "BLOCK_B": tiles.block_b,
        "BLOCK_H": tiles.block_h,
        "BLOCK_K": tiles.block_k,
        "AHEAD": tiles.ahead,
        "W_FIRST": tiles.w_first,
        "PARTS": tiles.parts,
        "ACC": tl.float64 if dtype == "float64" else tl.float32,
        "PRECISION": precision,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
        "enable_fp_fusion": True,  # the default changes between versions of Triton
    }
