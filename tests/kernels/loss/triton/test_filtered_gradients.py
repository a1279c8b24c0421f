"""Gradient filtering of "cut", in the interpreter: exactly the blocks below ``filter_eps`` are gone, all others are right."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accuracy import same
from loss_cases import WARNINGS
from loss_checks import filled_with_nan, options
from torch import Tensor

from recurrent_lm.kernels import linear_cross_entropy
from recurrent_lm.kernels.loss import launch
from recurrent_lm.kernels.loss import plan as loss_plan
from recurrent_lm.kernels.loss.launch import cut_gradients, cut_loss
from recurrent_lm.kernels.loss.plan import CutWalk
from recurrent_lm.kernels.loss.terms import Decoded, Terms, Upstream

pytestmark = WARNINGS
TILE = 32  # rows and columns of a block in float64
WALKS = {"one walk": (1000, 80), "two walks": (48, 64)}  # rows and columns of the pieces for the input's gradient
N, V, D = 70, 170, 19  # no whole number of blocks, pieces or features


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    walk_in_pieces(monkeypatch, "one walk")


def walk_in_pieces(monkeypatch: pytest.MonkeyPatch, walk: str) -> None:
    rows, columns = WALKS[walk]
    monkeypatch.setattr(loss_plan, "cut_walk", lambda n, *_: CutWalk(80, min(rows, n), columns, 0))


def problem(scale: float, ignore: int = -100, bias: bool = True) -> tuple[list[Tensor], Tensor]:
    """[x, W, b] in float64 and targets, every third of which is ignored; logits of a row have some ``scale`` sqrt(D)."""
    generator = torch.Generator().manual_seed(0)
    tensors = [
        s * torch.randn(n, dtype=torch.float64, generator=generator) for n, s in (((N, D), 1.0), ((V, D), scale), (V, 0.1))
    ]
    target = torch.randint(0, V, (N,), generator=generator)
    target[1::3] = ignore
    return tensors if bias else tensors[:2], target


def found(tensors: list[Tensor], target: Tensor, **how: Any) -> list[Tensor]:
    """Gradients of a sum that weighs each loss and each lse; memory begins as NaN."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    how = {"backend": "triton", "linear_bias": leaves[2] if len(leaves) > 2 else None} | how
    with filled_with_nan():
        value = linear_cross_entropy(leaves[0], leaves[1], target, **how)
        return [g.detach() for g in torch.autograd.grad(weighed(value), leaves)]


def weighed(value: Any) -> Tensor:
    loss, *lse = value if isinstance(value, tuple) else (value,)
    total = (loss * torch.linspace(1, 2, loss.numel(), dtype=loss.dtype).view_as(loss)).sum()
    return total + sum((row * torch.linspace(-1, 1, len(row), dtype=row.dtype)).sum() for row in lse)


def blocks(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """The blocks of the logits, walked in pieces of some rows and columns."""
    for first in range(0, N, rows):
        for left in range(0, V, columns):
            last, right = min(first + rows, N), min(left + columns, V)
            for top in range(first, last, TILE):
                for begin in range(left, right, TILE):
                    yield slice(top, min(top + TILE, last)), slice(begin, min(begin + TILE, right))


def truth(
    tensors: list[Tensor], target: Tensor, eps: float, walk: str, *, weight: Tensor | None = None, ignore_index: int = -100,
    reduction: str = "mean", z_loss: float = 0.0, softcap: float | None = None, return_lse: bool = False,
) -> tuple[list[Tensor], list[Tensor], float]:  # fmt: skip
    """Gradients in float64 without the blocks below eps and with them, and the share of blocks that is gone."""
    x, w, *bias = tensors
    logits = x @ w.t() + (bias[0] if bias else 0.0)
    z = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    p, lse = z.softmax(dim=1), z.logsumexp(dim=1)
    counted, y = target != ignore_index, target.clamp(min=0)
    onehot = torch.nn.functional.one_hot(y, V).double()
    of_class = (torch.ones(V, dtype=torch.float64) if weight is None else weight)[y] * counted
    of_loss = torch.linspace(1, 2, N, dtype=torch.float64) if reduction == "none" else torch.ones(N, dtype=torch.float64)
    over, penalised = (of_class.sum(), counted.sum()) if reduction == "mean" else (1.0, 1.0)
    penalty = 2 * z_loss * lse * counted * of_loss / penalised
    of_lse = torch.linspace(-1, 1, N, dtype=torch.float64) if return_lse else torch.zeros(N, dtype=torch.float64)
    d = (of_class * of_loss / over)[:, None] * (p - onehot) + (penalty + of_lse)[:, None] * p
    if softcap is not None:
        d = d * (1 - (z / softcap) ** 2)
    wanted = torch.ones(N, dtype=torch.bool) if return_lse else counted
    matters = wanted[:, None] & ((p >= eps) | ((onehot > 0) & counted[:, None]))
    rows, columns = WALKS[walk]
    pieces = [(N, 80), (N, 80) if rows >= N else (rows, columns)]  # of the weight's gradient, and of the input's
    filtered, gone = [], []
    for piece in pieces:
        mask = torch.zeros(N, V, dtype=torch.float64)
        for block in blocks(*piece):
            mask[block] = float(matters[block].any())
            gone.append(1 - float(mask[block].any()))
        filtered.append(d * mask)
    of_weight, of_input = filtered
    with_them = [d @ w, d.t() @ x, d.sum(0)][: len(tensors)]
    return [of_input @ w, of_weight.t() @ x, of_weight.sum(0)][: len(tensors)], with_them, sum(gone) / len(gone)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ignored class": {"ignore_index": 2},
    "weight": {"weight": options("weight", V)["weight"]},
    "z_loss and weight": {"z_loss": 0.05, "weight": options("weight", V)["weight"]},
    "softcap": {"softcap": 4.0},
    "single losses": {"reduction": "none"},
    "lse": {"return_lse": True, "reduction": "sum"},
    "everything": {
        "ignore_index": 2, "weight": options("weight", V)["weight"], "z_loss": 0.05, "softcap": 6.0, "return_lse": True,
        "reduction": "none",
    },
}  # fmt: skip


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("case", CASES)
def test_exactly_the_blocks_below_eps_are_gone(case: str, walk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every option alone and all together; some blocks of each case go and some stay."""
    walk_in_pieces(monkeypatch, walk)
    how = CASES[case]
    tensors, target = problem(1.0, ignore=how.get("ignore_index", -100))
    eps = 0.3 if case in ("lse", "everything", "softcap") else 0.2
    expected, unfiltered, gone = truth(tensors, target, eps, walk, **how)
    assert 0.02 < gone < 0.98
    actual = found(tensors, target, filter_eps=eps, **how)
    same(actual, expected, size=100)
    assert all((a - u).abs().max() > 1e-6 for a, u in zip(actual, unfiltered, strict=True)), "filtering changed nothing"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("scale", "eps", "least", "most"), [(40.0, 2**-12, 0.0, 0.9), (0.01, 2**-12, 0.0, 0.0), (0.01, 0.5, 0.05, 1.0)]
)
def test_a_peaked_and_a_flat_softmax(
    scale: float, eps: float, least: float, most: float, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks without a bias are never stored; where none is dropped, the gradient is the unfiltered one."""
    tensors, target = problem(scale, bias=bias)
    target[:] = torch.arange(N) % 5  # targets in the first columns; the peaks are anywhere
    expected, unfiltered, gone = truth(tensors, target, eps, "one walk", reduction="sum")
    assert least <= gone <= most
    actual = found(tensors, target, filter_eps=eps, reduction="sum")
    same(actual, expected, size=100 * scale)
    if gone == 0:
        same(actual, unfiltered, size=100 * scale)


def test_most_blocks_skipped() -> None:
    """Rows that are sure of classes 3 and 4, which are their targets: the other six columns of blocks are gone."""
    x, w = torch.zeros(N, D, dtype=torch.float64), torch.zeros(V, D, dtype=torch.float64)
    x[:, 0], x[:, 1], w[3, 0], w[4, 0] = 10.0, torch.linspace(0, 1, N), 1.0, 0.99
    target = 3 + torch.arange(N) % 2
    expected, unfiltered, gone = truth([x, w], target, 2**-12, "one walk")
    assert gone == pytest.approx(6 / 7)  # pieces of 80, 80 and 10 columns in blocks of 32
    actual = found([x, w], target, filter_eps=2**-12)
    same(actual, expected)
    assert not actual[1][TILE:].any()
    assert unfiltered[1][TILE:].any()


def test_the_block_of_a_target_stays() -> None:
    """One row's target lies where every probability is 1e-9: that block's -1 is in the gradient, its column and bias too."""
    x, w = torch.zeros(N, D, dtype=torch.float64), torch.zeros(V, D, dtype=torch.float64)
    x[:, 0], w[3, 0], b = 1.0, 20.0, torch.zeros(V, dtype=torch.float64)
    target = torch.full((N,), 3)
    target[40] = 150
    _, of_weight, of_bias = found([x, w, b], target, filter_eps=2**-12, reduction="sum")
    assert of_bias[150] == pytest.approx(-1, abs=1e-6)
    assert of_weight[150, 0] == pytest.approx(-1, abs=1e-6)
    target[40] = -100  # and if that row is ignored, it goes
    _, of_weight, of_bias = found([x, w, b], target, filter_eps=2**-12, reduction="sum")
    assert not of_bias[TILE:].any()
    assert not of_weight[TILE:].any()


@pytest.mark.parametrize("case", ["plain", "z_loss and weight", "softcap", "lse"])
def test_the_difference_is_bounded_as_documented(case: str) -> None:
    """Each element that is dropped is below eps times its row's factor, so the bias' gradient moves by at most their sum."""
    how: dict[str, Any] = CASES[case] | {"reduction": "sum"}
    tensors, target = problem(1.0)
    eps = 0.2
    filtered, whole = (found(tensors, target, filter_eps=e, **how) for e in (eps, None))
    weight, counted = how.get("weight", torch.ones(V, dtype=torch.float64)), target >= 0
    z = tensors[0] @ tensors[1].t() + tensors[2]
    z = how["softcap"] * torch.tanh(z / how["softcap"]) if "softcap" in how else z
    factor = counted * (weight[target.clamp(min=0)] + 2 * how.get("z_loss", 0.0) * z.logsumexp(1))
    factor = (factor + (torch.linspace(-1, 1, N, dtype=torch.float64) if "return_lse" in how else 0.0)).abs()
    bounds = (
        eps * factor[:, None] * tensors[1].abs().sum(0),
        eps * (factor[:, None] * tensors[0].abs()).sum(0).expand(V, D),
        eps * factor.sum().expand(V),
    )
    for f, u, bound in zip(filtered, whole, bounds, strict=True):
        assert (f - u).abs().max() > 1e-6
        assert ((f - u).abs() <= bound + 1e-12).all()


def test_zero_drops_nothing() -> None:
    """Bit for bit the unfiltered gradient; and the smallest number, by the products that filter, the same to rounding."""
    tensors, target = problem(1.0)
    unfiltered, zero, tiny = (found(tensors, target, strategy="cut", filter_eps=eps) for eps in (None, 0.0, 5e-324))
    assert all(torch.equal(a, b) for a, b in zip(unfiltered, zero, strict=True))
    same(tiny, unfiltered)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_other_dtypes(dtype: torch.dtype) -> None:
    """Products of halves are summed in float32 and rounded once, as the library's are: the same gradient to two roundings."""
    (x, w, b), target = problem(0.1)
    tensors = [t.to(dtype) for t in (x, w, b)]
    unfiltered, filtered = (found(tensors, target, strategy="cut", filter_eps=eps, reduction="sum") for eps in (None, 1e-9))
    for a, e in zip(filtered, unfiltered, strict=True):
        assert a.dtype == dtype
        assert (a - e).norm() <= 2 * torch.finfo(dtype).eps * e.norm()


@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True)])
def test_one_gradient_alone(needed: tuple[bool, bool, bool]) -> None:
    tensors, target = problem(1.0)
    all_of_them = found(tensors, target, filter_eps=0.2)
    x, w, b = (t.clone().requires_grad_(r) for t, r in zip(tensors, needed, strict=True))
    loss = linear_cross_entropy(x, w, target, linear_bias=b, filter_eps=0.2, backend="triton")
    loss.backward()
    for leaf, expected, r in zip((x, w, b), all_of_them, needed, strict=True):
        assert leaf.grad is None or torch.equal(leaf.grad, expected)
        assert (leaf.grad is not None) == r


def test_a_row_that_is_not_finite_is_never_dropped() -> None:
    """A flat softmax of 1/170, all below eps: a wrong target is NaN in the whole row still, and so is an infinite factor.

    A scaled loss that overflows must show, or the scale is never lowered.
    """
    (x, w, b), target = problem(1e-3)
    target[:] = 0
    target[40] = V  # nobody looks, as on a GPU
    decoded = Decoded(x, w, b, target, None)
    rows = cut_loss(decoded, Terms(), False)
    d_x, d_w, d_b = cut_gradients(
        decoded, rows.top, rows.log_sum, Upstream(torch.ones(N, dtype=torch.float64)), Terms(), (True, True, True), 0.5
    )
    assert d_x is not None and d_w is not None and d_b is not None
    assert d_x.isnan().all(dim=1).nonzero().tolist() == [[40]]
    assert d_w.isnan().all() and d_b.isnan().all()
    target[40] = 0
    upstream = torch.zeros(N, dtype=torch.float64)
    of = Upstream(upstream, upstream.index_fill(0, torch.tensor([3]), torch.inf))
    d_x, d_w, d_b = cut_gradients(decoded, rows.top, rows.log_sum, of, Terms(), (True, True, True), 0.5)
    assert d_b is not None
    assert not d_b.isfinite().any()


def test_no_product_of_a_dropped_block_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN in the buffer where a block was dropped does not reach the gradients: what is not kept is not read."""
    x, w = torch.zeros(N, D, dtype=torch.float64), torch.zeros(V, D, dtype=torch.float64)
    x[:, 0], w[3, 0] = 10.0, 1.0
    seen: list[Tensor] = []
    multiply = launch.multiply_kept

    def watched(a: Tensor, b: Tensor, out: Tensor, kept: Tensor, *rest: Any) -> None:
        seen.append(a)
        assert set(kept.flatten().tolist()) <= {0, 1}
        multiply(a, b, out, kept, *rest)

    monkeypatch.setattr(launch, "multiply_kept", watched)
    gradients = found([x, w], torch.full((N,), 3), filter_eps=2**-6)
    assert len(seen) == 6  # three pieces, two products each
    assert any(a.isnan().any() for a in seen), "dropped blocks were stored"
    assert not any(g.isnan().any() for g in gradients)


def test_the_same_compiled() -> None:
    """In one graph, and exported: the option is an argument of the operation."""
    tensors, target = problem(1.0)

    def gradients(run: Any) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in tensors]
        return [g.detach() for g in torch.autograd.grad(run(*leaves), leaves)]

    def loss(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return linear_cross_entropy(x, w, target, linear_bias=b, filter_eps=0.2, backend="triton")

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    same(gradients(compiled), gradients(loss))

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
            return loss(x, w, b)

    program = torch.export.export(Module(), tuple(tensors))
    assert any(0.2 in node.args for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*tensors), loss(*tensors))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"filter_eps": -0.1}, "filter_eps must be None or a number from 0 to below 1, not -0.1"),
        ({"filter_eps": 1.0}, "filter_eps must be None or a number from 0 to below 1, not 1.0"),
        ({"filter_eps": float("nan")}, "filter_eps must be None or a number from 0 to below 1, not nan"),
        ({"backend": "torch"}, "filter_eps needs backend 'triton' and strategy 'cut': others make gradients of all logits"),
        ({"backend": "eager"}, "filter_eps needs backend 'triton' and strategy 'cut': others make gradients of all logits"),
        ({"strategy": "chunked"}, "filter_eps needs backend 'triton' and strategy 'cut': others make gradients of all logits"),
        ({"label_smoothing": 0.1}, "filter_eps cannot be used with label_smoothing, which gives every class a gradient"),
    ],
    ids=str,
)
def test_bad_input(changed: dict[str, Any], message: str) -> None:
    (x, w, _), target = problem(1.0)
    with pytest.raises(ValueError) as caught:
        linear_cross_entropy(x, w, target, **({"backend": "triton", "filter_eps": 0.1} | changed))
    assert str(caught.value) == message
