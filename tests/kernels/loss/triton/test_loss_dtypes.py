"""What the losses' dtypes are, by every backend: autocast, halves and their roundings, class weights; empty batches."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loss_cases import WARNINGS
from loss_checks import definition
from torch import Tensor

from recurrent_lm.kernels import cross_entropy, explain_linear_cross_entropy, linear_cross_entropy

pytestmark = WARNINGS
WAYS = pytest.mark.parametrize(
    ("backend", "strategy"), [("eager", None), ("torch", None), ("triton", "cut"), ("triton", "chunked")]
)  # fmt: skip
BACKENDS = pytest.mark.parametrize("backend", ["eager", "torch", "triton"])
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "none"])


def problem(
    dtype: torch.dtype = torch.float32, n: int = 40, v: int = 60, d: int = 16, seed: int = 0
) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (((n, d), 1.0), ((v, d), d**-0.5), ((v,), 0.1))
    target = torch.randint(0, v, (n,), generator=generator)
    return [(scale * torch.randn(size, generator=generator)).to(dtype) for size, scale in sizes], target


def half_of(backend: str) -> torch.dtype:
    return torch.float16 if backend == "triton" else torch.bfloat16  # of which the interpreter knows nothing


def found(loss: Any, tensors: list[Tensor]) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in tensors]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value.sum(), leaves)]


# Autocast.


@WAYS
@REDUCTIONS
@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_changes_nothing(compiled: bool, reduction: str, backend: str, strategy: str | None) -> None:
    """Loss and gradients of float32 are those without autocast, and so is the loss alone; in one graph as well.

    Of the textbook, whose gradients are torch's, where the backward pass is run and compiled outside, as torch asks.
    """
    tensors, target = problem()
    how = {"reduction": reduction, "backend": backend, "strategy": strategy}

    def loss(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return linear_cross_entropy(x, w, target, linear_bias=b, **how)

    torch._dynamo.reset()
    run = torch.compile(loss, backend="aot_eager", fullgraph=True) if compiled else loss
    expected = found(loss, tensors)
    with torch.autocast("cpu", half_of(backend)):
        alone = run(*tensors)
        inside = found(run, tensors) if backend != "eager" else expected
        leaves = [t.clone().requires_grad_() for t in tensors]
        value = (loss if backend == "eager" else run)(*leaves)
    outside = [value.detach(), *torch.autograd.grad(value.sum(), leaves)]
    for values in (outside, inside):
        assert [t.dtype for t in values] == [torch.float32] * 4
        for a, e in zip(values, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(alone, expected[0], rtol=1e-6, atol=0)


@WAYS
@REDUCTIONS
@pytest.mark.parametrize("autocast", [False, True])
def test_hidden_states_of_halves(autocast: bool, reduction: str, backend: str, strategy: str | None) -> None:
    """As a recurrence under autocast leaves them: products of halves, a loss of float32, gradients in their tensors' dtypes."""
    (x, w, b), target = problem()
    half = half_of(backend)
    x = x.to(half)
    truth = found(lambda x, w, b: F.cross_entropy(F.linear(x, w, b), target, reduction=reduction), [x.float(), w, b])
    with torch.autocast("cpu", half, enabled=autocast):
        actual = found(
            lambda x, w, b: linear_cross_entropy(
                x, w, target, linear_bias=b, reduction=reduction, backend=backend, strategy=strategy
            ),
            [x, w, b],
        )
    assert [t.dtype for t in actual] == [torch.float32, half, torch.float32, torch.float32]
    errors = [float((a - t).norm() / t.norm()) for a, t in zip(actual, truth, strict=True)]
    assert max(errors) < 8e-3 and min(errors[1:]) > 1e-5
    assert (actual[0] != actual[0].to(half)).any(), "no rounding to halves on the way out"


@BACKENDS
@REDUCTIONS
@pytest.mark.parametrize("autocast", [False, True])
def test_logits_of_halves(autocast: bool, reduction: str, backend: str) -> None:
    """The loss is float32's, to float32's roundings, and the gradient is float32's, rounded once."""
    half = half_of(backend)
    logits, target = problem(n=20, v=16, d=30)[0][0].to(half), problem(n=20, v=30)[1]
    how = {"reduction": reduction, "label_smoothing": 0.1, "softcap": 5.0}
    truth = found(lambda z: definition(z, target, **how)[0], [logits.double()])
    with torch.autocast("cpu", half, enabled=autocast):
        actual = found(lambda z: cross_entropy(z, target, backend=backend, **how), [logits])
    assert [t.dtype for t in actual] == [torch.float32, half]
    torch.testing.assert_close(actual[0], truth[0].float(), rtol=1e-5, atol=1e-6)
    rounded = truth[1].to(half)
    if backend != "triton":  # the interpreter rounds towards zero
        assert (actual[1] != rounded).float().mean() < 0.01
    torch.testing.assert_close(actual[1], rounded, rtol=torch.finfo(half).eps, atol=1e-7)


# Halves, rounded once.


@pytest.mark.parametrize(
    ("backend", "strategy", "dtype"),
    [("torch", None, torch.bfloat16), ("torch", None, torch.float16), ("triton", "chunked", torch.float16)],
)
@pytest.mark.parametrize("n", [300, 256])
def test_gradients_of_a_mean_are_rounded_no_more_than_those_of_a_sum(
    n: int, dtype: torch.dtype, backend: str, strategy: str | None
) -> None:
    """The yardstick is the float32 result, rounded once: fewer elements miss it than of torch's, and a divisor costs none."""
    tensors, target = problem(dtype, n, 200, 32)
    wide = [t.float() for t in tensors]
    once = [g.to(dtype) for g in found(lambda x, w, b: F.cross_entropy(F.linear(x, w, b), target), wide)[1:]]
    torchs = found(lambda x, w, b: F.cross_entropy(F.linear(x, w, b), target), tensors)[1:]
    how = {"backend": backend, "strategy": strategy}
    ours = found(lambda x, w, b: linear_cross_entropy(x, w, target, linear_bias=b, **how), tensors)[1:]
    for mine, theirs, yardstick in zip(ours, torchs, once, strict=True):
        assert (mine != yardstick).float().mean() <= (theirs != yardstick).float().mean()
    if n == 256:  # a power of two
        total = found(lambda x, w, b: linear_cross_entropy(x, w, target, linear_bias=b, reduction="sum", **how), tensors)
        for mine, of_sum in zip(ours, total[1:], strict=True):
            normal = mine.abs() > torch.finfo(dtype).tiny
            assert torch.equal(mine[normal], (of_sum / n)[normal])


@pytest.mark.parametrize(
    ("dtype", "n", "v", "bounds"),
    [
        (torch.bfloat16, 1000, 1000, (0.20, 0.30, 0.19)),  # the least favourable count is just below a power of two
        (torch.bfloat16, 300, 200, (0.32, 0.37, 0.15)),
        (torch.float16, 1000, 1000, (0.25, 0.14, 0.13)),
        (torch.float16, 300, 200, (0.38, 0.23, 0.18)),
    ],
)
def test_few_elements_of_gradients_differ_from_those_rounded_once(
    dtype: torch.dtype, n: int, v: int, bounds: tuple[float, float, float]
) -> None:
    """Bounds for hidden states, weights and bias, a tenth above what was measured; torch's shares are larger by far."""
    for seed in range(2):
        tensors, target = problem(dtype, n, v, 64 if n == 1000 else 32, seed)
        wide = [t.float() for t in tensors]
        once = [g.to(dtype) for g in found(lambda x, w, b, y=target: F.cross_entropy(F.linear(x, w, b), y), wide)[1:]]
        torchs = found(lambda x, w, b, y=target: F.cross_entropy(F.linear(x, w, b), y), tensors)[1:]
        ours = found(lambda x, w, b, y=target: linear_cross_entropy(x, w, y, linear_bias=b, backend="torch"), tensors)[1:]
        for mine, theirs, yardstick, bound in zip(ours, torchs, once, bounds, strict=True):
            share = (mine != yardstick).float().mean()
            assert share <= bound
            assert share < 0.9 * (theirs != yardstick).float().mean()


@pytest.mark.parametrize(("backend", "strategy"), [("torch", None), ("triton", "chunked")])
@pytest.mark.parametrize("factor", [1.0, 1 / 3])
def test_a_compiled_mean_has_the_same_bits(factor: float, backend: str, strategy: str | None) -> None:
    """1 / count and the factor behind the loss are not rounded to halves."""
    dtype = half_of(backend)
    tensors, target = problem(dtype, 300, 200, 32)

    def loss(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return factor * linear_cross_entropy(x, w, target, linear_bias=b, backend=backend, strategy=strategy)

    torch._dynamo.reset()
    compiled = found(torch.compile(loss, backend="aot_eager", fullgraph=True), tensors)
    for a, e in zip(compiled, found(loss, tensors), strict=True):
        assert torch.equal(a, e)


def test_bfloat16_in_the_interpreter_is_refused() -> None:
    """Its sums and products are wrong there; logits, hidden states and products alike."""
    (x, w, _), target = problem()
    words = "interpreter .* computes bfloat16 wrongly: use float16, float32"
    with pytest.raises(ValueError, match=words):
        cross_entropy(x.bfloat16(), target % 16, backend="triton")
    for strategy in ("cut", "chunked"):
        with pytest.raises(ValueError, match=words):
            linear_cross_entropy(x.bfloat16(), w.bfloat16(), target, strategy=strategy, backend="triton")
        with pytest.raises(ValueError, match=words):
            linear_cross_entropy(x, w, target, compute_dtype=torch.bfloat16, strategy=strategy, backend="triton")


# Class weights.


@WAYS
@REDUCTIONS
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("half", [False, True])
def test_class_weights_of_any_floating_point_dtype(
    half: bool, smoothing: float, reduction: str, backend: str, strategy: str | None
) -> None:
    """All are taken as float32, for hidden states and logits of halves and of float32."""
    weight = torch.linspace(0.25, 2, 8).repeat(8)[:60].bfloat16()
    (x, w, b), target = problem(half_of(backend) if half else torch.float32)
    logits = F.linear(x, w, b)
    how: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing, "backend": backend}

    def values(weight: Tensor) -> list[Tensor]:
        def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
            return linear_cross_entropy(x, w, target, linear_bias=b, weight=weight, strategy=strategy, **how)

        return [*found(linear, [x, w, b]), *found(lambda z: cross_entropy(z, target, weight, **how), [logits])]

    first = values(weight.float())
    for other in (weight, weight.double()):
        assert all(torch.equal(a, e) for a, e in zip(values(other), first, strict=True))
    expected = F.cross_entropy(logits.float(), target, weight.float(), reduction=reduction, label_smoothing=smoothing)
    torch.testing.assert_close(first[4], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"weight must be of a floating-point dtype, not torch\.int64"):
        cross_entropy(logits, target, weight.long(), backend=backend)


@BACKENDS
def test_weight_is_the_third_argument(backend: str) -> None:
    """As in torch."""
    logits, target = problem()[0][0], problem()[1] % 16
    weight = torch.linspace(0, 1, 16)
    torch.testing.assert_close(cross_entropy(logits, target, weight, backend=backend), F.cross_entropy(logits, target, weight))


@WAYS
@pytest.mark.parametrize("return_lse", [False, True])
def test_a_z_loss_is_not_weighed(return_lse: bool, backend: str, strategy: str | None) -> None:
    """Equal class weights, of whatever size, change no mean and none of its gradients; some rows are ignored."""
    tensors, target = problem(torch.float64)
    target[::3] = -100
    how: dict[str, Any] = {"z_loss": 0.5, "backend": backend}
    values = []
    for weight in (None, torch.full((60,), 0.1, dtype=torch.float64)):

        def loss(x: Tensor, w: Tensor, b: Tensor, weight: Tensor | None = weight) -> Tensor:
            given = {"linear_bias": b, "weight": weight, "strategy": strategy, "return_lse": return_lse}
            value = linear_cross_entropy(x, w, target, **given, **how)
            return value[0] if return_lse else value

        logits = F.linear(*tensors)
        values.append(
            [*found(loss, tensors), *found(lambda z, c=weight: cross_entropy(z, target, c, **how), [logits])],
        )
    for a, e in zip(*values, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-14)


@WAYS
@pytest.mark.parametrize("return_lse", [False, True])
def test_a_mean_of_no_row_has_gradients_of_zero(return_lse: bool, backend: str, strategy: str | None) -> None:
    """Also where lse can be differentiated, and the gradients are made in the backward pass."""
    tensors, target = problem()

    def loss(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        value = linear_cross_entropy(
            x, w, target.fill_(-100), linear_bias=b, return_lse=return_lse, backend=backend, strategy=strategy
        )
        return value[0] if return_lse else value

    value, *gradients = found(loss, tensors)
    assert value.isnan()
    assert not any(g.any() for g in gradients)


# Empty batches.


@WAYS
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_an_empty_batch(reduction: str, backend: str, strategy: str | None) -> None:
    """nan, 0 and nothing, gradients of 0, and metrics of no row; at the sizes that the planner takes."""
    (x, w, b), target = problem(n=0)
    for grad in (True, False):
        leaves = [t.clone().requires_grad_(grad) for t in (x, w, b)]
        how = {"linear_bias": leaves[2], "reduction": reduction, "backend": backend, "strategy": strategy}
        loss, lse, metrics = linear_cross_entropy(
            leaves[0], leaves[1], target, return_lse=True, return_metrics=True, weight=torch.ones(60), z_loss=0.1, **how
        )
        assert [len(t) for t in (lse, *metrics)] == [0] * 4
        for value in (loss, linear_cross_entropy(leaves[0], leaves[1], target, **how)):
            torch.testing.assert_close(value, F.cross_entropy(x @ w.t(), target, reduction=reduction), equal_nan=True)
            if grad:
                assert [g.shape for g in torch.autograd.grad(value.sum(), leaves)] == [(0, 16), (60, 16), (60,)]
    logits = torch.zeros(0, 60, requires_grad=True)
    value = cross_entropy(logits, target, torch.ones(60), reduction=reduction, z_loss=0.1, backend=backend)
    torch.testing.assert_close(value, F.cross_entropy(logits, target, reduction=reduction), equal_nan=True)
    assert torch.autograd.grad(value.sum(), logits)[0].shape == (0, 60)


@pytest.mark.parametrize("strategy", [None, "cut", "chunked"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_empty_batch_is_explained(dtype: str, strategy: str | None) -> None:
    explained = explain_linear_cross_entropy(0, 60, 16, dtype, strategy=strategy)
    assert "N = 0 rows" in explained and "triton runs" in explained
