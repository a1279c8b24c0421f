"""Decoder and cross-entropy in one: known answers, and against F.cross_entropy(F.linear()) in float64."""

import itertools
from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import BIAS, MODULE, REDUCTIONS, Recorder, everything, ours, problem, rows, same, textbook
from torch import Tensor

from recurrent_lm.kernels import linear_cross_entropy

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
