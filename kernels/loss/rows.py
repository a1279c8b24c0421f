"""Softmax cross-entropy on rows of logits: two Triton bodies, one for each direction, and the functions that the tiles share.

With z the logits, capped to c tanh(l / c) if asked, and w the class weights, a row's loss is

    (1 - e) w[y] (lse - z[y])  +  e / V sum_v w[v] (lse - z[v])  +  k lse^2        e: smoothing, k: z_loss

and its gradient is A softmax(z) - C w - B onehot(y), three numbers a row. The log-sum-exp is kept as the largest logit and
the log of the rest, so that logits of 1e4 lose nothing. Nothing here imports torch.
"""

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """tanh by exp where that is accurate, and by its [7/6] Pade approximant (error below 3e-16) around 0."""
    t = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - t) / (1.0 + t)
    small = tl.where(tl.abs(x) < 0.5, x, 0.0)
    s = small * small
    near = small * (135135.0 + s * (17325.0 + s * (378.0 + s))) / (135135.0 + s * (62370.0 + s * (3150.0 + s * 28.0)))
    return tl.where(tl.abs(x) < 0.5, near, tl.where(x < 0, -far, far))


@triton.jit
def capped(logits, SOFTCAP: tl.constexpr):
    """c tanh(logits / c) with c = SOFTCAP; the logits themselves if SOFTCAP is None."""
    return logits if SOFTCAP is None else SOFTCAP * tanh(logits / SOFTCAP)


@triton.jit
def finite(top):
    """The number to subtract before exp: the largest logit, or 0 if all are -inf."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def summarise(z, weights, inside, SMOOTHING: tl.constexpr):
    """Summarise a tile [R, C]: the largest z, sum exp(z - largest), and for smoothing sum w (z - largest) and sum w; each
    [R].
    """
    top = tl.max(z, axis=1)
    base = finite(top)
    rest = z - base[:, None]
    total = tl.sum(tl.exp(rest), axis=1)
    weighted, seen = total, total
    if SMOOTHING > 0:
        weighted = tl.sum(tl.where(inside, weights * rest, 0.0), axis=1)
        seen = tl.sum(tl.where(inside, weights, 0.0), axis=1)
    return top, total, weighted, seen


@triton.jit
def merge(a_top, a_total, a_weighted, a_seen, b_top, b_total, b_weighted, b_seen, SMOOTHING: tl.constexpr):
    """The summary of two sets of columns, from the summary of each."""
    top = tl.maximum(a_top, b_top)
    base = finite(top)
    total = a_total * tl.exp(a_top - base) + b_total * tl.exp(b_top - base)
    weighted, seen = total, total
    if SMOOTHING > 0:
        weighted = a_weighted + a_seen * (finite(a_top) - base) + b_weighted + b_seen * (finite(b_top) - base)
        seen = a_seen + b_seen
    return top, total, weighted, seen


@triton.jit
def first_of(z, top, columns):
    """The first column that holds the largest z, or NaN; [R]."""
    return tl.min(tl.where((z == top[:, None]) | (z != z), columns[None, :], 2147483647), axis=1)


@triton.jit
def read_target(target, rows, live, ignore_index, V: tl.constexpr):
    """The class of each row, whether the row counts, and whether its target is a class; a row that counts without one gets
    NaN.
    """
    y = tl.load(target + rows, mask=live, other=0).to(tl.int64)
    counted = live & (y != ignore_index)
    valid = counted & (y >= 0) & (y < V)
    tl.device_assert(valid | (counted == 0), "a target is neither a class nor ignore_index")
    return y, counted, valid


@triton.jit
def class_weight(weight, y, valid, like):
    """The class weight of each row's target; 1 without weights."""
    return tl.full(y.shape, 1.0, like) if weight is None else tl.load(weight + y, mask=valid, other=0.0).to(like)


@triton.jit
def write_row(
    loss, top_out, log_sum, rows, live, counted, valid, weight_y, z_y, top, total, weighted, seen,
    V: tl.constexpr, SMOOTHING: tl.constexpr, Z_LOSS: tl.constexpr,
):  # fmt: skip
    """The loss of each row, and its log-sum-exp in two parts."""
    base, rest = finite(top), tl.log(total)
    value = (1.0 - SMOOTHING) * weight_y * (rest + (base - z_y))
    if SMOOTHING > 0:
        value += SMOOTHING / V * (seen * rest - weighted)
    if Z_LOSS > 0:
        value += Z_LOSS * (base + rest) * (base + rest)
    value = tl.where(counted, tl.where(valid, value, float("nan")), 0.0)
    tl.store(loss + rows, value, mask=live)
    tl.store(top_out + rows, base, mask=live)
    tl.store(log_sum + rows, rest, mask=live)


@triton.jit
def row_factors(
    upstream, upstream_lse, weight, weight_total, rows, live, y, counted, valid, base, rest, upstream_stride, lse_stride,
    V: tl.constexpr, SMOOTHING: tl.constexpr, Z_LOSS: tl.constexpr,
):  # fmt: skip
    """A, B and C of each row (see the top of the file); 0 if the row does not count, NaN if its target is no class."""
    g = tl.load(upstream + rows * upstream_stride, mask=live, other=0.0).to(base.dtype)
    g = tl.where(counted, tl.where(valid, g, float("nan")), 0.0)
    onehot = g * (1.0 - SMOOTHING) * class_weight(weight, y, valid, base.dtype)
    spread = g * (SMOOTHING / V)
    softmax = onehot
    if SMOOTHING > 0:
        softmax += spread * V if weight is None else spread * tl.load(weight_total).to(base.dtype)
    if Z_LOSS > 0:
        softmax += 2.0 * Z_LOSS * g * (base + rest)
    if upstream_lse is not None:
        softmax += tl.load(upstream_lse + rows * lse_stride, mask=live, other=0.0).to(base.dtype)
    return softmax, onehot, spread


@triton.jit
def gradient(
    z, columns, y, wanted, softmax, onehot, spread, base, rest, weights, SMOOTHING: tl.constexpr, SOFTCAP: tl.constexpr
):  # fmt: skip
    """dL / d logits of a tile [R, C]; exactly 0 in rows that are not ``wanted``."""
    d = softmax[:, None] * tl.exp((z - base[:, None]) - rest[:, None])
    d -= tl.where(columns[None, :] == y[:, None], onehot[:, None], 0.0)
    if SMOOTHING > 0:
        d -= spread[:, None] * weights
    if SOFTCAP is not None:
        d *= 1.0 - (z / SOFTCAP) * (z / SOFTCAP)
    return tl.where(wanted[:, None], d, 0.0)


@triton.jit(do_not_specialize=["ignore_index"])
def rows_forward(
    logits, target, weight, loss, top_out, log_sum, best_out, n, row_stride, ignore_index,
    V: tl.constexpr, SMOOTHING: tl.constexpr, Z_LOSS: tl.constexpr, SOFTCAP: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """loss, top, log_sum [N], and the argmax if ``best_out`` is given, of logits [N, V]: one pass, BLOCK columns at a time."""
    acc: tl.constexpr = loss.dtype.element_ty
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = rows < n
    y, counted, valid = read_target(target, rows, live, ignore_index, V)
    start = logits + rows * row_stride
    top = tl.full([ROWS], float("-inf"), acc)
    total = tl.zeros([ROWS], acc)
    weighted, seen = tl.zeros([ROWS], acc), tl.zeros([ROWS], acc)
    best = tl.zeros([ROWS], tl.int32)
    for begin in range(0, V, BLOCK):
        columns = begin + tl.arange(0, BLOCK)
        inside = columns[None, :] < V
        z = tl.load(start[:, None] + columns[None, :], mask=live[:, None] & inside, other=float("-inf")).to(acc)
        z = capped(z, SOFTCAP)
        if V % BLOCK != 0 and SOFTCAP is not None:
            z = tl.where(inside, z, float("-inf"))
        weights = tl.full([1, BLOCK], 1.0, acc)
        if SMOOTHING > 0 and weight is not None:
            weights = tl.load(weight + columns[None, :], mask=inside, other=0.0).to(acc)
        tile_top, tile_total, tile_weighted, tile_seen = summarise(z, weights, inside, SMOOTHING)
        if best_out is not None:
            best = tl.where((tile_top > top) | (begin == 0), first_of(z, tile_top, columns), best)
        top, total, weighted, seen = merge(
            top, total, weighted, seen, tile_top, tile_total, tile_weighted, tile_seen, SMOOTHING
        )  # fmt: skip
    z_y = capped(tl.load(start + y, mask=valid, other=0.0).to(acc), SOFTCAP)
    weight_y = class_weight(weight, y, valid, acc)
    write_row(
        loss, top_out, log_sum, rows, live, counted, valid, weight_y, z_y, top, total, weighted, seen, V, SMOOTHING, Z_LOSS
    )  # fmt: skip
    if best_out is not None:
        tl.store(best_out + rows, best.to(tl.int64), mask=live)


@triton.jit(do_not_specialize=["ignore_index"])
def rows_backward(
    logits, grad, target, weight, weight_total, top, log_sum, upstream, upstream_lse, n, row_stride, grad_stride,
    upstream_stride, lse_stride, ignore_index,
    V: tl.constexpr, SMOOTHING: tl.constexpr, Z_LOSS: tl.constexpr, SOFTCAP: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """dL / d logits [N, V], one tile a program; ``grad`` may be ``logits``."""
    acc: tl.constexpr = top.dtype.element_ty
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live, inside = rows < n, columns[None, :] < V
    within = live[:, None] & inside
    y, counted, valid = read_target(target, rows, live, ignore_index, V)
    base = tl.load(top + rows, mask=live, other=0.0)
    rest = tl.load(log_sum + rows, mask=live, other=0.0)
    softmax, onehot, spread = row_factors(
        upstream, upstream_lse, weight, weight_total, rows, live, y, counted, valid, base, rest, upstream_stride, lse_stride,
        V, SMOOTHING, Z_LOSS,
    )  # fmt: skip
    z = tl.load(logits + rows[:, None] * row_stride + columns[None, :], mask=within, other=0.0).to(acc)
    z = capped(z, SOFTCAP)
    weights = tl.full([1, BLOCK], 1.0, acc)
    if SMOOTHING > 0 and weight is not None:
        weights = tl.load(weight + columns[None, :], mask=inside, other=0.0).to(acc)
    wanted = live if upstream_lse is not None else counted
    d = gradient(z, columns, y, wanted, softmax, onehot, spread, base, rest, weights, SMOOTHING, SOFTCAP)
    tl.store(grad + rows[:, None] * grad_stride + columns[None, :], d.to(grad.dtype.element_ty), mask=within)
