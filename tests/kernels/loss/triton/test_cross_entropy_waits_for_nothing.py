"""No value is read back while a loss or its gradients are queued: on the meta device there are none, and reading one raises."""

from typing import Any

import pytest
import torch

from recurrent_lm.kernels import cross_entropy, linear_cross_entropy
from recurrent_lm.kernels.loss import launch as loss_launch
from recurrent_lm.kernels.loss import ops as loss_linear
from recurrent_lm.kernels.loss.terms import Terms, reduce, results

HOW = (-100, 0.1, 0.01, 3.0)
BODIES = ("rows_forward", "rows_backward", "tiles_forward", "tiles_combine", "tiles_backward", "kept_product")


class Queued:
    """A body that is launched and does nothing."""

    def __init__(self) -> None:
        self.launches = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.launches += 1
        return lambda *arguments, **constants: None


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> dict[str, Queued]:
    bodies = {name: Queued() for name in BODIES}
    for name, body in bodies.items():
        monkeypatch.setattr(loss_launch, name, body)
    return bodies


def tensors(dtype: torch.dtype = torch.bfloat16) -> list[Any]:
    """x [300, 16], W [9000, 16], b [9000], targets and class weights, without values."""
    x, w, b, weight = (torch.empty(s, dtype=dtype, device="meta") for s in ((300, 16), (9000, 16), (9000,), (9000,)))
    return [x, w, b, torch.empty(300, dtype=torch.long, device="meta"), weight]


def test_reading_a_value_raises() -> None:
    """The control: what a check of the targets would do."""
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool((tensors()[3] > 0).any())


@pytest.mark.parametrize("strategy", ["torch", "chunked"])
@pytest.mark.parametrize("mean", [True, False])
def test_gradients_with_the_loss(strategy: str, mean: bool, queued: dict[str, Queued]) -> None:
    loss, lse, best, count, *gradients = loss_linear._make_total(
        *tensors(), *HOW, torch.bfloat16, strategy, True, mean, True, True, True
    )  # fmt: skip
    assert [g.dtype for g in gradients] == [torch.bfloat16, torch.float32, torch.float32]
    assert (loss.shape, lse.shape, best.shape, count.shape) == ((), (300,), (300,), ())
    assert queued["rows_forward"].launches == queued["rows_backward"].launches == (strategy == "chunked")


@pytest.mark.parametrize(("strategy", "eps"), [("torch", None), ("chunked", None), ("cut", None), ("cut", 2**-12)])
def test_single_losses(strategy: str, eps: float | None, queued: dict[str, Queued]) -> None:
    losses, lse, top, log_sum, best = loss_linear._make_single(*tensors(), *HOW, torch.bfloat16, strategy, True, eps)
    loss = reduce(losses, tensors()[3], tensors()[4], Terms(), 9000, "mean")
    _, metrics = results(loss, lse, best, tensors()[3], Terms(), False, True)
    assert metrics.hits.shape == (300,)
    gradients = loss_linear._make_gradients(
        *tensors(), top, log_sum, losses, None, *HOW, torch.bfloat16, strategy, eps, True, True, True
    )  # fmt: skip
    assert [g.shape for g in gradients] == [(300, 16), (9000, 16), (9000,)]
    assert (queued["tiles_backward"].launches > 0) == (strategy == "cut")
    assert (queued["kept_product"].launches > 0) == (eps is not None)


def test_whole_calls(queued: dict[str, Queued]) -> None:
    """Forward and backward from the front door."""
    x, w, b, target, weight = tensors(torch.float32)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    for backend in ("torch", "triton", "eager"):
        for reduction in ("mean", "none"):
            how = {"weight": weight, "label_smoothing": 0.1, "reduction": reduction, "backend": backend}
            loss = linear_cross_entropy(x, w, target, linear_bias=b, **how)
            assert [g.shape for g in torch.autograd.grad(loss.sum(), leaves)] == [t.shape for t in leaves]
            loss, _ = cross_entropy(x, target.clamp(0, 15), **how | {"weight": weight[:16]}, return_metrics=True)
            assert torch.autograd.grad(loss.sum(), x)[0].shape == x.shape
