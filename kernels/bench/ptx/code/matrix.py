"""Products of the tensor cores, and the loads and stores of their fragments.

Registers are arrays of lanes, 32 a warp, for any number of warps side by side. g = lane / 4 and t = lane % 4, as in the PTX
manual. The products of one instruction are summed in float32 at once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recurrent_lm.kernels.bench.ptx.code.registers import Lanes, f4, from_bf16, from_f16, u2, u4

LANE = np.arange(32)
G, T = LANE // 4, LANE % 4
SWIZZLES = {0: 0, 1: 128, 2: 64, 3: 32}  # bytes, by the mode of a descriptor


def halves(registers: list[Lanes]) -> NDArray[Any]:
    """The 16-bit numbers [warps, 32, 2 n] of n registers, the lower one first."""
    words = np.stack([r.reshape(-1, 32) for r in registers], axis=-1)
    return np.ascontiguousarray(words).view(u2)


def widen(bits: NDArray[Any], kind: str) -> NDArray[Any]:
    """Convert operands of a product to float32."""
    if kind == "bf16":
        return from_bf16(bits)
    if kind == "f16":
        return from_f16(bits)
    return (bits & np.uint32(0xFFFFE000)).view(f4)  # tf32: the unit cuts, it does not round


def rows_of_a(registers: list[Lanes], kind: str) -> NDArray[Any]:
    """A [warps, 16, 16] of four registers, for tf32 [warps, 16, 8]."""
    warps = len(registers[0]) // 32
    if kind == "tf32":
        a = np.empty((warps, 16, 8), u4)
        for i, r in enumerate(registers):
            a[:, G + 8 * (i % 2), T + 4 * (i // 2)] = r.reshape(-1, 32)
        return widen(a, kind)
    a16 = np.empty((warps, 16, 16), u2)
    pairs = halves(registers)
    for i in range(4):
        for j in range(2):
            a16[:, G + 8 * (i % 2), 2 * T + j + 8 * (i // 2)] = pairs[:, :, 2 * i + j]
    return widen(a16, kind)


def columns_of_b(registers: list[Lanes], kind: str) -> NDArray[Any]:
    """B [warps, 16, 8] of two registers, for tf32 [warps, 8, 8]."""
    warps = len(registers[0]) // 32
    if kind == "tf32":
        b = np.empty((warps, 8, 8), u4)
        for i, r in enumerate(registers):
            b[:, T + 4 * i, G] = r.reshape(-1, 32)
        return widen(b, kind)
    b16 = np.empty((warps, 16, 8), u2)
    pairs = halves(registers)
    for i in range(2):
        for j in range(2):
            b16[:, 2 * T + j + 8 * i, G] = pairs[:, :, 2 * i + j]
    return widen(b16, kind)


def sums_of(registers: list[Lanes]) -> NDArray[Any]:
    """C [warps, 16, columns] of float32 registers: four for each eight columns."""
    warps = len(registers[0]) // 32
    c = np.empty((warps, 16, 2 * len(registers)), f4)
    for i, r in enumerate(registers):
        c[:, G + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * T + i % 2] = r.view(f4).reshape(-1, 32)
    return c


def registers_of(c: NDArray[Any]) -> list[Lanes]:
    """The inverse of ``sums_of``."""
    c = np.ascontiguousarray(c, f4)
    return [
        c[:, G + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * T + i % 2].reshape(-1).view(u4) for i in range(c.shape[2] // 2)
    ]  # fmt: skip


def mma(a: list[Lanes], b: list[Lanes], c: list[Lanes], kind: str) -> list[Lanes]:
    """mma.m16n8k16 (bf16, f16) or m16n8k8 (tf32): the registers of D."""
    return registers_of(rows_of_a(a, kind) @ columns_of_b(b, kind) + sums_of(c))


def matrices(rows: NDArray[Any], transposed: bool) -> list[Lanes]:
    """ldmatrix: [warps, n, 8, 8] 16-bit numbers, by rows, to n registers."""
    out = []
    for i in range(rows.shape[1]):
        pair = [rows[:, i, 2 * T + j, G] if transposed else rows[:, i, G, 2 * T + j] for j in range(2)]
        out.append((pair[0].astype(u4) | (pair[1].astype(u4) << np.uint32(16))).reshape(-1))
    return out


def rows_to_store(registers: list[Lanes], transposed: bool) -> NDArray[Any]:
    """stmatrix: n registers to [warps, n, 8, 8] 16-bit numbers, by rows."""
    pairs = halves(registers)
    rows = np.empty((pairs.shape[0], len(registers), 8, 8), u2)
    for i in range(len(registers)):
        for j in range(2):
            if transposed:
                rows[:, i, 2 * T + j, G] = pairs[:, :, 2 * i + j]
            else:
                rows[:, i, G, 2 * T + j] = pairs[:, :, 2 * i + j]
    return rows


def described(descriptor: int, rows: int, columns: int, size: int, turned: bool) -> NDArray[Any]:
    """Shared addresses of an operand of wgmma, from its descriptor.

    Args:
        descriptor: the 64-bit word.
        rows, columns: of the operand; rows go over M or N, columns over K.
        size: bytes of an element.
        turned: whether memory is contiguous along M or N instead of K (imm-trans).

    Returns:
        [rows, columns] addresses.
    """
    if descriptor >> 49 & 7:
        raise ValueError("a descriptor with a base offset")
    start, leading, stride = ((descriptor >> at & 0x3FFF) << 4 for at in (0, 16, 32))
    swizzle = SWIZZLES[descriptor >> 62]
    r, k = np.arange(rows)[:, None], np.arange(columns)[None, :]
    if swizzle and not turned:
        at = start + r // 8 * stride + r % 8 * swizzle + k * size
    elif swizzle:
        across = swizzle // size
        at = start + r // across * leading + k // 8 * stride + k % 8 * swizzle + r % across * size
    elif not turned:  # cores of 8 rows of 16 bytes
        core = 16 // size
        at = start + r // 8 * stride + k // core * leading + r % 8 * 16 + k % core * size
    else:
        core = 16 // size
        at = start + r // core * stride + k // 8 * leading + k % 8 * 16 + r % core * size
    if swizzle:
        at = at ^ (at >> 3 & (swizzle - 1) & 0x70)
    return at
