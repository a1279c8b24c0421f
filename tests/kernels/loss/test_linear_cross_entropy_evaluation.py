"""Decoder and cross-entropy in one where nothing is differentiated: the plain loss has a way of its own."""

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import BIAS, MODULE, REDUCTIONS, Recorder, ours, problem, rows, same, textbook
from torch import Tensor

from recurrent_lm.kernels import cross_entropy

V = pytest.mark.parametrize("v", [7, 8], ids=["padded", "whole"])  # rows of the buffer that are padded to 16, and that are not


def evaluated(x: Tensor, w: Tensor, *bias: Tensor, target: Tensor, chunk: int = 256, **how: object) -> Tensor:
    with rows(chunk), torch.no_grad():
        return ours(x, w, target, linear_bias=bias[0] if bias else None, **how)


@V
@BIAS
@REDUCTIONS
@pytest.mark.parametrize("chunk", [1, 4, 10, 11])
@pytest.mark.parametrize("ignore", [-100, 3])
def test_agrees_with_the_textbook(ignore: int, chunk: int, reduction: str, bias: bool, v: int) -> None:
    """Chunks of one, of four and a rest, of exactly all rows and of more; some rows are ignored, a whole chunk of four, too."""
    tensors, target = problem(10, v, 5, bias)
    target[[1, 4, 5, 6, 7]] = ignore
    actual = evaluated(*tensors, target=target, chunk=chunk, ignore_index=ignore, reduction=reduction)
    expected = textbook(
        *tensors[:2], target, linear_bias=tensors[2] if bias else None, ignore_index=ignore, reduction=reduction
    )
    same([actual], [expected])


@V
@REDUCTIONS
@pytest.mark.parametrize("n", [0, 9])
def test_nothing_counts(n: int, reduction: str, v: int) -> None:
    """No rows, or all of them ignored, in one chunk or several: nan, 0 or zeros, as in torch."""
    tensors, target = problem(n, v, 5)
    target.fill_(-100)
    expected = textbook(*tensors[:2], target, linear_bias=tensors[2], reduction=reduction)
    for chunk in (4, 256):
        same([evaluated(*tensors, target=target, chunk=chunk, reduction=reduction)], [expected])


@V
def test_a_row_that_is_no_number_spoils_no_other(v: int) -> None:
    """Each row is its own, and so is what pads the buffer that chunks share."""
    tensors, target = problem(9, v, 5)
    expected = textbook(*tensors[:2], target, linear_bias=tensors[2], reduction="none")
    tensors[0][2] = torch.nan
    losses = evaluated(*tensors, target=target, chunk=2, reduction="none")
    assert losses.isnan().tolist() == [i == 2 for i in range(9)]
    keep = torch.arange(9) != 2
    same([losses[keep]], [expected[keep]])


@V
def test_forbidden_classes(v: int) -> None:
    """A class whose bias is -inf costs infinity where it is the target, and nothing where it is not; so do ignored rows."""
    tensors, target = problem(6, v, 4)
    tensors[2][0] = -torch.inf
    target[:3] = torch.tensor([0, 1, -100])
    leaf = tensors[0].clone().requires_grad_()
    for losses in (
        evaluated(*tensors, target=target, reduction="none"),
        ours(leaf, tensors[1], target, linear_bias=tensors[2], reduction="none").detach(),
    ):
        same([losses], [textbook(*tensors[:2], target, linear_bias=tensors[2], reduction="none")])
        assert losses[0] == torch.inf and losses[1].isfinite() and losses[2] == 0


def test_all_classes_forbidden() -> None:
    """The log of a sum of nothing is minus infinity."""
    (x, w, b), target = problem(3, 5, 4)
    _, lse = ours(x, w, target, linear_bias=torch.full_like(b, -torch.inf), return_lse=True)
    assert lse.tolist() == [-torch.inf] * 3


@V
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_and_equal_logits(dtype: torch.dtype, v: int) -> None:
    """Logits of 1e4, 0 and -1e4 cost exactly 0, 1e4 and 2e4; equal ones ln V at any level."""
    x, target = torch.ones(3, 1, dtype=dtype), torch.tensor([0, 1, 2])
    w = torch.full((v, 1), -1e4, dtype=dtype)
    assert evaluated(x, w, target=target, reduction="none").tolist() == pytest.approx([log(v)] * 3, abs=1e-6)
    w[:2, 0] = torch.tensor([1e4, 0.0])
    assert evaluated(x, w, target=target, reduction="none").tolist() == [0.0, 1e4, 2e4]


def test_float32_sum_over_many_tokens() -> None:
    """A sum over 20,000 tokens, in one chunk and in 79, is right to one part in a million."""
    tensors, target = problem(20_000, 50, 8, scale=0.5)
    tensors = [t.float() for t in tensors]
    truth = textbook(*(t.double() for t in tensors[:2]), target, linear_bias=tensors[2].double(), reduction="sum")
    for chunk in (256, 20_000):
        assert evaluated(*tensors, target=target, chunk=chunk, reduction="sum").item() == pytest.approx(truth.item(), rel=1e-6)


@pytest.mark.parametrize("asked", [{}, {"return_lse": True}, {"weight": torch.ones(8)}, {"z_loss": 1e-9},
                                   {"compute_dtype": torch.bfloat16}], ids=str)  # fmt: skip
def test_the_plain_loss_alone_goes_there(asked: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Options and gradients need more than -log P."""
    tensors, target = problem(5, 8, 3)
    x, w, b = (t.float() for t in tensors)
    ran = []
    monkeypatch.setattr(MODULE.NegativeLogLikelihood, "apply", lambda *_: ran.append(True) or torch.zeros(()))
    ours(x, w, target, linear_bias=b, **asked)
    assert bool(ran) == (not asked)
    ran.clear()
    ours(x, w.requires_grad_(), target, linear_bias=b, **asked)
    assert not ran


def test_few_operations() -> None:
    """One chunk takes a product, a softmax, a loss and the views they need: around a small one, calls are what costs time."""
    (x, w, b), target = problem(5, 8, 8)
    with Recorder() as recorder, torch.no_grad():
        ours(x, w, target, linear_bias=b)
    assert len(recorder.operations) <= 12


def test_nobody_asks_for_log_sum_exp() -> None:
    """The loss on logits passes over them for log-sum-exp only where someone wants it."""
    logits, target = problem(5, 8, 8)[0][0], torch.arange(5)
    for how in ({}, {"return_lse": True}, {"return_metrics": True}, {"z_loss": 0.1}):
        with Recorder() as recorder:
            cross_entropy(logits, target, backend="torch", **how)
        assert (torch.ops.aten.logsumexp in recorder.operations) == bool(how)


@given(
    n=st.integers(0, 9), v=st.integers(1, 18), d=st.integers(1, 4), chunk=st.integers(1, 5), seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.3, 1.0]), bias=st.booleans(), reduction=st.sampled_from(["mean", "sum", "none"]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_agrees_for_any_problem(
    n: int, v: int, d: int, chunk: int, seed: int, share: float, bias: bool, reduction: str, scale: float
) -> None:
    """Small problems of every kind: empty, one class, all ignored, saturated."""
    tensors, target = problem(n, v, d, bias, seed, scale)
    target[torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share] = -100
    actual = evaluated(*tensors, target=target, chunk=chunk, reduction=reduction)
    expected = textbook(*tensors[:2], target, linear_bias=tensors[2] if bias else None, reduction=reduction)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13 * max(1.0, scale) ** 2, equal_nan=True)
