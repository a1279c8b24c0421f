"""Decoder and cross-entropy in one by Triton, both strategies, in small pieces, against the definition in float64."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accuracy import same
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loss_cases import OPTIONS, REDUCTIONS, WARNINGS
from loss_checks import TORCH_CASES, as_torch_has_it, definition, filled_with_nan, linear_agrees, options
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recurrent_lm.kernels import linear_cross_entropy
from recurrent_lm.kernels.loss import plan as loss_plan
from recurrent_lm.kernels.loss.plan import CutWalk

pytestmark = WARNINGS
STRATEGIES = pytest.mark.parametrize("strategy", ["cut", "chunked"])
WALKS = {"one walk": (1000, 48), "two walks": (24, 32)}  # rows and columns of the pieces for the input's gradient


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ranges of one tile of columns, chunks of 16 rows, pieces of 48 columns: many pieces, with a rest of each."""
    walk_in_pieces(monkeypatch, "one walk")
    monkeypatch.setattr(loss_plan, "column_range", lambda n, v, tile: tile.block_v)
    monkeypatch.setattr(loss_plan, "chunk_rows", lambda *_: 16)
    yield


def walk_in_pieces(monkeypatch: pytest.MonkeyPatch, walk: str) -> None:
    rows, columns = WALKS[walk]
    monkeypatch.setattr(loss_plan, "cut_walk", lambda n, *_: CutWalk(48, min(rows, n), columns, 0))


def problem(n: int, v: int, d: int, seed: int = 0, scale: float = 0.7, ignore: int = -100) -> tuple[list[Tensor], Tensor]:
    """[input, weight, bias] in float64 and targets, every third of which is ignored."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [scale * torch.randn(s, dtype=torch.float64, generator=generator) for s in ((n, d), (v, d), (v,))]
    target = torch.randint(0, v, (n,), generator=generator)
    target[1::3] = ignore
    return tensors, target


def ours(tensors: list[Tensor], target: Tensor, upstream: float = 1.0, **how: Any) -> list[Tensor]:
    """Loss, then gradients of loss * upstream, or of a weighed sum of single losses; memory begins as NaN."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    with filled_with_nan():
        bias = leaves[2] if len(leaves) > 2 else None
        loss = linear_cross_entropy(leaves[0], leaves[1], target, linear_bias=bias, **{"backend": "triton"} | how)
        return [loss.detach(), *torch.autograd.grad(weighed(loss) * upstream, leaves)]


def truth(tensors: list[Tensor], target: Tensor, upstream: float = 1.0, **how: Any) -> list[Tensor]:
    leaves = [t.detach().double().clone().requires_grad_() for t in tensors]
    logits = torch.nn.functional.linear(leaves[0], leaves[1], leaves[2] if len(leaves) > 2 else None)
    how = {name: value.double() if isinstance(value, Tensor) else value for name, value in how.items()}
    loss, _ = definition(logits, target, **how)
    return [loss.detach(), *torch.autograd.grad(weighed(loss) * upstream, leaves)]


def weighed(loss: Tensor) -> Tensor:
    return (loss * torch.linspace(1, 2, loss.numel(), dtype=loss.dtype).view_as(loss)).sum()


@OPTIONS
@pytest.mark.parametrize("reduction", ["mean", *(pytest.param(r, marks=pytest.mark.slow) for r in ("sum", "none"))])
@STRATEGIES
def test_every_option(strategy: str, reduction: str, case: str) -> None:
    """Each option alone and in chosen pairs: 35 rows, 141 classes and 19 features fill no tile, range, chunk or piece."""
    linear_agrees(case, reduction, 35, 141, 19, strategy)


@pytest.mark.parametrize("case", TORCH_CASES)
@pytest.mark.parametrize("reduction", ["mean", *(pytest.param(r, marks=pytest.mark.slow) for r in ("sum", "none"))])
def test_torch_cases(reduction: str, case: str) -> None:
    """What torch defines is what torch computes: values and gradients to rounding, nan where it gives nan."""
    hows = [{"backend": "triton", "strategy": strategy} for strategy in ("cut", "chunked")]
    for mine, torchs in as_torch_has_it(case, reduction, *hows):
        same(mine, torchs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("walk", WALKS)
def test_walks_of_the_backward_pass(walk: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """One walk for both gradients, or a second one for the input's: the same, with and without the other gradients."""
    walk_in_pieces(monkeypatch, walk)
    tensors, target = problem(40, 150, 24)
    tensors = [t.to(dtype) for t in tensors]
    expected = truth(tensors, target)
    for needed in ((True, True, True), (True, False, False), (False, True, False), (False, False, True)):
        leaves = [t.clone().requires_grad_(r) for t, r in zip(tensors, needed, strict=True)]
        with filled_with_nan():
            loss = linear_cross_entropy(
                leaves[0], leaves[1], target, linear_bias=leaves[2], strategy="cut", backend="triton"
            )  # fmt: skip
            loss.backward()
        for leaf, e, r in zip(leaves, expected[1:], needed, strict=True):
            assert (leaf.grad is not None) == r
            if leaf.grad is not None:
                assert error(leaf.grad, e) < (2e-3 if dtype == torch.float16 else 1e-14)


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


@given(
    n=st.integers(0, 40),
    v=st.integers(1, 150),
    d=st.integers(1, 20),
    seed=st.integers(0, 99),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    case=st.sampled_from(["plain", "everything", "weight and smoothing"]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    strategy=st.sampled_from(["cut", "chunked"]),
)
@example(n=1, v=1, d=1, seed=0, scale=0.1, case="everything", reduction="mean", strategy="chunked")  # weights of 0 alone
@example(n=5, v=1, d=2, seed=0, scale=1.0, case="weight and smoothing", reduction="mean", strategy="chunked")
@settings(max_examples=12, deadline=None)
def test_any_shape(n: int, v: int, d: int, seed: int, scale: float, case: str, reduction: str, strategy: str) -> None:
    """Shapes of all kinds: empty, one class, one feature, saturated."""
    with pytest.MonkeyPatch.context() as patch:
        walk_in_pieces(patch, "two walks" if seed % 2 else "one walk")
        how = options(case, v) | {"reduction": reduction}
        tensors, target = problem(n, v, d, seed, scale, ignore=how.get("ignore_index", -100))
        actual = ours(tensors, target, strategy=strategy, **how)
    same(actual, truth(tensors, target, **how), size=scale**3 * d * max(n, 1) * 10)


@STRATEGIES
def test_without_bias_and_with_a_factor(strategy: str) -> None:
    """No bias, and a loss that is scaled afterwards."""
    tensors, target = problem(35, 141, 19)
    same(ours(tensors[:2], target, -3.0, strategy=strategy), truth(tensors[:2], target, -3.0), size=10)


@STRATEGIES
def test_gradcheck(strategy: str) -> None:
    """Finite differences of losses and lse with all options."""
    how = options("everything", 5) | {"reduction": "none", "return_lse": True, "strategy": strategy, "backend": "triton"}
    tensors, target = problem(3, 5, 2, ignore=2)
    leaves = [t.requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(lambda x, w, b: linear_cross_entropy(x, w, target, linear_bias=b, **how), leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@STRATEGIES
def test_no_less_accurate_than_torch(strategy: str, dtype: torch.dtype) -> None:
    """Loss and gradients of a mean err at most twice as much as eager torch's in the same dtype, over four problems."""
    errors: dict[str, list[Tensor]] = {"triton": [], "eager": []}
    for seed in range(4):
        tensors, target = problem(96, 300, 32, seed, scale=0.4)
        tensors = [t.to(dtype) for t in tensors]
        expected = truth(tensors, target, 64.0)
        for backend, found in errors.items():
            asked = strategy if backend == "triton" else None
            actual = ours(tensors, target, 64.0, strategy=asked, backend=backend)
            assert [a.dtype for a in actual] == [torch.float32, *[dtype] * 3]
            found.append(torch.tensor([error(a, e) for a, e in zip(actual, expected, strict=True)]))
    mine, theirs = (torch.stack(errors[b]).square().mean(dim=0).sqrt() for b in ("triton", "eager"))
    assert (mine <= 2 * theirs).all(), (mine, theirs)
    assert (theirs < 5e-3).all()


@STRATEGIES
def test_loss_scaling_saves_small_gradients(strategy: str) -> None:
    """Softmax near 1/2,000, 128 rows: divided first, gradients of classes that are no target would lose float16's digits."""
    generator = torch.Generator().manual_seed(0)
    x = (0.2 * torch.randn(128, 8, generator=generator) + 1).half()
    w = (0.2 * torch.randn(2000, 8, generator=generator)).half()
    target = torch.arange(128) % 10
    expected = truth([x, w], target, 1024.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_plan, "column_range", lambda *_: 1024)
        patch.setattr(loss_plan, "cut_walk", lambda n, *_: CutWalk(512, n, 512, 0))
        patch.setattr(loss_plan, "chunk_rows", lambda *_: 64)
        actual = ours([x, w], target, 1024.0, strategy=strategy)
    assert error(actual[1], expected[1]) < 2e-3
    assert error(actual[2][10:], expected[2][10:]) < 2e-3


@STRATEGIES
def test_metrics_and_lse(strategy: str) -> None:
    """lse, the first best class across ranges, and hits; with gradients of lse as well."""
    tensors, target = problem(9, 141, 5)
    x, w, b = tensors
    x[0], w[[7, 130]], b[[7, 130]] = 1.0, 2.0, 30.0  # a tie of two ranges for the largest logit of the first row
    logits = x @ w.t() + b
    leaves = [t.requires_grad_() for t in (x, w, b)]
    how = {"linear_bias": b, "strategy": strategy, "backend": "triton"}
    loss, lse, metrics = linear_cross_entropy(x, w, target, return_lse=True, return_metrics=True, **how)
    torch.testing.assert_close(lse, logits.logsumexp(dim=1))
    assert metrics.argmax.tolist() == logits.argmax(dim=1).tolist()
    assert metrics.argmax[0] == 7
    assert metrics.hits.tolist() == (logits.argmax(dim=1) == target).tolist()
    actual = torch.autograd.grad(loss + lse.square().sum(), leaves)
    definite = [t.detach().clone().requires_grad_() for t in leaves]
    loss, lse = definition(definite[0] @ definite[1].t() + definite[2], target)
    expected = torch.autograd.grad(loss + lse.square().sum(), definite)
    same(list(actual), list(expected), size=50)
    only = linear_cross_entropy(x, w, target, return_metrics=True, **how)
    assert torch.equal(only[1].argmax, metrics.argmax)
    assert not only[1].lse.requires_grad


class Products(TorchDispatchMode):
    """Whether each product with a bias has a vector as bias and a contiguous result, as cuBLAS' epilogue needs them."""

    def __init__(self) -> None:
        super().__init__()
        self.fused: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == torch.ops.aten.addmm.out and args[0].dim() == 1:
            self.fused.append(kwargs["out"].is_contiguous() and args[0].is_contiguous())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "v", "fused"), [(64, 141, True), (64, 144, True), (64, 136, True), (10, 141, False)])
def test_a_bias_is_added_by_the_product(n: int, v: int, fused: bool, dtype: torch.dtype) -> None:
    """Also for classes that are no multiple of 16, if there are rows enough: W is then padded, and no gradient shows it."""
    tensors, target = problem(n, v, 8)
    tensors = [t.to(dtype) for t in tensors]
    with Products() as products:
        found = ours(tensors, target, strategy="chunked")
    assert products.fused == [fused] * -(-n // 16)
    allowed = {torch.float16: 3e-3, torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
    assert all(error(a, e) < allowed for a, e in zip(found, truth(tensors, target), strict=True))


@STRATEGIES
def test_tied_weights_accumulate(strategy: str) -> None:
    """One table as embedding and decoder: both gradients arrive in it, on top of what was there."""
    (_, table, _), target = problem(10, 12, 5)
    gradients = []
    for loss in (lambda x, w: linear_cross_entropy(x, w, target, strategy=strategy, backend="triton"),
                 lambda x, w: definition(x @ w.t(), target)[0]):  # fmt: skip
        leaf = table.clone().requires_grad_()
        leaf.grad = torch.ones_like(leaf)
        loss(torch.tanh(leaf[torch.arange(10) % 12]), leaf).backward()
        gradients.append(leaf.grad)
    same(gradients[:1], gradients[1:])


@STRATEGIES
@REDUCTIONS
def test_nothing_counts(strategy: str, reduction: str) -> None:
    """The mean of nothing is nan, the sum 0; no gradient is nan."""
    tensors, target = problem(5, 7, 3)
    loss, *gradients = ours(tensors, torch.full_like(target, -100), strategy=strategy, reduction=reduction)
    assert bool(loss.isnan().all()) == (reduction == "mean")
    assert reduction == "mean" or not loss.any()
    assert not any(g.any() for g in gradients)


@STRATEGIES
def test_wrong_target(strategy: str) -> None:
    """An error on CPU; where nobody may look, that row's loss and gradient are NaN and the others are right."""
    tensors, target = problem(5, 7, 3)
    expected = truth(tensors, target.index_fill(0, torch.tensor([3]), -100), reduction="none")
    target[3] = 7
    with pytest.raises(IndexError, match="target 7 is outside the 7 classes"):
        ours(tensors, target, strategy=strategy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recurrent_lm.kernels.loss.ops.check_classes", lambda *_: None)
        loss, d_input, d_weight, _ = ours(tensors, target, strategy=strategy, reduction="none")
    assert loss.isnan().tolist() == [False, False, False, True, False]
    assert d_input.isnan().all(dim=1).tolist() == [False, False, False, True, False]
    assert d_weight.isnan().all()  # it is a sum over rows
    keep = [0, 1, 2, 4]
    same([loss[keep], d_input[keep]], [expected[0][keep], expected[1][keep]])


@STRATEGIES
def test_same_input_same_bits(strategy: str) -> None:
    """Two runs agree in every bit."""
    tensors, target = problem(70, 141, 19)
    tensors = [t.float() for t in tensors]
    first, second = (ours(tensors, target, strategy=strategy, label_smoothing=0.1) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@STRATEGIES
def test_products_in_another_dtype(strategy: str) -> None:
    """compute_dtype rounds the products' factors; loss and gradients keep the dtype of the parameters."""
    tensors, target = problem(35, 141, 19)
    expected = truth(tensors, target)
    actual = ours([t.float() for t in tensors], target, strategy=strategy, compute_dtype=torch.float16)
    assert all(a.dtype == torch.float32 for a in actual)
    assert all(1e-8 < error(a, e) < 3e-3 for a, e in zip(actual, expected, strict=True))


@STRATEGIES
def test_sums_of_halves_are_not_halves(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients summed over 256 rows keep more digits than one float16 has (2^-11): they are summed in float32.

    The weight's gradient by "cut" is a product of halves, and rounded once.
    """
    monkeypatch.setattr(loss_plan, "chunk_rows", lambda *_: 256)
    tensors, target = problem(512, 20, 4, scale=0.3)
    tensors = [(t + 0.5).half().float() for t in tensors]
    target.fill_(3)
    expected = truth(tensors, target, 32.0, reduction="sum")
    actual = ours(tensors, target, 32.0, strategy=strategy, reduction="sum", compute_dtype=torch.float16)
    assert error(actual[3], expected[3]) < 6e-5
    assert error(actual[2], expected[2]) < (3e-4 if strategy == "cut" else 6e-5)


@STRATEGIES
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_derivative_is_refused(strategy: str, reduction: str) -> None:
    """A penalty on the gradient raises, however the gradient was made."""
    tensors, target = problem(5, 7, 3)
    x, w, _ = (t.requires_grad_() for t in tensors)
    loss = linear_cross_entropy(x, w, target, strategy=strategy, reduction=reduction, backend="triton").sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative; use backend='eager'"):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(gradient.sum(), w, allow_unused=True)


@STRATEGIES
def test_second_backward(strategy: str) -> None:
    """A kept graph gives the same gradients again; one that is not kept is gone, as torch says."""
    tensors, target = problem(5, 7, 3)
    x, w, _ = (t.requires_grad_() for t in tensors)
    loss = linear_cross_entropy(x, w, target, strategy=strategy, backend="triton")
    first, second = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    loss.backward()
    assert torch.equal(x.grad, first)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


class Allocations(TorchDispatchMode):
    """The bytes of all tensors that were made, and those of the largest; views and results in place are not made."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.kept.setdefault(result.untyped_storage().data_ptr(), result)
        return result

    def bytes(self, besides: list[Tensor]) -> int:
        known = {t.untyped_storage().data_ptr() for t in besides}
        return sum(t.untyped_storage().nbytes() for p, t in self.kept.items() if p not in known)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_cut_needs_one_percent(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the gradients each direction makes less than 1% of N x V x 4 bytes, even if it kept all that it makes."""
    monkeypatch.undo()  # the real sizes
    from recurrent_lm.kernels.loss import launch as loss_launch
    from recurrent_lm.kernels.loss.terms import Decoded, Terms, Upstream

    if dtype == torch.float16:  # a GPU's library adds products of halves to float32 by itself; here they would be copied
        monkeypatch.setattr(loss_launch, "add_product", lambda sums, a, b: sums.add_(1))
    (x, w, _), target = problem(64, 10_000, 8, scale=0.3)
    x, w, upstream = x.to(dtype), w.to(dtype), torch.ones(64)
    with Allocations() as forward:
        rows = loss_launch.cut_loss(Decoded(x, w, None, target, None), Terms(), False)
    kept = [x, w, target, upstream, rows.top, rows.log_sum]
    share = 0.01 * 64 * 10_000 * 4
    assert 0 < forward.bytes(kept[:4]) <= share
    walks = [(True, False, False), (False, True, False)] if dtype == torch.float16 else [(True, True, False)]
    for need in walks:  # where there are two, the first one's buffer is gone when the second begins
        with Allocations() as backward:
            decoded, of = Decoded(x, w, None, target, None), Upstream(upstream)
            gradients = loss_launch.cut_gradients(decoded, *kept[4:], of, Terms(), need)
        made = backward.bytes(kept + [g for g in gradients if g is not None])
        assert share / 2 < made <= share - 2 * 64 * 4  # beside it stand two numbers a row
    assert loss_plan.choose_loss_plan(64, 10_000, 8, str(dtype).removeprefix("torch."), strategy="cut").extra_bytes <= share


def test_strategy_without_triton() -> None:
    """ "cut" is Triton's; an unknown name is refused by all."""
    (x, w, _), target = problem(5, 7, 3)
    with pytest.raises(ValueError, match="strategy 'cut' needs backend 'triton', not 'torch'"):
        linear_cross_entropy(x, w, target, strategy="cut", backend="torch")
    for backend in ("eager", "torch", "triton"):
        with pytest.raises(ValueError, match="strategy must be cut or chunked, not 'sliced'"):
            linear_cross_entropy(x, w, target, strategy="sliced", backend=backend)
