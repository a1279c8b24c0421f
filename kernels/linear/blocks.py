"""A linear cell (minGRU) as a scan over time, one Triton body for each direction.

A step is the map h -> a h + b with a = 1 - s(z), b = s(z) c; two maps in a row are one again, so a block of steps is scanned
with ``tl.associative_scan``, and h is carried from block to block. Backward, dL/dh is the same scan from the last step on:

    forward    h[t] = a[t] h[t-1] + b[t]            t = 0 .. T-1
    backward   dh[t] = a[t+1] dh[t+1] + dy[t]       t = T-1 .. 0

A program has one row of the batch and a block of units, and reads z and c twice; nothing but h is kept. A reset is a = -1,
which no gate is: a = 0 also comes from small gates whose product is rounded, and must not hide a NaN. Steps past the end are
the identity. Programs exchange nothing.

Source: Feng et al. 2024, "Were RNNs All We Needed?"; the scan is Blelloch 1990.
"""

import triton
import triton.language as tl

from recurrent_lm.kernels.tile_cells import mingru_gates, mingru_gradient


@triton.jit
def then(a_first, b_first, a, b):
    """The map h -> a (a_first h + b_first) + b; a < 0 marks a map that forgets h, also an h that is not finite."""
    forgets = a < 0
    return tl.where(forgets | (a_first < 0), -1.0, a_first * a), tl.where(forgets, b, a * b_first + b)


@triton.jit
def applied(a, b, h):
    return tl.where(a < 0, b, a * h + b)


@triton.jit
def of_steps(p_sums, at, units, inside, HIDDEN: tl.constexpr, ACC: tl.constexpr):
    """Shares and candidates of a tile [BLOCK_T, BLOCK_H]: a, s(z) and c."""
    p_z = p_sums + at[:, None] * (2 * HIDDEN) + units[None, :]
    keep, gate = mingru_gates(tl.load(p_z, mask=inside, other=0.0).to(ACC))
    return keep, gate, tl.load(p_z + HIDDEN, mask=inside, other=0.0).to(ACC)


@triton.jit
def linear_forward(
    p_sums,
    p_h0,
    p_reset,
    p_hs,
    steps,
    batch,
    HIDDEN: tl.constexpr,
    RESET: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """h [T, B, H] from the sums z and c [T, B, 2 * H] and the state before the first step [B, H]."""
    row = tl.program_id(0)
    units = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    here = units < HIDDEN
    o_t = tl.arange(0, BLOCK_T)
    h = tl.load(p_h0 + row * HIDDEN + units, mask=here, other=0.0).to(ACC)
    for first in range(0, steps, BLOCK_T):
        t = first + o_t
        at = tl.cast(t, tl.int64) * batch + row
        inside = (t < steps)[:, None] & here[None, :]
        keep, gate, c = of_steps(p_sums, at, units, inside, HIDDEN, ACC)
        a, b = tl.where(inside, keep, 1.0), tl.where(inside, gate * c, 0.0)
        if RESET:
            a = tl.where(tl.load(p_reset + at, mask=t < steps, other=0)[:, None] != 0, -1.0, a)
        a, b = tl.associative_scan((a, b), 0, then)
        hs = applied(a, b, h[None, :])
        tl.store(p_hs + at[:, None] * HIDDEN + units[None, :], hs, mask=inside)
        h = tl.sum(tl.where((o_t == BLOCK_T - 1)[:, None], hs, 0.0), axis=0)


@triton.jit
def linear_backward(
    p_grad,
    p_sums,
    p_h0,
    p_reset,
    p_hs,
    p_dh,
    p_d,
    p_trace,
    steps,
    batch,
    HIDDEN: tl.constexpr,
    RESET: tl.constexpr,
    TRACE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Gradients of the sums, d [T, B, 2 * H]; dh [B, H] is that of the last state on entry, of the first on exit.

    With TRACE all dL/dh [T, B, H] are written, too.
    """
    row = tl.program_id(0)
    units = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    here = units < HIDDEN
    o_t = tl.arange(0, BLOCK_T)
    p_carried = p_dh + row * HIDDEN + units
    carried = tl.load(p_carried, mask=here, other=0.0)
    h0 = tl.load(p_h0 + row * HIDDEN + units, mask=here, other=0.0).to(ACC)
    blocks = tl.cdiv(steps, BLOCK_T)
    for block in range(blocks):
        t = (blocks - 1 - block) * BLOCK_T + o_t
        at = tl.cast(t, tl.int64) * batch + row
        inside = (t < steps)[:, None] & here[None, :]
        later = (t + 1 < steps)[:, None] & here[None, :]
        a, _, _ = of_steps(p_sums, at + batch, units, later, HIDDEN, ACC)
        a = tl.where(later, a, 1.0)
        if RESET:
            a = tl.where(tl.load(p_reset + at + batch, mask=t + 1 < steps, other=0)[:, None] != 0, -1.0, a)
        grad = tl.load(p_grad + at[:, None] * HIDDEN + units[None, :], mask=inside, other=0.0).to(ACC)
        a, dhs = tl.associative_scan((a, grad), 0, then, reverse=True)
        dhs = applied(a, dhs, carried[None, :])
        keep, gate, c = of_steps(p_sums, at, units, inside, HIDDEN, ACC)
        p_before = p_hs + (at[:, None] - batch) * HIDDEN + units[None, :]
        before = tl.load(p_before, mask=inside & (t > 0)[:, None], other=0.0).to(ACC)
        before = tl.where((t == 0)[:, None], h0[None, :], before)
        if RESET:
            starts = tl.load(p_reset + at, mask=t < steps, other=0)[:, None] != 0
            before = tl.where(starts, 0.0, before)
        d_z, d_c = mingru_gradient(dhs, keep, gate, c, before)
        p_z = p_d + at[:, None] * (2 * HIDDEN) + units[None, :]
        tl.store(p_z, d_z, mask=inside)
        tl.store(p_z + HIDDEN, d_c, mask=inside)
        if TRACE:
            tl.store(p_trace + at[:, None] * HIDDEN + units[None, :], dhs, mask=inside)
        carried = tl.sum(tl.where((o_t == 0)[:, None], dhs, 0.0), axis=0)
        if block == blocks - 1:
            to_first = dhs * keep
            if RESET:
                to_first = tl.where(starts, 0.0, to_first)
            tl.store(p_carried, tl.sum(tl.where((o_t == 0)[:, None], to_first, 0.0), axis=0), mask=here)
