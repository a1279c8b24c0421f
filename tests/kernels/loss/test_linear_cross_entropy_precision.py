"""Decoder and cross-entropy in one: what other precisions cost in accuracy, and what never stands in memory."""

from functools import partial

import pytest
import torch
from loss_cases import MODULE, REDUCTIONS, Recorder, error, everything, ours, problem, rows, textbook

from recurrent_lm.kernels import linear_cross_entropy

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=["fp16", "bf16", "fp32"])


def root_mean_square(values: list[float]) -> float:
    return (sum(v * v for v in values) / len(values)) ** 0.5


@HALVES
@REDUCTIONS
def test_no_less_accurate_than_the_textbook(dtype: torch.dtype, reduction: str) -> None:
    """Over eight problems the loss and each gradient err at most twice as much as eager torch in the same dtype."""
    mine, theirs = [], []
    for seed in range(8):
        tensors, target = problem(96, 300, 32, seed=seed, scale=0.4)
        tensors = [t.to(dtype).double() for t in tensors]  # the truth of numbers that the dtype can hold
        truth = everything(textbook, tensors, target, reduction=reduction)
        with rows(32):
            results = everything(ours, tensors, target, dtype=dtype, reduction=reduction)
        assert [r.dtype for r in results] == [torch.float32, *[dtype] * 3]
        mine.append([error(a, t) for a, t in zip(results, truth, strict=True)])
        reference = everything(textbook, tensors, target, dtype=dtype, reduction=reduction)
        theirs.append([error(a, t) for a, t in zip(reference, truth, strict=True)])
    for a, b in zip(zip(*mine, strict=True), zip(*theirs, strict=True), strict=True):
        assert root_mean_square(list(a)) <= 2 * root_mean_square(list(b)) < 0.05


def test_loss_scaling_saves_small_fp16_gradients() -> None:
    """A loss scaled by 1024 keeps gradients above fp16's underflow, as with eager torch.

    2048 rows and 2000 classes make softmax / N about 2e-7, three of fp16's smallest steps, if it is rounded unscaled.
    """
    tensors, target = problem(2048, 2000, 8, bias=False, scale=0.2)
    tensors = [(tensors[0] + 1).half().double(), tensors[1].half().double()]
    target %= 10
    truth = everything(textbook, tensors, target, 1024.0)
    errors = []
    for loss in (ours, textbook):
        result = everything(loss, tensors, target, 1024.0, dtype=torch.float16)
        # rows of classes that are never a target: their gradient is made of small numbers alone
        errors.append([error(result[1], truth[1]), error(result[2][10:], truth[2][10:])])
    assert errors[0][0] <= 2 * errors[1][0] < 0.01
    assert errors[0][1] <= 2 * errors[1][1] < 0.01


def test_bf16_sums_over_many_chunks_do_not_stall() -> None:
    """256 chunks of 16 rows: accumulated in bfloat16, loss and gradients would stop growing at 256 times a term."""
    tensors, target = problem(4096, 20, 4, scale=0.5)
    tensors = [(tensors[0] + 1).bfloat16().double(), *(t.bfloat16().double() for t in tensors[1:])]
    target.fill_(7)
    truth = everything(textbook, tensors, target, reduction="sum")
    with rows(16):
        actual = everything(ours, tensors, target, dtype=torch.bfloat16, reduction="sum")
    assert all(error(a, t) < 2**-8 for a, t in zip(actual, truth, strict=True))


def test_float32_sum_over_many_tokens() -> None:
    """A sum over 20,000 tokens is right to one part in a million, and so are its gradients."""
    tensors, target = problem(20_000, 50, 8, scale=0.5)
    tensors = [t.float().double() for t in tensors]
    truth = everything(textbook, tensors, target, reduction="sum")
    actual = everything(ours, tensors, target, dtype=torch.float32, reduction="sum")
    assert error(actual[0], truth[0]) < 1e-6
    assert all(error(a, t) < 2e-6 for a, t in zip(actual[1:], truth[1:], strict=True))


@REDUCTIONS
def test_products_in_bfloat16(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """compute_dtype rounds the three products only: loss to a thousandth, gradients to a hundredth, all of them float32."""
    monkeypatch.setattr(MODULE, "BLOCK", 150)  # two blocks of classes and a rest
    tensors, target = problem(300, 400, 32, scale=0.4)
    truth = everything(textbook, tensors, target, reduction=reduction)
    with Recorder() as recorder:
        actual = everything(
            ours, tensors, target, dtype=torch.float32, reduction=reduction, compute_dtype=torch.bfloat16
        )  # fmt: skip
    assert set(recorder.products) == {torch.bfloat16}
    assert all(a.dtype == torch.float32 for a in actual)
    assert error(actual[0], truth[0]) < 1e-3
    assert all(error(a, t) < 1e-2 for a, t in zip(actual[1:], truth[1:], strict=True))
    plain = everything(ours, tensors, target, dtype=torch.float32, reduction=reduction)
    assert all(error(p, t) < 2e-6 for p, t in zip(plain, truth, strict=True))


def test_bfloat16_products_accumulate_in_float32() -> None:
    """The weight gradient of many chunks is summed in float32: 128 of them err no more than one."""
    tensors, target = problem(2048, 20, 8, scale=0.5)
    truth = everything(textbook, tensors, target, reduction="sum")
    with rows(16):
        actual = everything(ours, tensors, target, dtype=torch.float32, reduction="sum", compute_dtype=torch.bfloat16)
    assert error(actual[2], truth[2]) < 4e-3
    assert error(actual[3], truth[3]) < 4e-3


# Memory.


@REDUCTIONS
@pytest.mark.parametrize(
    ("n", "v", "chunk"), [(2048, 5000, 512 * 5000), (2048, 5001, 512 * 5008), (1600, 12_000, 400 * 12_000)]
)  # fmt: skip
def test_logits_never_exist(n: int, v: int, chunk: int, reduction: str) -> None:
    """With gradients or without, no tensor is larger than a chunk; the eager twin shows that the recorder would see [N, V]."""
    tensors, target = problem(n, v, 2)
    leaves = [t.float().requires_grad_() for t in tensors]
    whole = n * v * 4
    with Recorder() as recorder:
        ours(leaves[0], leaves[1], target, linear_bias=leaves[2], reduction=reduction).sum().backward()
    assert recorder.largest == chunk * 4 < whole / 3
    with Recorder() as recorder, torch.no_grad():
        ours(leaves[0], leaves[1], target, linear_bias=leaves[2], reduction=reduction)
    assert recorder.largest == chunk * 4
    with Recorder() as recorder:
        linear_cross_entropy(*leaves[:2], target, reduction=reduction, backend="eager").sum().backward()
    assert recorder.largest >= whole


@pytest.mark.parametrize(
    ("n", "v", "size", "halves"),
    [(700, 10_000, 350, 234), (1000, 5642, 500, 334), (2000, 106, 2000, 2000), (2000, 1000, 2000, 2000),
     (600, 262_144, 300, 200), (1, 9, 1, 1), (0, 9, 0, 0)],
)  # fmt: skip
def test_chunks_of_one_size(n: int, v: int, size: int, halves: int) -> None:
    """About 2.56 million logits, or 512 rows where those are more, evenly; half as many rows where halves need room as well."""
    for dtype, count in ((torch.float32, size), (torch.bfloat16, halves)):
        logits, products = MODULE._buffers(n, v, torch.float32, dtype, torch.device("cpu"))
        assert logits.shape == products.shape == (count, v)
        assert (logits.dtype, products.dtype) == (torch.float32, dtype)
        assert (logits is products) == (dtype == torch.float32)
        assert logits.stride(0) % (16 if v % 8 else 8) == 0
        assert logits.untyped_storage().nbytes() <= 4 * max(2_560_000, 512 * v) * (1 + 16 / v)


@pytest.mark.parametrize(("n", "v", "d"), [(32, 34, 8), (40, 106, 16), (100, 1001, 24)])
def test_what_memory_held_before_reaches_no_gradient(n: int, v: int, d: int) -> None:
    """On CPUs with AMX oneDNN's bfloat16 products read the padding between the rows of an operand, NaN included."""
    _, products = MODULE._buffers(n, v, torch.float32, torch.bfloat16, torch.device("cpu"))
    assert not products.as_strided((n, products.stride(0) - v), products.stride(), v).count_nonzero()
    tensors, target = problem(n, v, d)
    truth = everything(textbook, tensors, target)
    torch.use_deterministic_algorithms(True)  # fills memory that nobody wrote with NaN
    try:
        mine = everything(partial(ours, compute_dtype=torch.bfloat16), tensors, target, dtype=torch.float32)
    finally:
        torch.use_deterministic_algorithms(False)
    assert max(error(a, t) for a, t in zip(mine, truth, strict=True)) < 0.02


@pytest.mark.parametrize("gradients", [True, False])
def test_allocator_never_sees_the_logits(gradients: bool) -> None:
    """The profiler sees what operations allocate inside as well: no single allocation reaches N x V."""
    (x, w, b), target = problem(2048, 5000, 2)
    leaves = [t.float().requires_grad_(gradients) for t in (x, w, b)]
    largest = {}
    for backend in ("torch", "eager"):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            loss = linear_cross_entropy(*leaves[:2], target, linear_bias=leaves[2], backend=backend)
            if gradients:
                loss.backward()
        largest[backend] = max(event.self_cpu_memory_usage for event in profiler.events())
    assert largest["torch"] < 2048 * 5000 * 4 / 3 < largest["eager"]
