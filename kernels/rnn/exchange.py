"""The exchange of a step's state between the programs of one launch.

Every program owns some hidden units, and each step needs those of all programs. A step's tile is written once, into its own
place of the sequence's buffer, so no place is reused; a reader only has to know when the tile is complete.

``sentinel``: the buffer starts as ones in every bit, and a reader loads until no element is all ones, so the data are their own
flag. The ordering is right because no element says anything about another: each element is one aligned word of 2, 4 or 8 bytes,
which is written and read whole and changes once, so a value that is not all ones is the final one. No fence is needed, as no
second address is involved. The loads are volatile: each goes to L2, the memory that all multiprocessors share. A NaN of all
ones is stored as another NaN, so that a diverged model ends instead of hanging. Values from before the launch, whose ``target``
is 0, are not waited for: they may hold any NaN.

``counter``: programs count their arrivals per batch tile, and step t waits for t times the number of programs. The chain of
happens-before runs from every store to every load: all threads' stores, a barrier, thread 0's releasing add, the acquiring add
that reads the full count, a second barrier, the readers' loads. The first barrier is not implied: some versions of Triton let
thread 0 arrive while other warps still store.

Parts of a sum (``meet``) use two places in turn, so a place may hold a value from two steps ago. With ``sentinel`` the lowest
bit of each number tells them apart: it is that of the step's lap, 1 for steps 0 and 1, 0 for steps 2 and 3, and so on. Two
places are enough. To write at step s, a program has read numbers of step s - 1. The writers of those had completed ``meet``
with their whole groups before, and the groups together had read every number of step s - 2; each of these was computed from
parts that its writer had read at step s - 2. So those parts have been read before their place is written again. Each of these
events needs the value of the one before, so no fence is needed here either.
"""

import triton
import triton.language as tl


@triton.jit
def as_bits(p):
    """The same address as a pointer to integers: comparing integers is exact, comparing NaNs is not."""
    if p.dtype.element_ty.primitive_bitwidth == 16:
        return p.to(tl.pointer_type(tl.int16), bitcast=True)
    elif p.dtype.element_ty.primitive_bitwidth == 32:
        return p.to(tl.pointer_type(tl.int32), bitcast=True)
    else:
        return p.to(tl.pointer_type(tl.int64), bitcast=True)


@triton.jit
def unpacked(words, dtype: tl.constexpr, PACK: tl.constexpr):
    """The elements of words that hold PACK of them each: [.., N] to [.., N * PACK]."""
    if PACK == 2:
        return tl.interleave(words.to(tl.int16), (words >> 16).to(tl.int16)).to(dtype, bitcast=True)
    else:
        return words.to(dtype, bitcast=True)


@triton.jit
def put(p, offsets, value, mask, EXCHANGE: tl.constexpr):
    """Store a tile for the other programs; ``arrive`` must follow the last tile of a step."""
    if EXCHANGE == "sentinel":
        p_bits = as_bits(p)
        bits = value.to(p_bits.dtype.element_ty, bitcast=True)
        tl.store(p_bits + offsets, tl.where(bits == -1, -2, bits), mask=mask)
    else:
        tl.store(p + offsets, value, mask=mask)


@triton.jit
def arrive(p_arrivals, EXCHANGE: tl.constexpr):
    """Signal that this program has stored its tiles of the step."""
    if EXCHANGE == "counter":
        tl.debug_barrier()
        tl.atomic_add(p_arrivals, 1, sem="release", scope="gpu")


@triton.jit
def _request(p, offsets, mask, COUNT: tl.constexpr, STRIDE: tl.constexpr):
    tiles = ()
    for k in tl.static_range(COUNT):
        if mask is None:
            tiles = tiles + (tl.load(p + (offsets + k * STRIDE), volatile=True),)
        else:
            tiles = tiles + (tl.load(p + (offsets + k * STRIDE), mask=mask, other=0, volatile=True),)
    return tiles


@triton.jit
def _missing(tiles, COUNT: tl.constexpr, PACK: tl.constexpr):
    """1 if any element is all ones, otherwise 0. The tiles are combined element by element first, so there is one reduction."""
    if PACK == 2:  # a half of ones is one of zeros in the complement, which alone borrows from its highest bit
        borrows = (~tiles[0] - 0x10001) & tiles[0]
        for k in tl.static_range(1, COUNT):
            borrows |= (~tiles[k] - 0x10001) & tiles[k]
        missing = (borrows & -0x7FFF8000) != 0
    else:
        missing = tiles[0] == -1
        for k in tl.static_range(1, COUNT):
            missing |= tiles[k] == -1
    return tl.max(tl.reshape(missing.to(tl.int32), (missing.numel,)))


@triton.jit
def gather(
    p,
    offsets,
    mask,
    p_arrivals,
    target,
    EXCHANGE: tl.constexpr,
    COUNT: tl.constexpr,
    STRIDE: tl.constexpr,
    PACK: tl.constexpr = 1,
):
    """Load COUNT tiles, STRIDE elements apart, as soon as all of them are written; all are requested before any is used.

    ``target`` is the number of arrivals to wait for; without an exchange there is no wait. With a PACK of 2, for a sentinel of
    16 bits, ``offsets`` count words of two elements, which are compared at once.
    """
    if EXCHANGE == "sentinel":
        p_bits = p.to(tl.pointer_type(tl.int32), bitcast=True) if PACK == 2 else as_bits(p)
        tiles = _request(p_bits, offsets, mask, COUNT, STRIDE // PACK)
        while (_missing(tiles, COUNT, PACK) > 0) & (target > 0):
            tiles = _request(p_bits, offsets, mask, COUNT, STRIDE // PACK)
        values = ()
        for k in tl.static_range(COUNT):
            values = values + (unpacked(tiles[k], p.dtype.element_ty, PACK),)
        return values
    else:
        if EXCHANGE == "counter":
            while tl.atomic_add(p_arrivals, 0, sem="acquire", scope="gpu") < target:
                pass
            tl.debug_barrier()
        return _request(p, offsets, mask, COUNT, STRIDE)


@triton.jit
def meet(
    value,
    p,
    rows,
    live,
    present,
    all_units,
    units,
    part,
    batch,
    step,
    p_arrivals,
    PARTS: tl.constexpr,
    UNITS: tl.constexpr,
    EXCHANGE: tl.constexpr,
    STACKED: tl.constexpr = False,
):
    """Add the values [rows, all_units] of a group's PARTS programs; each program gets its ``units`` of the rows ``present``.

    ``p`` is [2, batch, PARTS, UNITS]. A value has the accumulator's type and loses its last bit. STACKED loads the parts as one
    tile: a tile with fewer numbers than threads is loaded twice, by threads that may see different steps of it, and the check
    sees only one of the loads.
    """
    p_now = p + (step % 2) * batch * PARTS * UNITS
    place = rows[:, None] * (PARTS * UNITS) + part * UNITS + all_units[None, :]
    here = present[:, None] * (PARTS * UNITS) + units[None, :]
    COUNT: tl.constexpr = 1 if STACKED else PARTS
    if STACKED:
        here = here[None, :, :] + tl.arange(0, PARTS)[:, None, None] * UNITS
    mask = live[:, None]
    if EXCHANGE == "sentinel":
        lap = (step // 2 + 1) % 2
        p_bits = as_bits(p_now)
        bits = value.to(p_bits.dtype.element_ty, bitcast=True)
        tl.store(p_bits + place, (bits & -2) | lap, mask=mask)
        met = _request(p_bits, here, None, COUNT, UNITS)
        while _of_another_lap(met, lap, COUNT) > 0:
            met = _request(p_bits, here, None, COUNT, UNITS)
        total = (met[0] & -2).to(p.dtype.element_ty, bitcast=True)  # with the lap's bit an infinity would be NaN
        for k in tl.static_range(1, COUNT):
            total += (met[k] & -2).to(p.dtype.element_ty, bitcast=True)
        return tl.sum(total, axis=0) if STACKED else total
    else:
        tl.store(p_now + place, value, mask=mask)
        arrive(p_arrivals, EXCHANGE)
        met = gather(p_now, here, None, p_arrivals, (step + 1) * PARTS, EXCHANGE, COUNT, UNITS)
        total = met[0]
        for k in tl.static_range(1, COUNT):
            total += met[k]
        return tl.sum(total, axis=0) if STACKED else total


@triton.jit
def _of_another_lap(parts, lap, PARTS: tl.constexpr):
    other = parts[0] ^ lap
    for k in tl.static_range(1, PARTS):
        other |= parts[k] ^ lap
    other = (other & 1).to(tl.int32)
    return tl.max(tl.reshape(other, (other.numel,)))
