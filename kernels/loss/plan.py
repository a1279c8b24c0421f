"""Chooses the strategy of the fused loss and the sizes of its pieces: pure functions of sizes, without GPU or torch.

Two strategies for the loss of N rows over V classes from d features. "cut" computes tiles of logits on the chip and keeps their
log-sum-exp; the backward pass computes the logits again, into a buffer of at most 1% of N x V x 4 bytes. "chunked" computes the
logits of some rows in a buffer, and their gradients at once, in the forward pass. In products of N V d multiply-adds: cut 1
without gradients, 4 or 5 with them; chunked 3.
"""

from dataclasses import dataclass
from typing import Any

WHAT = {
    "cut": "tiles of logits on the chip, made again for their gradient",
    "chunked": "the logits of some rows at a time, their gradient made with the loss",
}
STRATEGIES = tuple(WHAT)
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
HALVES = ("float16", "bfloat16")
SHARE = 0.01  # of N x V x 4 bytes: the memory of "cut" beyond the gradients
BUFFER = 2**28  # bytes; chunks up to this size need not be split
LARGEST_BUFFER = 2**30  # bytes
ROWS = 2048  # a float32 gradient of the weight is read and written once a chunk: a seventh of the time at 2048 rows
MULTIPROCESSORS = 132

# Cycles of a program of "cut" in 16 bits, counted in machine code (``bench.walk``, Triton 3.9, sm_90); ``tests/kernels/bench``
# compares them with today's count.
ROUND = {"tiles_forward": 493.0, "tiles_backward": 585.0}  # of each ``block_d`` of d
TILE = 3003.0  # of a tile beside them, forward; a guess backward, where a program has one tile and no loop to walk through
CLOCK = 1755.0  # cycles a microsecond: a guess, as is one program at a time on a multiprocessor


@dataclass(frozen=True)
class RowTiles:
    """A program's tile of logits in ``loss_rows``."""

    rows: int
    block: int
    warps: int


@dataclass(frozen=True)
class Tiles:
    """A program's tile of logits in ``loss_tiles``, and how much of d it multiplies at once."""

    block_n: int
    block_v: int
    block_d: int
    warps: int
    stages: int


@dataclass(frozen=True)
class LossPlan:
    """The strategy that runs, the reason for it, and the bytes it needs beyond the gradients."""

    strategy: str
    why: str
    products: int  # of N V d multiply-adds each
    extra_bytes: int


def row_tiles(v: int) -> RowTiles:
    """The tile of a program for rows of V columns: one row, up to 4,096 columns at a time, or several short rows."""
    block = min(4096, max(16, _power_of_two(v)))
    return RowTiles(max(1, 2048 // block), block, 8 if block == 4096 else 4)


def tiles(d: int, dtype: str) -> Tiles:
    """Sizes for d features that keep accumulators in registers and a pipeline of tiles in 163 KB of shared memory."""
    depth = max(16, min(64, _power_of_two(d)))
    if dtype in HALVES:
        return Tiles(128, 128, depth, 8, 3)
    return Tiles(64, 64, min(32, depth), 8, 2) if dtype == "float32" else Tiles(32, 32, 16, 4, 1)


def column_range(n: int, v: int, tile: Tiles, multiprocessors: int = MULTIPROCESSORS) -> int:
    """The columns of one program of ``tiles_forward``: few enough for four waves of programs, but at least 1,024 columns."""
    parts = max(1, min(-(-4 * multiprocessors * tile.block_n // max(n, 1)), v // 1024))
    return -(-v // (parts * tile.block_v)) * tile.block_v


def chunk_rows(n: int, v: int, itemsize: int) -> int:
    """The rows of a chunk: all if they fit 256 MB, otherwise 2,048, at most 1 GB of logits; a multiple of 128."""
    fit = max(BUFFER // (v * itemsize), min(ROWS, LARGEST_BUFFER // (v * itemsize)))
    return max(n, 1) if fit >= n else max(128, fit // 128 * 128)


def padded(v: int) -> int:
    """The length of a chunk's rows of V logits: a multiple of 16, by which Triton knows that loads of 128 bits are allowed."""
    return -(-v // 16) * 16


def copies_weight(n: int, v: int, d: int) -> bool:
    """Whether chunks of rows with a bias copy the weight to a padded one: where that moves fewer bytes than it saves."""
    return padded(v) > v and 2 * n > 3 * d


@dataclass(frozen=True)
class CutWalk:
    """The pieces of ``cut``'s backward pass: all rows and some columns, or, for the input, some rows and some columns."""

    columns: int
    rows: int  # of the input's gradient summed at a time; all of them if one walk serves both gradients
    row_columns: int
    extra_bytes: int

    def once(self, n: int) -> bool:
        """Whether one walk gives both gradients."""
        return self.rows >= n


def cut_walk(n: int, v: int, d: int, dtype: str) -> CutWalk:
    """Pieces whose gradient, with the input's gradient in float32 beside it, takes at most 1% of N x V x 4 bytes.

    A piece of all rows gives the weight's gradient of its columns at once, while the input's is summed over all pieces. If
    float32 sums for all rows do not fit, a second pass computes the logits once more for some rows at a time. Pieces have at
    least 16 columns and 16 rows, so tiny problems may take more than 1%.
    """
    itemsize, sums = ITEMSIZE[dtype], 4 * d if dtype in HALVES else 0
    n = max(n, 1)
    budget = int(SHARE * n * v * 4) - 24 * n  # up to three numbers of eight bytes a row are kept beside the buffer
    columns = (budget - sums * n) // (n * itemsize)
    rows = max(16, min(budget // 2 // sums, budget // (sums + 16 * itemsize)) // 16 * 16) if sums else n
    if columns >= 256 or rows >= n:
        columns = _multiple(columns, v)
        return CutWalk(columns, n, columns, n * (columns * itemsize + sums))
    columns, row_columns = _multiple(budget // (n * itemsize), v), _multiple((budget - rows * sums) // (rows * itemsize), v)
    return CutWalk(columns, rows, row_columns, max(n * columns * itemsize, rows * (row_columns * itemsize + sums)))


def choose_loss_plan(
    n: int, v: int, d: int, dtype: str, *, gradients: bool = True, single: bool = False, strategy: str | None = None
) -> LossPlan:
    """Choose the strategy for N rows, V classes and d features.

    Args:
        n, v, d: rows, classes and features.
        dtype: of the products, as in "bfloat16".
        gradients: whether any will be asked for.
        single: whether single losses or log-sum-exps are differentiated (``reduction="none"``, ``return_lse``).
        strategy: "cut" or "chunked" to ask for one by name.

    Returns:
        The strategy, the reason for it, and its memory.

    Raises:
        ValueError: for an unknown strategy or dtype, and without classes.
    """
    if strategy is not None and strategy not in STRATEGIES:
        raise ValueError(f"strategy must be cut or chunked, not {strategy!r}")
    if dtype not in ITEMSIZE:
        raise ValueError(f"the dtype of the products must be one of {', '.join(ITEMSIZE)}, not {dtype!r}")
    if v < 1:
        raise ValueError("there must be at least one class")
    itemsize = ITEMSIZE[dtype]
    chunked = chunk_rows(n, v, itemsize) * v * itemsize + (4 * v * d if gradients and dtype in HALVES else 0)
    if copies_weight(n, v, d):
        chunked += v * d * itemsize  # if there is a bias
    limit = max(BUFFER, n * v * itemsize)
    if strategy is not None:
        chosen, why = strategy, "it was asked for"
    elif dtype not in HALVES:
        chosen, why = "chunked", f"products in {dtype} are the library's, which tiles on the chip do not beat"
    elif not gradients:
        chosen, why = "cut", "without gradients one product makes the loss, and no logits are written"
    elif single:
        chosen, why = "cut", "gradients of single losses are not known in the forward pass, so logits are made twice anyway"
    elif chunked > limit:
        chosen, why = "cut", f"chunks and the weight's float32 gradient would take {_size(chunked)}, more than {_size(limit)}"
    else:
        chosen, why = "chunked", f"it makes each logit once, for {_size(chunked)}, which is no more than {_size(limit)}"
    if chosen == "chunked":
        return LossPlan(chosen, why, (4 if single else 3) if gradients else 1, chunked)
    walk = cut_walk(n, v, d, dtype)
    forward = 12 * n * -(-v // column_range(n, v, tiles(d, dtype)))
    extra = 16 * n + max(forward, walk.extra_bytes if gradients else 0)
    return LossPlan(chosen, why, (4 if walk.once(n) else 5) if gradients else 1, extra)


def tiles_time(n: int, v: int, d: int, kernel: str) -> float:
    """Predict the microseconds in which all N x V logits go through a kernel of "cut", in 16 bits on sm_90.

    Args:
        n, v, d: rows, classes and features.
        kernel: a key of ``ROUND``.
    """
    tile = tiles(d, "bfloat16")
    count = -(-max(n, 1) // tile.block_n) * -(-v // tile.block_v)
    return -(-count // MULTIPROCESSORS) * (TILE + -(-d // tile.block_d) * ROUND[kernel]) / CLOCK


def explain_linear_cross_entropy(n: int, v: int, d: int, dtype: str = "bfloat16", **how: Any) -> str:
    """Explain the strategy that ``linear_cross_entropy`` takes, and the cost of each.

    Args:
        n, v, d: rows, classes and features.
        dtype: of the products.
        how: ``gradients``, ``single`` and ``strategy`` as in ``choose_loss_plan``.

    Returns:
        Lines of text.

    Raises:
        ValueError: for unknown names, and without classes.
    """
    plan, whole = choose_loss_plan(n, v, d, dtype, **how), _size(n * v * ITEMSIZE[dtype])
    lines = [f"N = {n:,} rows, V = {v:,} classes, d = {d:,} features in {dtype}: the logits alone would be {whole}"]
    for strategy, description in WHAT.items():
        one = choose_loss_plan(n, v, d, dtype, **how | {"strategy": strategy})
        work = f"{one.products} product{'s' * (one.products > 1)} of N V d"
        lines.append(f"  {strategy:8} {work}, {_size(one.extra_bytes)} beyond the gradients: {description}")
        if strategy == "cut" and dtype in HALVES:
            forward, backward = (tiles_time(n, v, d, kernel) / 1000 for kernel in ROUND)
            walks = one.products - 3  # the gradients of x and w are two products of the library
            more = f", their gradient {walks * backward:.2f} ms" if walks > 0 else ""
            lines += [
                f"           its tiles take {forward:.2f} ms{more} on sm_90, by cycles counted in machine code;",
                f"           guesses are {CLOCK:.0f} MHz and one program on each of {MULTIPROCESSORS} multiprocessors, and the",
                "           library's products are not counted",
            ]
    return "\n".join([*lines, f"  triton runs {plan.strategy}: {plan.why}"])


def _multiple(columns: int, v: int) -> int:
    """A multiple of 16, at least 16 and no more than V needs."""
    return min(max(16, columns // 16 * 16), -(-v // 16) * 16)


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
