"""Options of the decoder's loss on CPU: torch's chunks and the eager twin against the definition, and torch's own cases."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loss_cases import OPTIONS, REDUCTIONS, problem, rows, same
from loss_checks import TORCH_CASES, as_torch_has_it, definition, options
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recurrent_lm.kernels import linear_cross_entropy

BACKENDS = pytest.mark.parametrize("backend", ["torch", "eager"])


def results(loss: Any, tensors: list[Tensor], target: Tensor, **how: Any) -> list[Tensor]:
    """Loss, lse, and gradients of a sum that weighs each loss and each lse."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    value, lse = loss(*leaves, target, **how)
    total = (value * torch.linspace(1, 2, value.numel(), dtype=value.dtype).view_as(value)).sum()
    if how.get("return_lse", True):
        total = total + (lse * torch.linspace(-1, 1, len(lse), dtype=lse.dtype)).sum()
    return [value.detach(), lse.detach(), *torch.autograd.grad(total, leaves)]


def truth(x: Tensor, w: Tensor, b: Tensor, target: Tensor, return_lse: bool = True, **how: Any) -> tuple[Tensor, Tensor]:
    return definition(F.linear(x, w, b), target, **how)


@OPTIONS
@REDUCTIONS
@BACKENDS
@pytest.mark.parametrize("return_lse", [True, False])
def test_every_option(return_lse: bool, backend: str, reduction: str, case: str) -> None:
    """Each option alone and in chosen pairs; with gradients made in the forward pass (without lse) and in the backward pass."""
    how = options(case, 9) | {"reduction": reduction}
    tensors, target = problem(11, 9, 5)
    target[1::3] = how.get("ignore_index", -100)

    def ours(x: Tensor, w: Tensor, b: Tensor, target: Tensor, return_lse: bool, **how: Any) -> tuple[Tensor, Tensor]:
        found = linear_cross_entropy(
            x, w, target, linear_bias=b, return_lse=return_lse, return_metrics=True, backend=backend, **how
        )  # fmt: skip
        return found[0], found[-1].lse if not return_lse else found[1]

    with rows(4):
        actual = results(ours, tensors, target, return_lse=return_lse, **how)
    same(actual, results(truth, tensors, target, return_lse=return_lse, **how))


@pytest.mark.parametrize("z_loss", [0.0, 0.05])
@pytest.mark.parametrize("ignored", [[], [1, 2], [0, 1, 2, 3]])
@BACKENDS
def test_a_mean_by_weights_of_0_alone(backend: str, ignored: list[int], z_loss: float) -> None:
    """0 / 0 for the rows that count, none of whose classes has a weight; 0 for rows that are ignored, also where all are."""
    tensors, target = problem(4, 5, 3)
    target.fill_(2)
    target[ignored] = -100
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    how = {"weight": weight, "z_loss": z_loss}
    leaves = [[t.clone().requires_grad_() for t in tensors] for _ in range(2)]
    mine = linear_cross_entropy(leaves[0][0], leaves[0][1], target, linear_bias=leaves[0][2], backend=backend, **how)
    expected, _ = definition(F.linear(*leaves[1]), target, **how)
    found, wanted = torch.autograd.grad(mine, leaves[0]), torch.autograd.grad(expected, leaves[1])
    same([mine.detach(), *found], [expected.detach(), *wanted])
    assert found[1].isnan().all() == (len(ignored) < 4)
    assert not found[0][ignored].isnan().any()


@pytest.mark.parametrize("case", TORCH_CASES)
@REDUCTIONS
@BACKENDS
def test_torch_cases(backend: str, reduction: str, case: str) -> None:
    """What torch defines is what torch computes: values and gradients to rounding, nan where it gives nan."""
    for mine, torchs in as_torch_has_it(case, reduction, {"backend": backend}):
        same(mine, torchs)


def test_torchs_function_of_the_same_name() -> None:
    """Where torch has linear_cross_entropy, the same call gives the same."""
    if not hasattr(F, "linear_cross_entropy"):
        pytest.skip("torch older than 2.13")
    (x, w, b), target = problem(10, 6, 4)
    how: dict[str, Any] = {"linear_bias": b, "label_smoothing": 0.1, "weight": torch.rand(6).double(), "reduction": "sum"}
    torch.testing.assert_close(linear_cross_entropy(x, w, target, **how), F.linear_cross_entropy(x, w, target, **how))
    how["ignore_index"] = None
    target[3] = -100
    torch.testing.assert_close(linear_cross_entropy(x, w, target, **how), F.linear_cross_entropy(x, w, target, **how))


@BACKENDS
def test_metrics(backend: str) -> None:
    """lse, first best class and hits of each row, over several chunks; with or without gradients."""
    (x, w, b), target = problem(11, 9, 5)
    w[7], b[7] = w[2], b[2]
    target[4] = -100
    logits = F.linear(x, w, b)
    for leaf in (x, x.clone().requires_grad_()):
        with rows(4):
            loss, lse, metrics = linear_cross_entropy(
                leaf, w, target, linear_bias=b, return_lse=True, return_metrics=True, backend=backend
            )  # fmt: skip
        assert metrics.argmax.tolist() == logits.argmax(dim=1).tolist()
        assert metrics.hits.tolist() == (logits.argmax(dim=1) == target).tolist()
        torch.testing.assert_close(lse, logits.logsumexp(dim=1))
        assert not metrics.lse.requires_grad
        assert loss.item() == pytest.approx(F.cross_entropy(logits, target).item())


@BACKENDS
def test_an_ignored_class_is_no_hit(backend: str) -> None:
    """A row whose target is ignored does not count, even where that class is a real one and the best."""
    x, w, target = torch.eye(3), 5 * torch.eye(3), torch.tensor([0, 1, 2])
    _, metrics = linear_cross_entropy(x, w, target, ignore_index=1, return_metrics=True, backend=backend)
    assert metrics.argmax.tolist() == [0, 1, 2]
    assert metrics.hits.tolist() == [True, False, True]


def test_small_class_weights_divide() -> None:
    """A mean whose weights sum to less than 1 divides by that sum."""
    tensors, target = problem(3, 6, 4)
    how = {"weight": torch.full((6,), 0.01, dtype=torch.float64)}
    found = []
    for loss in (linear_cross_entropy, lambda x, w, t, **k: F.cross_entropy(x @ w.t(), t, **k)):
        leaves = [t.clone().requires_grad_() for t in tensors[:2]]
        found.append(torch.autograd.grad(loss(*leaves, target, **how), leaves))
    same(list(found[0]), list(found[1]))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_derivative_is_refused(reduction: str) -> None:
    """A penalty on the gradient raises with a way out, and the way out works."""
    for backend in ("torch", "eager"):
        (x, w, _), target = problem(4, 7, 3)
        loss = linear_cross_entropy(x.requires_grad_(), w, target, reduction=reduction, backend=backend).sum()
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        if backend == "eager":
            gradient.square().sum().backward()
            assert x.grad is not None
            assert x.grad.any()
        else:
            with pytest.raises(RuntimeError, match="no second derivative; use backend='eager'"):
                gradient.square().sum().backward()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_hessian_is_refused(reduction: str) -> None:
    """Zeros, as torch's own refusal gives them, would be wrong numbers; for other inputs than the one differentiated too."""
    (x, w, b), target = problem(4, 7, 3)

    def loss(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return linear_cross_entropy(x, w, target, linear_bias=b, reduction=reduction, backend="torch").sum()

    for inputs in ((x, w, b), (x.requires_grad_(), w.requires_grad_(), b.requires_grad_())):
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.functional.hessian(loss, inputs)
    (of_input,) = torch.autograd.grad(loss(x, w, b), x, create_graph=True)
    for other in (x, w, b):
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(of_input.sum(), other, retain_graph=True, allow_unused=True)


class Made(TorchDispatchMode):
    """The largest tensor, in bytes, that an operation made anew."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in given:
            self.largest = max(self.largest, result.numel() * result.element_size())
        return result


def test_the_weights_gradient_exists_once() -> None:
    """The backward pass scales and hands over what the forward pass made: nothing of the weight's size is made again."""
    (x, w, b), target = problem(8, 500, 20)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    loss = linear_cross_entropy(x, w, target, linear_bias=b) * 2.0
    with Made() as made:
        loss.backward()
    assert all(leaf.grad is not None for leaf in leaves)
    assert made.largest <= 16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": torch.ones(4)}, "weight must be [7], not [4]"),
        ({"target": torch.zeros(4)}, "target must hold class indices (an integer dtype), not torch.float32"),
        ({"label_smoothing": -0.1}, "label_smoothing must be from 0 to 1, not -0.1"),
        ({"z_loss": float("inf")}, "z_loss must be 0 or a positive number, not inf"),
        ({"softcap": -2.0}, "softcap must be None or a positive number, not -2.0"),
        ({"linear_weight": torch.zeros(7, 3, device="meta")}, "linear_weight must be on cpu, not on meta"),
        ({"linear_weight": torch.zeros(0, 3)}, "there must be at least one class"),
        ({"strategy": "cut"}, "strategy 'cut' needs backend 'triton', not 'torch'"),
        (
            {"compute_dtype": torch.int8},
            "the dtype of the products must be one of float16, bfloat16, float32, float64, not 'int8'",
        ),
    ],
    ids=str,
)
def test_bad_input(changed: dict[str, Any], message: str) -> None:
    """One sentence that names the argument, what it must be and what it is."""
    arguments = {"input": torch.zeros(4, 3), "linear_weight": torch.zeros(7, 3), "target": torch.zeros(4, dtype=torch.long)}
    with pytest.raises(ValueError) as caught:
        linear_cross_entropy(**(arguments | {"backend": "torch"} | changed))
    assert str(caught.value) == message
