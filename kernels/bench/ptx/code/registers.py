"""The numbers of PTX: registers are arrays of unsigned integers, one element a lane, viewed as the type of an instruction.

Nothing here changes an array in place, so registers may share one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[Any]
u2, u4, u8 = np.dtype("u2"), np.dtype("u4"), np.dtype("u8")
f2, f4, f8 = np.dtype("f2"), np.dtype("f4"), np.dtype("f8")
NAN16 = 0x7FFF  # NaN after a conversion to 16 bits


def f32(bits: Lanes) -> Lanes:
    return bits.view(f4)


def bits32(values: Lanes) -> Lanes:
    return np.asarray(values, f4).view(u4)


def from_bf16(bits: Lanes) -> Lanes:
    return (bits.astype(u4) << np.uint32(16)).view(f4)


def to_bf16(values: Lanes) -> Lanes:
    """Round to nearest, ties to even."""
    bits = values.view(u4)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(NAN16), rounded).astype(u2)


def from_f16(bits: Lanes) -> Lanes:
    return bits.view(f2).astype(f4)


def to_f16(values: Lanes) -> Lanes:
    return np.where(np.isnan(values), np.uint16(NAN16), values.astype(f2).view(u2))


def pack(low: Lanes, high: Lanes) -> Lanes:
    """Two numbers of 16 or 32 bits as one word."""
    if low.dtype == u2:
        return low.astype(u4) | (high.astype(u4) << np.uint32(16))
    return low.astype(u8) | (high.astype(u8) << np.uint64(32))


def low16(word: Lanes) -> Lanes:
    return word.astype(u2)


def high16(word: Lanes) -> Lanes:
    return (word >> np.uint32(16)).astype(u2)


def low32(word: Lanes) -> Lanes:
    return word.astype(u4)


def high32(word: Lanes) -> Lanes:
    return (word >> np.uint64(32)).astype(u4)


def fma(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """float32 fused multiply-add: a b is exact in float64, and the sum is rounded twice, which changes the last place once
    in 2^29.
    """
    return (a.astype(f8) * b + c).astype(f4)


def flushed(x: Lanes) -> Lanes:
    """Subnormal numbers as zeros of their sign."""
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def shift_left(a: Lanes, by: Lanes) -> Lanes:
    """a << by; 0 if ``by`` is the width or more."""
    size = a.dtype.type(8 * a.itemsize)
    by = by.astype(a.dtype)
    return np.where(by < size, a << (by % size), a.dtype.type(0))


def shift_right(a: Lanes, by: Lanes) -> Lanes:
    """a >> by; for signed numbers the sign fills the upper bits."""
    last = 8 * a.itemsize - 1
    amount = np.minimum(by, by.dtype.type(last)).astype(a.dtype)
    shifted = a >> amount
    return shifted if a.dtype.kind == "i" else np.where(by > by.dtype.type(last), a.dtype.type(0), shifted)


def extract(a: Lanes, position: int, length: int) -> Lanes:
    """bfe.u32 or bfe.s32, depending on the dtype."""
    if length == 0:
        return np.zeros_like(a)
    up = max(0, 32 - position - length)
    return (a << a.dtype.type(up)) >> a.dtype.type(min(31, up + position))


def insert(a: Lanes, into: Lanes, position: int, length: int) -> Lanes:
    """bfi.b32."""
    mask = np.uint32(((1 << length) - 1) << position & 0xFFFFFFFF)
    return (into & ~mask) | ((a << np.uint32(position)) & mask)


def permute(a: Lanes, b: Lanes, selector: int) -> Lanes:
    """prmt.b32: each nibble of the selector picks a byte of b a, or with its highest bit that byte's sign."""
    both = pack(a, b)
    out = np.zeros_like(a)
    for i in range(4):
        nibble = selector >> (4 * i) & 15
        byte = (both >> np.uint64(8 * (nibble & 7))).astype(u4) & np.uint32(255)
        if nibble & 8:
            byte = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
        out = out | (byte << np.uint32(8 * i))
    return out


def quotient(a: Lanes, b: Lanes) -> Lanes:
    """div of integers, towards zero; by zero it is all ones, as PTX leaves it open."""
    divisor = np.where(b == 0, b.dtype.type(1), b)
    whole = a // divisor
    whole = whole + ((whole < 0) & (whole * divisor != a)).astype(a.dtype)
    return np.where(b == 0, ~np.zeros_like(a), whole)


def remainder(a: Lanes, b: Lanes) -> Lanes:
    """rem of integers, with the sign of the dividend."""
    return a - quotient(a, b) * b


def smaller(a: Lanes, b: Lanes) -> Lanes:
    """min.f32: NaN only if both are."""
    return np.fmin(a, b)


def larger(a: Lanes, b: Lanes) -> Lanes:
    """max.f32: NaN only if both are."""
    return np.fmax(a, b)


def shuffle(kind: str, value: Lanes, by: Lanes, clamp: int) -> Lanes:
    """shfl.sync of all lanes of each warp; ``clamp`` as PTX packs it."""
    lane = np.arange(len(value)) % 32
    base = np.arange(len(value)) - lane
    segment, last = clamp >> 8 & 31, clamp & 31
    offset = (by & np.uint32(31)).astype(np.int64)
    lowest = lane & segment
    highest = lowest | (last & ~segment)
    if kind == "bfly":
        source = lane ^ offset
        inside = source <= highest
    elif kind == "idx":
        source = lowest | (offset & ~segment)
        inside = source <= highest
    elif kind == "down":
        source = lane + offset
        inside = source <= highest
    else:  # up, whose clamp is the lowest lane
        source = lane - offset
        inside = source >= (lowest | last)
    return value[base + np.where(inside, source, lane)]


def reduce(kind: str, value: Lanes) -> Lanes:
    """redux.sync of all lanes of each warp."""
    operation = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }
    warps = value.reshape(-1, 32)
    return np.repeat(operation[kind].reduce(warps, axis=1, dtype=value.dtype), 32)


POPULATION = np.array([bin(i).count("1") for i in range(256)], u4)


def ones(a: Lanes) -> Lanes:
    """popc."""
    return POPULATION[np.ascontiguousarray(a).view(np.uint8).reshape(len(a), a.itemsize)].sum(1, dtype=u4)
