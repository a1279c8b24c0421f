"""Launches of the loss's Triton bodies, and the loops over pieces of logits that avoid storing all of them.

Everything here is deterministic: each program writes to its own place, and pieces are summed in a fixed order. Nothing waits
for the device. Arguments are checked elsewhere.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from recurrent_lm.kernels.loss import plan as loss_plan
from recurrent_lm.kernels.loss.rows import rows_backward, rows_forward
from recurrent_lm.kernels.loss.terms import Decoded, Gradients, Rows, Terms, Upstream, accumulator, constants, empty_rows
from recurrent_lm.kernels.loss.tiles import kept_product, tiles_backward, tiles_combine, tiles_forward

FUSION = {"enable_fp_fusion": True}  # the default changes between versions of Triton


def rows_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, terms: Terms, best: bool, rows: Rows | None = None
) -> Rows:
    """The loss of each row of logits, in one pass over them.

    Args:
        logits: [N, V].
        target: [N] class indices.
        weight: [V] class weights, or None.
        terms: the options of the loss.
        best: whether to return the argmax, too.
        rows: memory for the results; None allocates it.

    Returns:
        Losses, log-sum-exp and argmax, [N] each.
    """
    n, v = logits.shape
    rows = empty_rows(n, logits, best) if rows is None else rows
    if n:
        tile = loss_plan.row_tiles(v)
        with torch.cuda.device_of(logits):
            rows_forward[(triton.cdiv(n, tile.rows),)](
                logits, target, weight, rows.loss, rows.top, rows.log_sum, rows.best if best else None,
                n, logits.stride(0), terms.ignore_index, **constants(terms, v),
                ROWS=tile.rows, BLOCK=tile.block, num_warps=tile.warps, **FUSION,
            )  # fmt: skip
    return rows


def rows_gradient(
    logits: Tensor,
    grad: Tensor,
    target: Tensor,
    weight: Tensor | None,
    top: Tensor,
    log_sum: Tensor,
    of: Upstream,
    terms: Terms,
) -> None:
    """Write dL / d logits to ``grad`` [N, V], which may be ``logits``.

    Args:
        logits: [N, V].
        grad: [N, V], overwritten.
        target: [N] class indices.
        weight: [V] class weights, or None.
        top, log_sum: [N], whose sum is the log-sum-exp.
        of: dL / d loss [N], which must be given, and dL / d lse.
        terms: the options of the loss.
    """
    n, v = logits.shape
    if n:
        tile = loss_plan.row_tiles(v)
        with torch.cuda.device_of(logits):
            rows_backward[(triton.cdiv(n, tile.rows), triton.cdiv(v, tile.block))](
                logits, grad, target, weight, weight_total(weight, terms), top, log_sum, *of,
                n, logits.stride(0), grad.stride(0), *strides(of), terms.ignore_index,
                **constants(terms, v), ROWS=tile.rows, BLOCK=tile.block, num_warps=tile.warps, **FUSION,
            )  # fmt: skip


def weight_total(weight: Tensor | None, terms: Terms) -> Tensor | None:
    """The sum of the class weights, a scalar; None if no term needs it."""
    return weight.sum() if weight is not None and terms.label_smoothing > 0 else None


def strides(of: Upstream) -> tuple[int, int]:
    """The strides of dL / d loss and dL / d lse; 0 for one that is None."""
    assert of.loss is not None
    return of.loss.stride(0), 0 if of.lse is None else of.lse.stride(0)


def tiling(x: Tensor) -> tuple[loss_plan.Tiles, dict[str, Any]]:
    """The tile sizes for x [N, d], and the launch options that follow from them."""
    d = x.shape[1]
    tile = loss_plan.tiles(d, str(x.dtype).removeprefix("torch."))
    # allow_tf32 raises if a program has set this switch instead
    fast = x.is_cuda and x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    sizes = {"D": d, "BLOCK_N": tile.block_n, "BLOCK_V": tile.block_v, "BLOCK_D": tile.block_d}
    return tile, {
        **sizes,
        "PRECISION": "tf32" if fast else "ieee",
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        **FUSION,
    }


def cut_loss(decoded: Decoded, terms: Terms, best: bool) -> Rows:
    """The loss of each row, by tiles of logits that stay on the chip."""
    x, w, b, target, weight = decoded
    n, v = len(x), len(w)
    rows = empty_rows(n, x, best)
    if not n:
        return rows
    tile, how = tiling(x)
    span = loss_plan.column_range(n, v, tile)
    parts = triton.cdiv(v, span)
    smooth = terms.label_smoothing > 0
    summary = torch.empty(4 if smooth else 3, parts, n, dtype=rows.loss.dtype, device=x.device)
    bests = torch.empty(parts, n, dtype=torch.int32, device=x.device) if best else None
    seens = torch.empty(parts, dtype=rows.loss.dtype, device=x.device) if smooth else None
    weighteds = summary[3] if smooth else None
    fixed = constants(terms, v)
    softcap, z_loss = fixed.pop("SOFTCAP"), fixed.pop("Z_LOSS")
    with torch.cuda.device_of(x):
        tiles_forward[(triton.cdiv(n, tile.block_n), parts)](
            x, w, b, target, weight, summary[0], summary[1], summary[2], weighteds, bests, seens,
            n, terms.ignore_index, RANGE=span, SOFTCAP=softcap, **fixed, **how,
        )  # fmt: skip
        tiles_combine[(triton.cdiv(n, 128),)](
            target, weight, summary[0], summary[1], summary[2], weighteds, bests, seens,
            rows.loss, rows.top, rows.log_sum, rows.best if best else None,
            n, terms.ignore_index, PARTS=parts, Z_LOSS=z_loss, **fixed, BLOCK_N=128, num_warps=4, **FUSION,
        )  # fmt: skip
    return rows


def cut_gradients(
    decoded: Decoded,
    top: Tensor,
    log_sum: Tensor,
    of: Upstream,
    terms: Terms,
    need: tuple[bool, bool, bool],
    filter_eps: float | None = None,
) -> Gradients:
    """Gradients of x, w and b where needed: logits are computed again piece by piece, see ``loss_plan.cut_walk``.

    Without ``filter_eps`` the products are the library's. With it they skip tiles whose probabilities are all smaller.
    """
    x, w, b, target, weight = decoded
    n, d = x.shape
    v, total = len(w), weight_total(weight, terms)
    dtype = accumulator(x.dtype)
    walk = loss_plan.cut_walk(n, v, d, str(x.dtype).removeprefix("torch."))
    tile, how = tiling(x)
    d_x = torch.zeros_like(x, memory_format=torch.contiguous_format) if need[0] else None
    d_w = torch.zeros_like(w, memory_format=torch.contiguous_format) if need[1] else None
    d_b = torch.zeros(v, dtype=dtype, device=x.device) if need[2] else None
    kept: Tensor | None = None

    def piece(first: int, last: int, left: int, right: int) -> Tensor:
        nonlocal kept
        grad = buffer[: (last - first) * (right - left)].view(last - first, right - left)
        grid = triton.cdiv(last - first, tile.block_n), triton.cdiv(right - left, tile.block_v)
        kept = None if filter_eps is None else x.new_empty(grid, dtype=torch.int8)
        with torch.cuda.device_of(x):
            tiles_backward[grid](
                x, w, b, grad, kept, target, weight, total, top, log_sum, *of,
                first, last, left, right, grad.stride(0), *strides(of),
                terms.ignore_index, FILTER_EPS=filter_eps, **constants(terms, v), **how,
            )  # fmt: skip
        return grad

    def add(sums: Tensor, grad: Tensor, w: Tensor) -> None:
        if kept is None:
            add_product(sums, grad, w)
        else:
            multiply_kept(grad, w, sums, kept, True, tile, how)

    if not n:
        return d_x, d_w, d_b
    once = walk.once(n)
    if need[1] or need[2] or once:
        buffer = x.new_empty(n * min(walk.columns, v))
        sums = None
        if once and d_x is not None:
            sums = d_x if d_x.dtype == dtype else torch.zeros_like(d_x, dtype=dtype)
        for left in range(0, v, walk.columns):
            part = slice(left, min(left + walk.columns, v))
            grad = piece(0, n, left, part.stop)
            if d_w is not None:
                if kept is None:
                    torch.mm(grad.t(), x, out=d_w[part])
                else:
                    multiply_kept(grad.t(), x, d_w[part], kept.t(), False, tile, how)
            if d_b is not None:
                d_b[part] = grad.sum(0, dtype=dtype)
            if sums is not None:
                add(sums, grad, w[part])
        if d_x is not None and sums is not None and sums is not d_x:
            d_x.copy_(sums)
        del buffer, sums
    if d_x is not None and not once:
        buffer = x.new_empty(walk.rows * min(walk.row_columns, v))
        for first in range(0, n, walk.rows):
            last = min(first + walk.rows, n)
            sums = torch.zeros(last - first, d, dtype=dtype, device=x.device)
            for left in range(0, v, walk.row_columns):
                right = min(left + walk.row_columns, v)
                add(sums, piece(first, last, left, right), w[left:right])
            d_x[first:last] = sums
    return d_x, d_w, d_b


def multiply_kept(
    a: Tensor, b: Tensor, out: Tensor, kept: Tensor, add: bool, tile: loss_plan.Tiles, how: dict[str, Any]
) -> None:
    """out = a b, or out += a b, by the tiles of a that are ``kept``: [m, k], [k, d], [m, d] and [tiles of m, tiles of k]."""
    (m, k), d = a.shape, b.shape[1]
    block_m, block_k = (tile.block_n, tile.block_v) if add else (tile.block_v, tile.block_n)
    block_d = min(tile.block_v, max(16, triton.next_power_of_2(d)))
    with torch.cuda.device_of(a):
        kept_product[(kept.shape[0], triton.cdiv(d, block_d))](
            a, b, out, kept, m, k, *a.stride(), *kept.stride(),
            D=d, ADD=add, BLOCK_M=block_m, BLOCK_K=block_k, BLOCK_D=block_d, DEPTH=tile.block_d, PRECISION=how["PRECISION"],
            num_warps=tile.warps, num_stages=tile.stages, **FUSION,
        )  # fmt: skip


def chunked_gradients(
    decoded: Decoded, of: Upstream, terms: Terms, need: tuple[bool, bool, bool], best: bool
) -> tuple[Rows, Gradients]:
    """The loss of each row and the gradients of sum(of.loss * loss + of.lse * lse), some rows at a time.

    A chunk's logits are overwritten by their gradient. The gradients of w and b are sums in float32 (float64 for float64).
    """
    x, w, b, target, weight = decoded
    n, v = len(x), len(w)
    dtype = accumulator(x.dtype)
    rows = empty_rows(n, x, best)
    d_x = torch.empty_like(x, memory_format=torch.contiguous_format) if need[0] else None
    d_w = torch.zeros(w.shape, dtype=dtype, device=x.device) if need[1] else None
    d_b = torch.zeros(v, dtype=dtype, device=x.device) if need[2] else None
    size = loss_plan.chunk_rows(n, v, x.element_size())
    stride = loss_plan.padded(v)
    buffer = x.new_empty(min(size, n), stride)
    if not x.is_cuda:
        buffer[:, v:] = 0  # oneDNN reads halves in pairs, one beyond an odd v
    # cuBLAS adds the bias itself if the result is contiguous; otherwise torch writes it to each row first, which the product
    # reads. Those are two times N V numbers, a padded copy of W is three times V d.
    pad = stride - v if b is not None and loss_plan.copies_weight(n, v, x.shape[1]) else 0
    wide_w, wide_b = (F.pad(w, (0, 0, 0, pad)), F.pad(b, (0, pad))) if b is not None and pad else (w, b)
    for first in range(0, n, size):
        part = slice(first, min(first + size, n))
        whole = buffer[: part.stop - first, : v + pad]
        logits = whole[:, :v]
        if wide_b is None:
            torch.mm(x[part], w.t(), out=logits)
        else:
            torch.addmm(wide_b, x[part], wide_w.t(), out=whole)
        here = rows_loss(logits, target[part], weight, terms, best, rows.part(part))
        if not any(need):
            continue
        of_part = Upstream(*(None if g is None else g[part] for g in of))
        rows_gradient(logits, logits, target[part], weight, here.top, here.log_sum, of_part, terms)
        if d_x is not None:
            torch.mm(logits, w, out=d_x[part])
        if d_w is not None:
            add_product(d_w, logits.t(), x[part])
        if d_b is not None:
            d_b += logits.sum(0, dtype=dtype)
    return rows, (d_x, d_w, d_b)


def add_product(sums: Tensor, a: Tensor, b: Tensor) -> None:
    """sums += a b; the product of 16-bit numbers is not rounded before the addition."""
    if sums.dtype == a.dtype:
        sums.addmm_(a, b)
    elif sums.is_cuda:
        torch.addmm(sums, a, b, out_dtype=sums.dtype, out=sums)
    else:
        sums.addmm_(a.to(sums.dtype), b.to(sums.dtype))
