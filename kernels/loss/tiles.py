"""Log-sum-exp and gradient of logits that never leave the chip: tiles of x W^T + b, computed where they are used.

``tiles_forward`` gives each program some rows and a range of columns; the program goes through the range tile by tile and
keeps, for each row, only the summary of ``rows``. ``tiles_combine`` merges the ranges in a fixed order, so results are
reproducible. ``tiles_backward`` computes a tile again and stores its gradient in a buffer of bounded size. If gradients are
filtered (``filter_eps``), it also notes the tiles that matter, and ``kept_product`` multiplies by these only. Nothing here
imports torch.
"""

import triton
import triton.language as tl

from recurrent_lm.kernels.loss.rows import (
    capped,
    class_weight,
    first_of,
    gradient,
    merge,
    read_target,
    row_factors,
    summarise,
    write_row,
)


@triton.jit
def logits_tile(
    x, w, b, rows, columns, n, end, ACC: tl.constexpr, D: tl.constexpr, SOFTCAP: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """z [BLOCK_N, BLOCK_V] for rows of x [N, D] and of w [V, D], both contiguous; undefined beyond row n and column ``end``."""
    k = tl.arange(0, BLOCK_D)
    x_tile = x + rows.to(tl.int64)[:, None] * D + k[None, :]
    w_tile = w + columns.to(tl.int64)[None, :] * D + k[:, None]
    row_live, column_live = (rows < n)[:, None], (columns < end)[None, :]
    z = tl.zeros([BLOCK_N, BLOCK_V], ACC)
    for begin in range(0, D, BLOCK_D):
        if D % BLOCK_D == 0:
            a = tl.load(x_tile + begin, mask=row_live, other=0.0)
            c = tl.load(w_tile + begin, mask=column_live, other=0.0)
        else:
            a = tl.load(x_tile + begin, mask=row_live & (begin + k < D)[None, :], other=0.0)
            c = tl.load(w_tile + begin, mask=column_live & (begin + k < D)[:, None], other=0.0)
        z = tl.dot(a, c, z, input_precision=PRECISION, out_dtype=ACC)
    if b is not None:
        z += tl.load(b + columns, mask=columns < end, other=0.0).to(ACC)[None, :]
    return capped(z, SOFTCAP)


@triton.jit(do_not_specialize=["ignore_index"])
def tiles_forward(
    x, w, b, target, weight, tops, totals, chosens, weighteds, bests, seens, n, ignore_index,
    V: tl.constexpr, D: tl.constexpr, RANGE: tl.constexpr, SMOOTHING: tl.constexpr, SOFTCAP: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Store the summary [S, N] of each range of RANGE columns, and in ``chosens`` z of the target, or 0 if it is in another
    range.
    """
    tl.static_assert(RANGE % BLOCK_V == 0, "a range of columns holds whole tiles")
    acc: tl.constexpr = tops.dtype.element_ty
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(1)
    live = rows < n
    y, _, _ = read_target(target, rows, live, ignore_index, V)
    first = part * RANGE
    top = tl.full([BLOCK_N], float("-inf"), acc)
    total = tl.zeros([BLOCK_N], acc)
    weighted, seen, chosen = tl.zeros([BLOCK_N], acc), tl.zeros([BLOCK_N], acc), tl.zeros([BLOCK_N], acc)
    best = tl.zeros([BLOCK_N], tl.int32)
    for begin in range(0, RANGE, BLOCK_V):
        columns = first + begin + tl.arange(0, BLOCK_V)
        inside = columns[None, :] < V
        z = logits_tile(
            x, w, b, rows, columns, n, V, acc, D, SOFTCAP, BLOCK_N, BLOCK_V, BLOCK_D, PRECISION
        )  # fmt: skip
        if V % RANGE != 0:
            z = tl.where(inside, z, float("-inf"))
        weights = tl.full([1, BLOCK_V], 1.0, acc)
        if SMOOTHING > 0 and weight is not None:
            weights = tl.load(weight + columns[None, :], mask=inside, other=0.0).to(acc)
        chosen += tl.sum(tl.where(columns[None, :] == y[:, None], z, 0.0), axis=1)
        tile_top, tile_total, tile_weighted, tile_seen = summarise(z, weights, inside, SMOOTHING)
        if bests is not None:
            best = tl.where((tile_top > top) | (begin == 0), first_of(z, tile_top, columns), best)
        top, total, weighted, seen = merge(
            top, total, weighted, seen, tile_top, tile_total, tile_weighted, tile_seen, SMOOTHING
        )  # fmt: skip
    at = part.to(tl.int64) * n + rows
    tl.store(tops + at, top, mask=live)
    tl.store(totals + at, total, mask=live)
    tl.store(chosens + at, chosen, mask=live)
    if SMOOTHING > 0:
        tl.store(weighteds + at, weighted, mask=live)
        tl.store(seens + part, tl.max(seen, axis=0))  # the same in each row
    if bests is not None:
        tl.store(bests + at, best, mask=live)


@triton.jit(do_not_specialize=["ignore_index"])
def tiles_combine(
    target, weight, tops, totals, chosens, weighteds, bests, seens, loss, top_out, log_sum, best_out, n, ignore_index,
    V: tl.constexpr, PARTS: tl.constexpr, SMOOTHING: tl.constexpr, Z_LOSS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Store loss, top, log_sum and argmax [N] from the summaries [S, N], range after range."""
    acc: tl.constexpr = loss.dtype.element_ty
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = rows < n
    y, counted, valid = read_target(target, rows, live, ignore_index, V)
    top = tl.full([BLOCK_N], float("-inf"), acc)
    total = tl.zeros([BLOCK_N], acc)
    weighted, seen, chosen = tl.zeros([BLOCK_N], acc), tl.zeros([BLOCK_N], acc), tl.zeros([BLOCK_N], acc)
    best = tl.zeros([BLOCK_N], tl.int32)
    at = rows
    for part in range(PARTS):
        part_top = tl.load(tops + at, mask=live, other=0.0)
        part_total = tl.load(totals + at, mask=live, other=1.0)
        part_weighted, part_seen = part_total, part_total
        if SMOOTHING > 0:
            part_weighted = tl.load(weighteds + at, mask=live, other=0.0)
            part_seen = tl.zeros([BLOCK_N], acc) + tl.load(seens + part)
        chosen += tl.load(chosens + at, mask=live, other=0.0)
        if bests is not None:
            best = tl.where((part_top > top) | (part == 0), tl.load(bests + at, mask=live, other=0), best)
        top, total, weighted, seen = merge(
            top, total, weighted, seen, part_top, part_total, part_weighted, part_seen, SMOOTHING
        )  # fmt: skip
        at += n
    weight_y = class_weight(weight, y, valid, acc)
    write_row(
        loss, top_out, log_sum, rows, live, counted, valid, weight_y, chosen, top, total, weighted, seen, V, SMOOTHING, Z_LOSS
    )  # fmt: skip
    if best_out is not None:
        tl.store(best_out + rows, best.to(tl.int64), mask=live)


@triton.jit(do_not_specialize=["ignore_index"])
def tiles_backward(
    x, w, b, grad, kept, target, weight, weight_total, top, log_sum, upstream, upstream_lse, first, n, left, end,
    grad_stride, upstream_stride, lse_stride, ignore_index,
    V: tl.constexpr, D: tl.constexpr, SMOOTHING: tl.constexpr, Z_LOSS: tl.constexpr, SOFTCAP: tl.constexpr,
    FILTER_EPS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Store dL / d logits of rows first .. n - 1 and columns left .. end - 1 in ``grad`` [n - first, end - left].

    With ``kept`` [tiles of rows, tiles of columns] store there, too, whether each tile matters: whether one of its
    probabilities is not below FILTER_EPS, or a row has its target or a factor that is not finite. The gradient of a tile that
    does not matter is 0; without a bias, whose gradient is a sum over ``grad``, it is not stored.
    """
    acc: tl.constexpr = top.dtype.element_ty
    rows = first + tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = left + tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    live, inside = rows < n, columns[None, :] < end
    z = logits_tile(
        x, w, b, rows, columns, n, end, acc, D, SOFTCAP, BLOCK_N, BLOCK_V, BLOCK_D, PRECISION
    )  # fmt: skip
    y, counted, valid = read_target(target, rows, live, ignore_index, V)
    base = tl.load(top + rows, mask=live, other=0.0)
    rest = tl.load(log_sum + rows, mask=live, other=0.0)
    softmax, onehot, spread = row_factors(
        upstream, upstream_lse, weight, weight_total, rows, live, y, counted, valid, base, rest, upstream_stride, lse_stride,
        V, SMOOTHING, Z_LOSS,
    )  # fmt: skip
    weights = tl.full([1, BLOCK_V], 1.0, acc)
    if SMOOTHING > 0 and weight is not None:
        weights = tl.load(weight + columns[None, :], mask=inside, other=0.0).to(acc)
    wanted = live if upstream_lse is not None else counted
    d = gradient(z, columns, y, wanted, softmax, onehot, spread, base, rest, weights, SMOOTHING, SOFTCAP)
    stored = live
    if kept is not None:
        small = tl.exp((z - base[:, None]) - rest[:, None]) < FILTER_EPS  # false for NaN
        elsewhere = (columns[None, :] != y[:, None]) | (counted == 0)[:, None]
        negligible = small & elsewhere & (tl.abs(softmax) < float("inf"))[:, None]
        matters = tl.max(tl.max((wanted[:, None] & inside & (negligible == 0)).to(tl.int32), axis=1), axis=0)
        tl.store(kept + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), matters.to(tl.int8))
        if b is None:
            stored = live & (tl.zeros([BLOCK_N], tl.int32) + matters > 0)
        else:
            d = tl.where(matters > 0, d, 0.0)
    at = grad + (rows - first).to(tl.int64)[:, None] * grad_stride + (columns - left)[None, :]
    tl.store(at, d.to(grad.dtype.element_ty), mask=stored[:, None] & inside)


@triton.jit
def kept_product(
    a, b, out, kept, m, k, a_row, a_k, kept_row, kept_k,
    D: tl.constexpr, ADD: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Store a b [m, D], or add it to ``out`` if ADD, by the tiles [BLOCK_M, BLOCK_K] of a [m, k] that are ``kept``.

    ``b`` [k, D] and ``out`` are contiguous. Tiles are added in the order of k; the others are not read.
    """
    tl.static_assert(BLOCK_K % DEPTH == 0, "a tile is a whole number of products")
    acc: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    features = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    row_live, feature_live = (rows < m)[:, None], (features < D)[None, :]
    a_tile = a + rows.to(tl.int64)[:, None] * a_row
    total = tl.zeros([BLOCK_M, BLOCK_D], acc)
    tiles = 0
    flags = kept + tl.program_id(0) * kept_row
    for begin in range(0, k, BLOCK_K):
        matters = tl.load(flags).to(tl.int32)
        flags += kept_k
        if matters > 0:
            tiles += 1
            for some in range(0, BLOCK_K, DEPTH):
                inner = begin + some + tl.arange(0, DEPTH)
                inner_live = inner < k
                left = tl.load(a_tile + inner.to(tl.int64)[None, :] * a_k, mask=row_live & inner_live[None, :], other=0.0)
                right = tl.load(
                    b + inner.to(tl.int64)[:, None] * D + features[None, :], mask=inner_live[:, None] & feature_live, other=0.0
                )
                total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=acc)
    at = out + rows.to(tl.int64)[:, None] * D + features[None, :]
    if ADD:
        if tiles > 0:
            total += tl.load(at, mask=row_live & feature_live, other=0.0)
            tl.store(at, total, mask=row_live & feature_live)
    else:
        tl.store(at, total.to(out.dtype.element_ty), mask=row_live & feature_live)
