"""The product of a step, [B, K] x [K, columns], and where its operands come from.

By constexpr: K in tiles of BLOCK_K, split over SPLIT warps by a product of three dimensions, so that narrow tiles do not make
every warp multiply the same numbers; or W as the first operand (W_FIRST), whose 64 columns then are the rows that the tensor
cores of sm_90 ask for, at any number of rows of the batch.
"""

import triton
import triton.language as tl

from recurrent_lm.kernels.rnn.exchange import gather


@triton.jit
def weight_tile(
    p_w,
    k,
    columns,
    K_STRIDE: tl.constexpr,
    COLUMN_STRIDE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,
    W_FIRST: tl.constexpr,
):
    """Tile k of W: [BLOCK_K, columns], turned if W_FIRST, or [SPLIT, BLOCK_K, columns] to be summed over SPLIT."""
    inner = tl.arange(0, BLOCK_K)
    if SPLIT > 1:
        first = (k * SPLIT + tl.arange(0, SPLIT)) * BLOCK_K
        at = first[:, None, None] + inner[None, :, None]
        return tl.load(p_w + at * K_STRIDE + columns[None, None, :] * COLUMN_STRIDE)
    elif W_FIRST:
        return tl.load(p_w + (k * BLOCK_K + inner)[None, :] * K_STRIDE + columns[:, None] * COLUMN_STRIDE)
    else:
        return tl.load(p_w + (k * BLOCK_K + inner)[:, None] * K_STRIDE + columns[None, :] * COLUMN_STRIDE)


@triton.jit
def resident_weights(
    p_w,
    columns,
    TILES: tl.constexpr,
    K_STRIDE: tl.constexpr,
    COLUMN_STRIDE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,
    W_FIRST: tl.constexpr,
):
    """All tiles of W, as a tuple: loaded before the loop over time, they stay on chip."""
    tiles = ()
    for k in tl.static_range(TILES):
        tiles = tiles + (weight_tile(p_w, k, columns, K_STRIDE, COLUMN_STRIDE, BLOCK_K, SPLIT, W_FIRST),)
    return tiles


@triton.jit
def product(
    own,
    p_before,
    rows,
    live,
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
    SPLIT: tl.constexpr,
    AHEAD: tl.constexpr,
    W_FIRST: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """[BLOCK_B, N]: K numbers a row of the step before, PITCH apart at ``p_before``, times N of the COLUMNS of W.

    ``own`` is that step's tile in registers, which in the resident plan is all of it.
    """
    inner = tl.arange(0, BLOCK_K)
    if PLAN == "resident":
        acc = tl.dot(own, weights[0], input_precision=PRECISION, out_dtype=ACC)
    elif PLAN == "stepwise":
        acc = tl.zeros((BLOCK_B, N), ACC)
        # K // BLOCK_K, but unknown to the compiler, which would unroll the loop and spill
        for k in range(tl.num_programs(0) * N * K // COLUMNS // BLOCK_K):
            tile = tl.load(p_before + rows[:, None] * PITCH + (k * BLOCK_K + inner)[None, :], mask=live[:, None], other=0)
            w = weight_tile(p_w, k, columns, K_STRIDE, COLUMN_STRIDE, BLOCK_K, 1, False)
            acc = tl.dot(tile, w, acc, input_precision=PRECISION, out_dtype=ACC)
    elif SPLIT == 1:
        TILES: tl.constexpr = K // BLOCK_K
        offsets = rows[:, None] * PITCH + inner[None, :]
        acc = tl.zeros((N, BLOCK_B) if W_FIRST else (BLOCK_B, N), ACC)
        for first in tl.static_range(0, TILES, AHEAD):
            p_tiles = p_before + first * BLOCK_K
            tiles = gather(p_tiles, offsets, live[:, None], p_arrivals, target, EXCHANGE, min(AHEAD, TILES - first), BLOCK_K)
            for k in tl.static_range(min(AHEAD, TILES - first)):
                if W_FIRST:
                    acc = tl.dot(weights[first + k], tl.trans(tiles[k]), acc, input_precision=PRECISION, out_dtype=ACC)
                else:
                    acc = tl.dot(tiles[k], weights[first + k], acc, input_precision=PRECISION, out_dtype=ACC)
        if W_FIRST:
            acc = tl.trans(acc)
    else:  # each warp multiplies its own part of K
        PART: tl.constexpr = BLOCK_K * SPLIT
        TILES: tl.constexpr = K // PART
        offsets = tl.arange(0, SPLIT)[:, None, None] * BLOCK_K + rows[None, :, None] * PITCH + inner[None, None, :]
        parts = tl.zeros((SPLIT, BLOCK_B, N), ACC)
        for first in tl.static_range(0, TILES, AHEAD):
            p_tiles = p_before + first * PART
            tiles = gather(p_tiles, offsets, live[None, :, None], p_arrivals, target, EXCHANGE, min(AHEAD, TILES - first), PART)
            for k in tl.static_range(min(AHEAD, TILES - first)):
                parts = tl.dot(tiles[k], weights[first + k], parts, input_precision=PRECISION, out_dtype=ACC)
        acc = tl.sum(parts, axis=0)
    return acc
