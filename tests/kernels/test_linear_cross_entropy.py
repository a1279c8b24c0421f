"""Decoder and cross-entropy in one, against F.cross_entropy(F.linear()) in float64."""

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import linear_cross_entropy

MODULE = sys.modules["kernels.linear_cross_entropy"]  # the attribute of that name is the function
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
Loss = Callable[..., Tensor]


@contextmanager
def rows(count: int) -> Iterator[None]:
    """Chunks of ``count`` rows, so that few rows make many chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "ROWS", count)
        yield


def textbook(input: Tensor, weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None, **options: Any) -> Tensor:
    """What torch users write: all logits, then the loss."""
    return F.cross_entropy(F.linear(input, weight, linear_bias), target, **options)


def ours(*arguments: Any, **options: Any) -> Tensor:
    return linear_cross_entropy(*arguments, **options, backend="torch")


def problem(n: int, v: int, d: int, bias: bool = True, seed: int = 0, scale: float = 1.0) -> tuple[list[Tensor], Tensor]:
    """[input, weight, bias] in float64 (bias last, or left out) and targets."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n, d), (v, d), *([(v,)] if bias else [])]
    tensors = [scale * torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes]
    return tensors, torch.randint(0, v, (n,), generator=generator)


def everything(
    loss: Loss, tensors: list[Tensor], target: Tensor, upstream: Tensor | float = 1.0, dtype: Any = None, **options: Any
) -> list[Tensor]:
    """The loss, then the gradients of (loss * upstream).sum() for input, weight and bias."""
    leaves = [t.to(dtype or t.dtype, copy=True).requires_grad_() for t in tensors]
    value = loss(leaves[0], leaves[1], target, linear_bias=leaves[2] if len(leaves) > 2 else None, **options)
    return [value.detach(), *torch.autograd.grad((value * upstream).sum(), leaves)]


def same(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Equal to float64 rounding, nan where nan is due."""
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-13, equal_nan=True)


def error(actual: Tensor, truth: Tensor) -> float:
    """Norm of the error over norm of the truth."""
    return float((actual.double() - truth).norm() / truth.norm())


class Recorder(TorchDispatchMode):
    """Every operation's name, with the largest tensor it returned, in bytes, and the dtype of products."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.products = 0, []  # type: ignore[var-annotated]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel() * result.element_size())
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
                self.products.append(result.dtype if func.overloadpacket == torch.ops.aten.mm else args[1].dtype)
        return result


# Known answers.


@pytest.mark.parametrize("backend", ["eager", "torch"])
def test_two_classes_by_hand(backend: str) -> None:
    """Logits (0, ln 3) are probabilities (1/4, 3/4): losses ln 4 and ln 4/3, gradients p - onehot."""
    x = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    w = torch.tensor([[0.0], [log(3)]], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1])
    losses = linear_cross_entropy(x, w, target, linear_bias=b, reduction="none", backend=backend)
    torch.testing.assert_close(losses, torch.tensor([log(4), log(4 / 3)], dtype=torch.float64), rtol=1e-14, atol=0)
    total = linear_cross_entropy(x, w, target, linear_bias=b, reduction="sum", backend=backend)
    total.backward()
    assert total.item() == pytest.approx(log(16 / 3), rel=1e-14)
    # dlogits: (1/4 - 1, 3/4) and (1/4, 3/4 - 1); columns sum to -1/2 and 1/2
    expected = [[[0.75 * log(3)], [-0.25 * log(3)]], [[-0.5], [0.5]], [-0.5, 0.5]]
    for leaf, e in zip((x, w, b), expected, strict=True):
        torch.testing.assert_close(leaf.grad, torch.tensor(e, dtype=torch.float64), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, -7.5, 1e4])
def test_equal_logits_give_log_v(level: float, dtype: torch.dtype) -> None:
    """All logits alike, at any level: ln V, whatever the target."""
    x, w = torch.ones(3, 1, dtype=dtype), torch.full((1000, 1), level, dtype=dtype)
    loss = ours(x, w, torch.tensor([0, 500, 999]), reduction="none")
    # a float32 log-sum-exp at 1e4 is rounded to 1/1024, its own spacing there
    tolerance = 1e-3 if dtype == torch.float32 and level == 1e4 else 1e-6
    assert loss.tolist() == pytest.approx([log(1000)] * 3, abs=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_logits_stay_finite(dtype: torch.dtype) -> None:
    """Logits 1e4, 0, -1e4 are certainty: losses 0, 1e4, 2e4 and gradients of exactly 0 and +-1."""
    tensors = [torch.ones(3, 1, dtype=dtype), torch.tensor([[1e4], [0.0], [-1e4]], dtype=dtype)]
    losses, d_input, d_weight = everything(ours, tensors, torch.tensor([0, 1, 2]), reduction="none")
    assert losses.tolist() == [0.0, 1e4, 2e4]
    assert d_input.tolist() == [[0.0], [1e4], [2e4]]  # w_0 - w_target
    assert d_weight.tolist() == [[2.0], [-1.0], [-1.0]]


@REDUCTIONS
def test_minus_infinity_forbids_a_class(reduction: str) -> None:
    """A bias of -inf takes a class out: the loss is that of the others, and its weights get no gradient."""
    tensors, target = problem(6, 5, 4)
    target %= 4
    open_classes = [tensors[0], tensors[1][:4], tensors[2][:4]]
    tensors[2][4] = -torch.inf
    loss, d_input, d_weight, d_bias = everything(ours, tensors, target, reduction=reduction)
    same([loss, d_input, d_weight[:4], d_bias[:4]], everything(textbook, open_classes, target, reduction=reduction))
    assert not d_weight[4].any() and d_bias[4] == 0


# Against the textbook in float64.


@BIAS
@REDUCTIONS
@pytest.mark.parametrize("chunk", [1, 4, 10, 11, 256])
def test_agrees_with_the_textbook(reduction: str, bias: bool, chunk: int) -> None:
    """Ten rows in chunks of one, of four and a rest of two, of exactly ten, and of more than there are."""
    tensors, target = problem(10, 7, 5, bias)
    with rows(chunk):
        actual = everything(ours, tensors, target, reduction=reduction)
    same(actual, everything(textbook, tensors, target, reduction=reduction))


def test_more_rows_than_one_real_chunk() -> None:
    """The real ROWS with two full chunks and a rest."""
    tensors, target = problem(2 * MODULE.ROWS + 3, 6, 3)
    same(everything(ours, tensors, target, reduction="sum"), everything(textbook, tensors, target, reduction="sum"))


@REDUCTIONS
@pytest.mark.parametrize("ignore", [-100, -1, 3, 0], ids=str)
def test_ignored_rows(ignore: int, reduction: str) -> None:
    """Rows with ignore_index, be it a class or not, count neither in the loss, the gradients nor the mean's divisor."""
    tensors, target = problem(12, 6, 4)
    target[1] = 5
    target[[0, 3, 4, 5, 6, 7, 11]] = ignore  # one whole chunk of four among them
    with rows(4):
        actual = everything(ours, tensors, target, ignore_index=ignore, reduction=reduction)
    same(actual, everything(textbook, tensors, target, ignore_index=ignore, reduction=reduction))
    assert not actual[1][[0, 3, 4, 5, 6, 7, 11]].any() and actual[1][1].any()


@REDUCTIONS
def test_upstream_factor(reduction: str) -> None:
    """What comes after the loss scales the gradients: a factor, or for "none" one factor per row."""
    tensors, target = problem(9, 5, 4)
    upstream = problem(9, 5, 4, seed=1)[0][0][:, 0] if reduction == "none" else -3.0
    with rows(4):
        actual = everything(ours, tensors, target, upstream, reduction=reduction)
    same(actual, everything(textbook, tensors, target, upstream, reduction=reduction))


@REDUCTIONS
@pytest.mark.parametrize("asked", list(itertools.product([True, False], repeat=3)), ids=str)
def test_only_asked_gradients(asked: tuple[bool, bool, bool], reduction: str) -> None:
    """Any subset of gradients is right, the others are None, and no product is made that nobody needs."""
    tensors, target = problem(10, 7, 5)
    leaves = [t.requires_grad_(a) for t, a in zip(tensors, asked, strict=True)]
    with rows(4), Recorder() as recorder:
        loss = ours(leaves[0], leaves[1], target, linear_bias=leaves[2], reduction=reduction)
        assert loss.requires_grad == any(asked)
        if any(asked):
            loss.sum().backward()
    forward_again = reduction == "none" and any(asked)
    assert len(recorder.products) == 3 * (1 + forward_again + asked[0] + asked[1])  # three chunks
    expected = everything(textbook, [t.detach() for t in tensors], target, reduction=reduction)
    same([leaf.grad for leaf, a in zip(leaves, asked, strict=True) if a and leaf.grad is not None],
         [g for g, a in zip(expected[1:], asked, strict=True) if a])  # fmt: skip
    assert all(leaf.grad is None for leaf, a in zip(leaves, asked, strict=True) if not a)


@REDUCTIONS
def test_evaluation_makes_no_gradients(reduction: str) -> None:
    """Under no_grad a chunk costs one product, although the parameters ask for gradients elsewhere."""
    tensors, target = problem(10, 7, 5)
    leaves = [t.requires_grad_() for t in tensors]
    with rows(4), torch.no_grad(), Recorder() as recorder:
        loss = ours(leaves[0], leaves[1], target, linear_bias=leaves[2], reduction=reduction)
    assert not loss.requires_grad
    assert len(recorder.products) == 3


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradcheck(reduction: str, bias: bool) -> None:
    """Finite differences of the loss itself, an ignored row included."""
    tensors, target = problem(5, 4, 3, bias)
    target[2] = -100

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        with rows(2):
            return ours(x, w, target, linear_bias=b, reduction=reduction)

    leaves = [t.requires_grad_() for t in tensors]
    value = run(*leaves)
    assert value.shape == (() if reduction == "sum" else (5,))
    weights = problem(5, 4, 3, seed=4)[0][0][:, 0] if reduction == "none" else torch.tensor(1.0, dtype=torch.float64)
    gradients = torch.autograd.grad((value * weights).sum(), leaves)
    with torch.no_grad():  # by hand, as the mean's and the sum's graph serves one backward pass only
        for leaf, gradient in zip(leaves, gradients, strict=True):
            for index in itertools.product(*(range(s) for s in leaf.shape)):
                kept, values = leaf[index].item(), []
                for side in (1e-5, -1e-5):
                    leaf[index] = kept + side
                    values.append(float((run(*leaves) * weights).sum()))
                leaf[index] = kept
                assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(gradient[index]), abs=1e-8)


@REDUCTIONS
def test_tied_weights_accumulate(reduction: str) -> None:
    """One table as embedding and decoder: both gradients arrive in it, on top of what was there."""
    (_, table), target = problem(10, 7, 5, bias=False)
    tokens = torch.arange(10) % 7
    gradients = []
    for loss in (ours, textbook):
        leaf = table.clone().requires_grad_()
        leaf.grad = torch.ones_like(leaf)
        with rows(4):
            loss(torch.tanh(leaf[tokens]), leaf, target, reduction=reduction).sum().backward()
        gradients.append(leaf.grad)
    same(gradients[:1], gradients[1:])


@REDUCTIONS
def test_input_is_the_weight(reduction: str) -> None:
    """The same leaf as both arguments gets the sum of both gradients."""
    (_, table), target = problem(7, 7, 5, bias=False)
    results = []
    for loss in (ours, textbook):
        leaf = table.clone().requires_grad_()
        results.append(torch.autograd.grad(loss(leaf, leaf, target, reduction=reduction).sum(), leaf)[0])
    same(results[:1], results[1:])


@REDUCTIONS
def test_everything_ignored(reduction: str) -> None:
    """The mean of nothing is nan, the sum 0, the losses 0; no gradient is nan, as in torch."""
    tensors, target = problem(6, 5, 4)
    actual = everything(ours, tensors, torch.full_like(target, -100), reduction=reduction)
    same(actual, everything(textbook, tensors, torch.full_like(target, -100), reduction=reduction))
    assert bool(actual[0].isnan().all()) == (reduction == "mean")
    assert not any(g.any() for g in actual[1:])


@BIAS
@REDUCTIONS
def test_empty_batch(reduction: str, bias: bool) -> None:
    """No rows: nan, 0 or an empty tensor, and zero gradients for the weights, as in torch."""
    tensors, _ = problem(0, 5, 4, bias)
    none = torch.zeros(0, dtype=torch.long)
    actual = everything(ours, tensors, none, reduction=reduction)
    same(actual, everything(textbook, tensors, none, reduction=reduction))
    assert actual[2].shape == (5, 4) and not actual[2].any()


@given(
    n=st.integers(0, 9),
    v=st.integers(1, 6),
    d=st.integers(1, 4),
    chunk=st.integers(1, 5),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    bias=st.booleans(),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
@settings(max_examples=80, deadline=None)
def test_agrees_for_any_problem(
    n: int, v: int, d: int, chunk: int, seed: int, share: float, bias: bool, reduction: str, scale: float
) -> None:
    """Small problems of every kind: empty, one class, all ignored, saturated."""
    tensors, target = problem(n, v, d, bias, seed, scale)
    target[torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share] = -100
    with rows(chunk):
        actual = everything(ours, tensors, target, reduction=reduction)
    expected = everything(textbook, tensors, target, reduction=reduction)
    # differences of logits that grow with scale squared, and their products with weights: absolute, at the terms' size
    size = max(1.0, scale)
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-12, atol=1e-13 * size**2, equal_nan=True)
    for a, e in zip(actual[1:], expected[1:], strict=True):
        torch.testing.assert_close(a, e, rtol=1e-11, atol=1e-13 * size**3)


# Other precisions.

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
        assert all(r.dtype == dtype for r in results)
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
def test_products_in_bfloat16(reduction: str) -> None:
    """compute_dtype rounds the three products only: loss to a thousandth, gradients to a hundredth, all of them float32."""
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
def test_logits_never_exist(reduction: str) -> None:
    """Forward and backward, no tensor is larger than a chunk; the eager twin shows that the recorder would see [N, V]."""
    tensors, target = problem(2048, 5000, 2)
    leaves = [t.float().requires_grad_() for t in tensors]
    whole = 2048 * 5000 * 4
    with Recorder() as recorder:
        ours(leaves[0], leaves[1], target, linear_bias=leaves[2], reduction=reduction).sum().backward()
    assert recorder.largest == MODULE.ROWS * 5000 * 4 < whole / 7
    with Recorder() as recorder:
        linear_cross_entropy(*leaves[:2], target, reduction=reduction, backend="eager").sum().backward()
    assert recorder.largest >= whole


def test_allocator_never_sees_the_logits() -> None:
    """The profiler sees what operations allocate inside as well: no single allocation reaches N x V."""
    (x, w, b), target = problem(2048, 5000, 2)
    leaves = [t.float().requires_grad_() for t in (x, w, b)]
    largest = {}
    for backend in ("torch", "eager"):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            linear_cross_entropy(*leaves[:2], target, linear_bias=leaves[2], backend=backend).backward()
        largest[backend] = max(event.self_cpu_memory_usage for event in profiler.events())
    assert largest["torch"] < 2048 * 5000 * 4 / 3 < largest["eager"]


# Errors.


@pytest.mark.parametrize("backend", ["eager", "torch"])
@pytest.mark.parametrize("wrong", [7, -1, 10**9], ids=str)
def test_target_out_of_range(wrong: int, backend: str) -> None:
    """A target that is no class and not ignored is an IndexError that names it."""
    (x, w, b), target = problem(4, 7, 3)
    target[2] = wrong
    with pytest.raises(IndexError, match=f"{wrong} is out"):
        linear_cross_entropy(x, w, target, linear_bias=b, backend=backend)


def test_default_ignore_index_is_a_mistake_where_another_is_set() -> None:
    """-100 is refused once ignore_index is something else; the last class is not."""
    (x, w, _), target = problem(4, 7, 3)
    target[:2] = torch.tensor([6, 0])
    ours(x, w, target, ignore_index=-1)
    target[2] = -100
    with pytest.raises(IndexError, match="target -100 is outside the 7 classes"):
        ours(x, w, target, ignore_index=-1)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("retain", [True, False])
def test_second_backward_is_refused(reduction: str, retain: bool) -> None:
    """Gradients are made once, in the forward pass; asking again is an error that says so."""
    (x, w, _), target = problem(4, 7, 3)
    loss = ours(x.requires_grad_(), w, target, reduction=reduction)
    loss.backward(retain_graph=retain)
    kept = x.grad.clone()
    with pytest.raises(RuntimeError, match="made its gradients once; a second backward pass needs a new loss"):
        loss.backward()
    assert torch.equal(x.grad, kept)


def test_second_backward_of_single_losses() -> None:
    """reduction="none" computes its gradients in the backward pass, so a kept graph serves twice."""
    (x, w, _), target = problem(4, 7, 3)
    losses = ours(x.requires_grad_(), w, target, reduction="none")
    (first,) = torch.autograd.grad(losses[0], x, retain_graph=True)
    (second,) = torch.autograd.grad(losses.sum(), x)
    assert torch.equal(first[0], second[0]) and not first[1:].any()


@pytest.mark.parametrize("backend", ["eager", "torch"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input": (4, 2)}, "input and linear_weight must be [N, d] and [V, d], not [4, 2] and [7, 3]"),
        ({"input": (2, 2, 3)}, "input and linear_weight must be [N, d] and [V, d], not [2, 2, 3] and [7, 3]"),
        ({"linear_weight": (3,)}, "input and linear_weight must be [N, d] and [V, d], not [4, 3] and [3]"),
        ({"target": (5,)}, "target must be [4], not [5]"),
        ({"target": (4, 1)}, "target must be [4], not [4, 1]"),
        ({"linear_bias": (3,)}, "linear_bias must be [7], not [3]"),
        ({"linear_bias": (1, 7)}, "linear_bias must be [7], not [1, 7]"),
    ],
    ids=str,
)
def test_wrong_shapes(changed: dict[str, tuple[int, ...]], message: str, backend: str) -> None:
    """The sentence names the argument, the expected shape and the given one."""
    shapes = {"input": (4, 3), "linear_weight": (7, 3), "target": (4,), "linear_bias": (7,)} | changed
    tensors: dict[str, Any] = {k: torch.zeros(s, dtype=torch.long if k == "target" else None) for k, s in shapes.items()}
    with pytest.raises(ValueError) as caught:
        linear_cross_entropy(**tensors, backend=backend)
    assert str(caught.value) == message


@pytest.mark.parametrize("backend", ["eager", "torch"])
def test_unknown_reduction(backend: str) -> None:
    """The sentence lists the three."""
    (x, w, _), target = problem(4, 7, 3)
    with pytest.raises(ValueError, match="reduction must be mean, sum or none, not 'avg'"):
        linear_cross_entropy(x, w, target, reduction="avg", backend=backend)
