"""Which strategy the fused loss takes and in what pieces: pure functions, tried over all sizes a language model has."""

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recurrent_lm.kernels import explain_linear_cross_entropy
from recurrent_lm.kernels.loss import plan as loss_plan
from recurrent_lm.kernels.loss.plan import ITEMSIZE, choose_loss_plan, chunk_rows, column_range, cut_walk, row_tiles, tiles

SIZES = {"n": st.integers(1, 100_000), "v": st.integers(1, 262_144), "d": st.integers(1, 4096)}
DTYPES = st.sampled_from(sorted(ITEMSIZE))


@pytest.mark.parametrize(
    ("how", "strategy", "why"),
    [
        ({}, "chunked", "makes each logit once"),
        ({"gradients": False}, "cut", "without gradients"),
        ({"single": True}, "cut", "not known in the forward pass"),
        ({"dtype": "float32"}, "chunked", "products in float32 are the library's"),
        ({"dtype": "float64", "gradients": False}, "chunked", "products in float64 are the library's"),
        ({"n": 512}, "cut", "more than"),
        ({"strategy": "cut"}, "cut", "asked for"),
        ({"n": 512, "strategy": "chunked"}, "chunked", "asked for"),
    ],
    ids=str,
)
def test_choice(how: dict, strategy: str, why: str) -> None:
    """Each rule once, from a training step of 8,192 tokens over 128,256 classes."""
    sizes = {"n": 8192, "v": 128_256, "d": 2048, "dtype": "bfloat16"} | how
    plan = choose_loss_plan(**sizes)
    assert plan.strategy == strategy
    assert why in plan.why


def test_explained_in_numbers() -> None:
    """What each strategy costs beside the logits it avoids, and why one of them runs."""
    assert explain_linear_cross_entropy(8192, 128_256, 512).splitlines() == [
        "N = 8,192 rows, V = 128,256 classes, d = 512 features in bfloat16: the logits alone would be 2.10 GB",
        "  cut      4 products of N V d, 41.8 MB beyond the gradients: tiles of logits on the chip, made again for their "
        "gradient",
        "           its tiles take 1.92 ms, their gradient 2.13 ms on sm_90, by cycles counted in machine code;",
        "           guesses are 1755 MHz and one program on each of 132 multiprocessors, and the",
        "           library's products are not counted",
        "  chunked  3 products of N V d, 788.0 MB beyond the gradients: the logits of some rows at a time, their gradient made "
        "with the loss",
        "  triton runs chunked: it makes each logit once, for 788.0 MB, which is no more than 2.10 GB",
    ]
    assert "cut      1 product of N V d, 1.0 MB" in explain_linear_cross_entropy(8192, 128_256, 512, gradients=False)
    # 2,048 rows of 128,256 logits of 2 bytes, and a float32 gradient of the weight
    assert round((2048 * 128_256 * 2 + 128_256 * 512 * 4) / 1e5) == 7880


def test_tiles_take_what_was_counted() -> None:
    """By hand: 64 x 250 tiles of 128 x 128 in 122 waves of 132 programs, each of 8 rounds of 64 features; twice as many
    features are 8 rounds more. No line for types that have no count.
    """
    each = 8 * loss_plan.ROUND["tiles_forward"]
    short, long = (loss_plan.tiles_time(8192, 32_000, d, "tiles_forward") for d in (512, 1024))
    assert short == pytest.approx(122 * (loss_plan.TILE + each) / loss_plan.CLOCK)
    assert long - short == pytest.approx(122 * each / loss_plan.CLOCK)
    assert "counted" not in explain_linear_cross_entropy(8192, 128_256, 512, "float32")
    assert "tiles take 1.92 ms on sm_90" in explain_linear_cross_entropy(8192, 128_256, 512, gradients=False)
    walked_twice = explain_linear_cross_entropy(8192, 128_256, 2048, strategy="cut")
    assert "5 products" in walked_twice
    assert f"gradient {2 * loss_plan.tiles_time(8192, 128_256, 2048, 'tiles_backward') / 1000:.2f} ms" in walked_twice


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"strategy": "sliced"}, "strategy must be cut or chunked, not 'sliced'"),
        ({"v": 0}, "there must be at least one class"),
        ({"dtype": "int8"}, "the dtype of the products must be one of float16, bfloat16, float32, float64, not 'int8'"),
    ],
)
def test_unknown_names(how: dict, message: str) -> None:
    """The sentence lists what there is."""
    with pytest.raises(ValueError) as caught:
        choose_loss_plan(**({"n": 1, "v": 1, "d": 1, "dtype": "float32"} | how))
    assert str(caught.value) == message


@given(**SIZES, dtype=DTYPES)
@example(n=1000, v=2088, d=7, dtype="bfloat16")  # sums for all rows fit half the room, 16 columns beside them do not
@example(n=765, v=1553, d=7, dtype="float16")  # nor beside the sums of as many rows as fit half the room
def test_cut_keeps_its_share(n: int, v: int, d: int, dtype: str) -> None:
    """Where there is room for pieces of 16 columns and of 16 rows, the pieces stay within 1% of N x V x 4 bytes."""
    walk, itemsize = cut_walk(n, v, d, dtype), ITEMSIZE[dtype]
    sums = 4 * d if dtype in loss_plan.HALVES else 0
    budget = int(0.01 * n * v * 4) - 24 * n
    if budget >= n * 16 * itemsize + 2 * 16 * (sums + 16 * itemsize):
        assert walk.extra_bytes <= budget
        if walk.once(n):
            assert n * (walk.columns * itemsize + sums) <= budget
        else:
            assert n * walk.columns * itemsize <= budget
            assert walk.rows * (walk.row_columns * itemsize + sums) <= budget
    assert walk.columns % 16 == 0
    assert walk.row_columns % 16 == 0
    assert 0 < walk.rows <= n


@given(**SIZES, dtype=DTYPES)
def test_chunks_are_bounded(n: int, v: int, d: int, dtype: str) -> None:
    """A chunk is all rows or a multiple of 128, and no larger than 1 GB."""
    rows = chunk_rows(n, v, ITEMSIZE[dtype])
    assert rows == n or rows % 128 == 0
    assert 0 < rows <= max(n, 128)
    assert rows * v * ITEMSIZE[dtype] <= max(2**30, 128 * v * ITEMSIZE[dtype])


@given(**SIZES, dtype=DTYPES)
def test_tiles_cover(n: int, v: int, d: int, dtype: str) -> None:
    """A range holds whole tiles, ranges hold all columns and none is empty; tiles are powers of two, as Triton wants."""
    tile, rows = tiles(d, dtype), row_tiles(v)
    span = column_range(n, v, tile)
    parts = -(-v // span)
    assert span % tile.block_v == 0
    assert (parts - 1) * span < v <= parts * span
    for size in (tile.block_n, tile.block_v, tile.block_d, rows.rows, rows.block):
        assert size >= 1
        assert size & (size - 1) == 0
    assert rows.block >= 16
    # three tiles of each factor in flight
    assert tile.stages * (tile.block_n + tile.block_v) * tile.block_d * ITEMSIZE[dtype] <= 163 * 1024


def test_plans_need_no_torch() -> None:
    """Explaining costs nothing, on a machine without GPU or torch."""
    code = "import sys; from recurrent_lm.kernels import explain_linear_cross_entropy as explain; explain(1, 2, 3)"
    code += "; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
