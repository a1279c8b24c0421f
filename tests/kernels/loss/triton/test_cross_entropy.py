"""Cross-entropy on logits by Triton, in its interpreter, against the definition in float64."""

from math import log
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accuracy import same
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import OPTIONS, REDUCTIONS, WARNINGS
from loss_checks import definition, filled_with_nan, logits_agree, options, rows_of_logits
from torch import Tensor

from recurrent_lm.kernels import cross_entropy
from recurrent_lm.kernels.loss import plan as loss_plan

pytestmark = WARNINGS


def ours(logits: Tensor, target: Tensor, backend: str = "triton", **how: Any) -> list[Tensor]:
    """Loss, lse, gradient of sum of loss and a weighed lse; the outputs' memory begins as NaN."""
    leaf = logits.clone().requires_grad_()
    with filled_with_nan():
        loss, lse = cross_entropy(leaf, target, return_lse=True, backend=backend, **how)
        (gradient,) = torch.autograd.grad(mixed(loss, lse), leaf)
    return [loss.detach(), lse.detach(), gradient]


def mixed(loss: Tensor, lse: Tensor) -> Tensor:
    """One number that depends on each loss and each lse, on each in another way."""
    return (loss * torch.arange(1, loss.numel() + 1).view_as(loss)).sum() + (lse * torch.linspace(-1, 1, len(lse))).sum()


def truth(logits: Tensor, target: Tensor, **how: Any) -> list[Tensor]:
    leaf = logits.clone().requires_grad_()
    loss, lse = definition(leaf, target, **how)
    return [loss.detach(), lse.detach(), torch.autograd.grad(mixed(loss, lse), leaf)[0]]


@OPTIONS
@REDUCTIONS
def test_every_option(case: str, reduction: str) -> None:
    """Each option alone and in chosen pairs, on rows and columns that fill no tile; the eager twin too."""
    logits_agree(case, reduction, 11, 37)
    logits, target = rows_of_logits(11, 37, case=case)
    how = options(case, 37) | {"reduction": reduction}
    same(ours(logits, target, "eager", **how), truth(logits, target, **how), size=10)


@pytest.mark.parametrize("v", [1, 16, 4096, 4097, 9000])
def test_rows_of_many_tiles(v: int) -> None:
    """One class, one tile exactly, one column more, and three tiles, with the largest logit in the first and in the last."""
    logits, target = rows_of_logits(5, v)
    logits[0, -1], logits[3, 0] = 9.0, 9.0
    target[0], target[3] = v - 1, v - 1
    how = options("weight and smoothing", v) | {"softcap": 20.0, "reduction": "none"}
    same(ours(logits, target, **how), truth(logits, target, **how), size=v)


@given(
    n=st.integers(0, 9),
    v=st.integers(1, 40),
    seed=st.integers(0, 99),
    scale=st.sampled_from([0.1, 3.0, 100.0]),
    case=st.sampled_from(["plain", "everything", "weight and smoothing"]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
)
@settings(max_examples=15, deadline=None)
def test_any_shape(n: int, v: int, seed: int, scale: float, case: str, reduction: str) -> None:
    """Shapes of all kinds: empty, one class, all ignored, saturated."""
    logits, target = rows_of_logits(n, v, seed, scale, case)
    how = options(case, v) | {"reduction": reduction}
    same(ours(logits, target, **how), truth(logits, target, **how), size=scale**2 * max(n, 1) * 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("case", ["plain", "softcap", "weight and smoothing"])
def test_no_less_accurate_than_torch(case: str, dtype: torch.dtype) -> None:
    """The loss and gradient of a sum over 96 rows err at most twice as much as torch's in the same dtype.

    Large sums of float16 overflow in torch's smoothing (its loss is then inf), so there only the gradient is compared.
    """
    errors: dict[str, list[Tensor]] = {"triton": [], "eager": []}
    for seed in range(4):
        logits, target = rows_of_logits(96, 200, seed)
        logits, how = logits.to(dtype), options(case, 200, dtype) | {"reduction": "sum"}
        exact = [t.double() if isinstance(t, Tensor) else t for t in how.values()]
        leaf = logits.double().requires_grad_()
        loss, _ = definition(leaf, target, **dict(zip(how, exact, strict=True)))
        expected = [loss.detach(), torch.autograd.grad(loss, leaf)[0]]
        for backend, found in errors.items():
            leaf = logits.clone().requires_grad_()
            loss = cross_entropy(leaf, target, backend=backend, **how)
            actual = [loss.detach(), torch.autograd.grad(loss, leaf)[0]]
            found.append(torch.stack([(a.double() - e).norm() / e.norm() for a, e in zip(actual, expected, strict=True)]))
    mine, theirs = (torch.stack(errors[b]).square().mean(dim=0).sqrt() for b in ("triton", "eager"))
    # a loss of float16 is rounded once, at best: half of its spacing
    floor = torch.tensor([torch.finfo(dtype).eps / 2, 0.0])
    assert (mine <= torch.maximum(2 * theirs, floor)).all(), (mine, theirs)
    assert theirs[1] < 1e-2


def test_sum_over_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum over 4,000 tokens is held to the same relative error as one token; a float16 loss to half of its spacing."""
    monkeypatch.setattr(loss_plan, "row_tiles", lambda v: loss_plan.RowTiles(1024, 64, 4))  # few programs, soon done
    logits, target = rows_of_logits(4000, 50)
    target[1::3] = 7
    for dtype, of_loss, of_gradient in ((torch.float32, 2e-7, 2e-7), (torch.float16, 2**-11, 2**-11)):
        leaf = logits.to(dtype).requires_grad_()
        loss = cross_entropy(leaf, target, reduction="sum", backend="triton")
        (gradient,) = torch.autograd.grad(loss, leaf)
        expected = truth(leaf.detach().double(), target, reduction="none")[0].sum()
        exact = leaf.detach().double().softmax(1) - F.one_hot(target, 50)
        assert abs(loss.item() / expected.item() - 1) <= of_loss
        assert (gradient.double() - exact).norm() / exact.norm() <= of_gradient


def test_gradcheck() -> None:
    """Finite differences of losses and lse, with all options."""
    logits, target = rows_of_logits(4, 5, case="everything")
    how = options("everything", 5) | {"reduction": "none", "return_lse": True, "backend": "triton"}
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, target, **how), logits.requires_grad_())


# Logits that break naive code.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("level", [0.0, -7.5, 1e4, -1e4])
def test_equal_logits_give_log_v(level: float, dtype: torch.dtype) -> None:
    """ln V at any level, to the last digits: at 1e4 a float32 log-sum-exp in one number would be off by 5e-4."""
    logits = torch.full((3, 5000), level, dtype=dtype, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, 4098, 4999]), label_smoothing=0.1, reduction="none", backend="triton")
    assert loss.tolist() == pytest.approx([log(5000)] * 3, rel=1e-6)
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 1].item() == pytest.approx(0.9 / 5000, rel=1e-5)
    assert logits.grad[0, 0].item() == pytest.approx(-0.9 + 0.9 / 5000, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_huge_logits(dtype: torch.dtype) -> None:
    """Logits 1e4, 0, -1e4 are certainty: losses 0, 1e4, 2e4 exactly, gradients 0 and +-1 exactly."""
    logits = torch.tensor([[1e4, 0.0, -1e4]], dtype=dtype).repeat(3, 1).requires_grad_()
    losses = cross_entropy(logits, torch.tensor([0, 1, 2]), reduction="none", backend="triton")
    assert losses.tolist() == [0.0, 1e4, 2e4]
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0, 0, 0], [1, -1, 0], [1, 0, -1]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_minus_infinity(smoothing: float) -> None:
    """Forbidden classes, also a whole first tile of them, and a row of nothing else: all as torch has it, nan included."""
    logits, _ = rows_of_logits(4, 5000)
    logits[0, 3] = logits[1, :4200] = logits[2] = -torch.inf
    logits[3, 7] = -torch.inf
    target = torch.tensor([0, 4300, 0, 7])
    results = []
    for backend in ("triton", "eager"):
        leaf = logits.clone().requires_grad_()
        losses = cross_entropy(leaf, target, reduction="none", label_smoothing=smoothing, backend=backend)
        results.append([losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]])
    same(*results)
    assert results[0][0].isnan().tolist() == [False, False, True, False]


def test_softcap_of_any_argument() -> None:
    """tanh by its two formulas, around where they meet, in the flat part and at infinity; to 4e-16 in float64."""
    logits = torch.tensor(
        [[-torch.inf, -1e3, -20.0, -0.5000001, -0.4999999, -1e-9, 0.0, 1e-30, 0.3, 0.5, 0.7, 2.0, 19.0, 1e30]]
    )
    logits = logits.double()
    _, lse = cross_entropy(logits, torch.tensor([0]), softcap=1.0, return_lse=True, backend="triton")
    assert lse.item() == pytest.approx(torch.tanh(logits).logsumexp(1).item(), rel=1e-15)
    for x in logits.flatten()[1:-1]:
        leaf = torch.stack([x, torch.zeros((), dtype=x.dtype)]).unsqueeze(0)
        (loss,) = cross_entropy(leaf, torch.tensor([1]), softcap=1.0, reduction="none", backend="triton")
        assert loss.item() == pytest.approx(F.softplus(torch.tanh(x)).item(), rel=1e-15)


# Targets.


@REDUCTIONS
def test_nothing_counts(reduction: str) -> None:
    """The mean of nothing is nan, the sum 0, the losses 0; no gradient is nan, even where logits are."""
    logits = torch.full((3, 5), torch.nan, dtype=torch.float64, requires_grad=True)
    loss = cross_entropy(logits, torch.full((3,), -100), reduction=reduction, backend="triton")
    assert bool(loss.isnan().all()) == (reduction == "mean")
    assert reduction == "mean" or not loss.any()
    loss.sum().backward()
    assert logits.grad is not None
    assert not logits.grad.any()


@REDUCTIONS
def test_empty_batch(reduction: str) -> None:
    """No rows: nan, 0 or an empty tensor, as in torch."""
    logits, target = torch.zeros(0, 5, requires_grad=True), torch.zeros(0, dtype=torch.long)
    loss = cross_entropy(logits, target, reduction=reduction, backend="triton")
    torch.testing.assert_close(loss, F.cross_entropy(logits, target, reduction=reduction), equal_nan=True)
    loss.sum().backward()


@pytest.mark.parametrize("wrong", [7, -1, 2**40, -(2**40)])
def test_target_out_of_range(wrong: int) -> None:
    """An error on CPU. Where nobody may look, NaN for that row alone, and no read at the wrong address."""
    logits, target = rows_of_logits(5, 7)
    target[3] = wrong
    with pytest.raises(IndexError, match=f"target {wrong} is outside the 7 classes"):
        cross_entropy(logits, target, backend="triton")
    from recurrent_lm.kernels.loss.launch import rows_gradient, rows_loss
    from recurrent_lm.kernels.loss.terms import Terms, Upstream

    weight = torch.linspace(1, 2, 7, dtype=torch.float64)
    rows = rows_loss(logits, target, weight, Terms(label_smoothing=0.1), best=False)
    grad = torch.empty_like(logits)
    ones = torch.ones(5, dtype=torch.float64)
    rows_gradient(logits, grad, target, weight, rows.top, rows.log_sum, Upstream(ones), Terms(label_smoothing=0.1))
    assert rows.loss.isnan().tolist() == [False, False, False, True, False]
    assert grad.isnan().all(dim=1).tolist() == [False, False, False, True, False]
    assert not grad[[0, 1, 2, 4]].isnan().any()


def test_integer_targets_of_32_bits() -> None:
    """int32 class indices are as good as int64."""
    logits, target = rows_of_logits(6, 9)
    same(ours(logits, target.int()), ours(logits, target))


# What else it returns.


def test_metrics() -> None:
    """lse, the first best class, and hits, which ignored rows never are; ties within and across tiles go to the first."""
    logits, target = rows_of_logits(7, 9000)
    logits[0, [5, 900, 8000]] = 30.0
    logits[3, [4500, 8000]] = 30.0
    target[:5] = torch.tensor([5, -100, 0, 8000, 4])
    logits[1, 2] = 50.0
    for backend in ("triton", "eager"):
        loss, lse, metrics = cross_entropy(logits, target, return_lse=True, return_metrics=True, backend=backend)
        assert metrics.argmax.tolist() == logits.argmax(dim=1).tolist()
        assert metrics.argmax[[0, 3]].tolist() == [5, 4500]
        assert metrics.hits.tolist() == [True, False, False, False, *(logits[4:].argmax(dim=1) == target[4:]).tolist()]
        torch.testing.assert_close(metrics.lse, logits.logsumexp(dim=1), rtol=1e-14, atol=0)
        assert torch.equal(metrics.lse, lse)
        only = cross_entropy(logits, target, return_metrics=True, backend=backend)
        assert torch.equal(only[0], loss)
        assert len(only) == 2


def test_a_row_of_nan_has_a_class() -> None:
    """Its argmax is one of the columns, the first, as in torch: whoever looks it up reads no other memory."""
    logits = torch.full((2, 20), torch.nan)
    for backend in ("triton", "eager"):
        _, metrics = cross_entropy(logits, torch.tensor([0, 3]), return_metrics=True, backend=backend)
        assert metrics.argmax.tolist() == [0, 0]


def test_dtypes() -> None:
    """Loss and lse of halves in float32."""
    loss, lse, metrics = cross_entropy(
        torch.ones(2, 3).half(), torch.tensor([0, 1]), return_lse=True, return_metrics=True, backend="triton"
    )
    assert (loss.dtype, lse.dtype, metrics.argmax.dtype, metrics.hits.dtype) == (
        torch.float32, torch.float32, torch.int64, torch.bool
    )  # fmt: skip


# Storage.


@pytest.mark.parametrize("view", ["whole", "columns", "rows", "transposed"])
@pytest.mark.parametrize("inplace", [False, True])
def test_any_layout(view: str, inplace: bool) -> None:
    """Rows and columns with gaps, and columns first; the gradient lands in the logits' own storage where asked."""
    base, target = rows_of_logits(12, 14)
    cut = {"whole": lambda t: t, "columns": lambda t: t[:, ::2], "rows": lambda t: t[::2], "transposed": lambda t: t.t()}[view]
    logits = cut(base.clone()).detach().requires_grad_()
    target = target.repeat(2)[: len(logits)].clamp(max=logits.shape[1] - 1)
    leaf = logits.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(definition(leaf, target)[0], leaf)
    kept = logits.detach().clone()
    (gradient,) = torch.autograd.grad(cross_entropy(logits, target, inplace_backward=inplace, backend="triton"), logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
    assert (gradient.data_ptr() == logits.data_ptr()) == inplace
    assert torch.equal(logits, gradient if inplace else kept)


def test_inplace_gradient_is_noticed() -> None:
    """Whoever saved the logits for a backward pass of their own gets torch's error, not wrong numbers."""
    logits, target = rows_of_logits(4, 5)
    leaf = logits.requires_grad_()
    z = leaf.exp()
    loss = cross_entropy(z, target, inplace_backward=True, backend="triton")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_same_input_same_bits() -> None:
    """Two runs agree in every bit."""
    logits, target = rows_of_logits(40, 300)
    first, second = (ours(logits.float(), target, label_smoothing=0.1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# Derivatives of derivatives.


@pytest.mark.parametrize("inplace", [False, True])
def test_second_derivative_is_refused(inplace: bool) -> None:
    """A penalty on the gradient raises; torch would otherwise take the gradient for a constant."""
    logits, target = rows_of_logits(4, 5)
    logits.requires_grad_()
    loss = cross_entropy(logits * 1, target, inplace_backward=inplace, backend="triton")
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative; use backend='eager'"):
        (loss + gradient.square().sum()).backward()
    leaf = logits.detach()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.functional.hessian(
            lambda z: cross_entropy(z * 1, target, inplace_backward=inplace, backend="triton"), leaf
        )  # fmt: skip


def test_kept_graph_serves_twice() -> None:
    """The backward pass reads the logits again, so a kept graph gives the same gradient again."""
    logits, target = rows_of_logits(4, 5)
    loss = cross_entropy(logits.requires_grad_(), target, backend="triton")
    first, second = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


# Errors.


@pytest.mark.parametrize("backend", ["triton", "torch", "eager"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": torch.zeros(4)}, "logits must be [N, V], not [4]"),
        (
            {"logits": torch.zeros(4, 3, dtype=torch.long)},
            "logits must be float16, bfloat16, float32 or float64, not torch.int64",
        ),
        ({"logits": torch.zeros(4, 0)}, "there must be at least one class"),
        ({"target": torch.zeros(4, 1, dtype=torch.long)}, "target must be [4], not [4, 1]"),
        ({"target": torch.zeros(4)}, "target must hold class indices (an integer dtype), not torch.float32"),
        ({"weight": torch.ones(4)}, "weight must be [3], not [4]"),
        (
            {"weight": torch.ones(3, requires_grad=True)},
            "weight must not require a gradient: class weights are constants of the loss",
        ),
        ({"weight": torch.ones(3, device="meta")}, "weight must be on cpu, not on meta"),
        ({"reduction": "avg"}, "reduction must be mean, sum or none, not 'avg'"),
        ({"label_smoothing": 1.5}, "label_smoothing must be from 0 to 1, not 1.5"),
        ({"z_loss": -1.0}, "z_loss must be 0 or a positive number, not -1.0"),
        ({"softcap": 0.0}, "softcap must be None or a positive number, not 0.0"),
        ({"softcap": float("nan")}, "softcap must be None or a positive number, not nan"),
    ],
    ids=str,
)
def test_bad_input(changed: dict[str, Any], message: str, backend: str) -> None:
    """One sentence that names the argument, what it must be and what it is."""
    arguments = {"logits": torch.zeros(4, 3), "target": torch.zeros(4, dtype=torch.long), "backend": backend} | changed
    with pytest.raises(ValueError) as caught:
        cross_entropy(**arguments)
    assert str(caught.value) == message
