"""The exchange alone: a recurrence whose step is one sum, to measure the lower bound of a cooperative step.

    h[0] = x
    h[t] = x + mean(h[t-1]) / 2        t = 1 .. T-1        x = 0, 1/N, .. (N-1)/N for N elements

Each program owns a slice of the state, stores it, and gathers the whole state of the step before with the functions of
``exchange.py`` that the scans use. The sum makes each step wait for every element, as a product would. With EXCHANGE "none" it
reads the buffer without waiting: on a buffer that an exchange has filled this is the same computation, and its time is that of
loads from L2.
"""

from dataclasses import dataclass

import triton
import triton.language as tl

from recurrent_lm.kernels.rnn.exchange import arrive, gather, put

WARPS = 4
VECTOR = 16  # bytes that a thread loads at once
AHEAD = 8  # such loads that a thread requests before it uses the first


@triton.jit
def put_slice(p_now, added, elements, own_elements, p_arrivals, SLICE: tl.constexpr, EXCHANGE: tl.constexpr):
    """Store x + ``added`` in this program's elements of a step, and signal that they are stored."""
    for first in range(0, own_elements, SLICE):
        inner = first + tl.arange(0, SLICE)
        own = tl.program_id(0) * own_elements + inner
        h = own.to(tl.float32) / elements + added
        put(p_now, own, h.to(p_now.dtype.element_ty), (inner < own_elements) & (own < elements), EXCHANGE)
    arrive(p_arrivals, EXCHANGE)


@triton.jit
def exchange_only(
    p_h,  # [T, N]: out
    p_arrivals,  # [1]: zero
    steps,
    elements,  # N
    own_elements,  # of each program
    SLICE: tl.constexpr,
    BLOCK: tl.constexpr,
    COUNT: tl.constexpr,
    EXCHANGE: tl.constexpr,
):
    """Grid: (programs, 1)."""
    PACK: tl.constexpr = 2 if EXCHANGE == "sentinel" and p_h.dtype.element_ty.primitive_bitwidth == 16 else 1
    offsets = tl.arange(0, BLOCK // PACK)
    put_slice(p_h, 0.0, elements, own_elements, p_arrivals, SLICE, EXCHANGE)
    for t in range(1, steps):
        p_before = p_h + tl.cast(t - 1, tl.int64) * elements
        total = tl.zeros((BLOCK,), tl.float32)
        for first in range(elements // (BLOCK * COUNT)):
            p_tiles = p_before + first * (BLOCK * COUNT)
            target = t * tl.num_programs(0)
            tiles = gather(p_tiles, offsets, offsets < BLOCK, p_arrivals, target, EXCHANGE, COUNT, BLOCK, PACK)
            for k in tl.static_range(COUNT):
                total += tiles[k].to(tl.float32)
        added = tl.sum(total, axis=0) / elements * 0.5
        put_slice(p_before + elements, added, elements, own_elements, p_arrivals, SLICE, EXCHANGE)


@dataclass(frozen=True)
class Slices:
    """How a state is stored and gathered: elements of each program, of a store, and of a load; loads before the first use."""

    own: int
    slice: int
    block: int
    count: int


def slices(programs: int, elements: int, element_bytes: int) -> Slices:
    """The slices of a state whose elements are a power of two: whole vectors of 16 bytes, so that the last slices may be
    empty.
    """
    vector = VECTOR // element_bytes
    own = -(-elements // (programs * vector)) * vector
    block = min(elements, WARPS * 32 * vector)
    return Slices(own, min(1 << (own - 1).bit_length(), block), block, min(AHEAD, elements // block))
