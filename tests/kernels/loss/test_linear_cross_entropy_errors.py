"""Decoder and cross-entropy in one: what is refused, and in which words."""

from typing import Any

import pytest
import torch
from loss_cases import ours, problem

from recurrent_lm.kernels import linear_cross_entropy


@pytest.mark.parametrize("backend", ["eager", "torch"])
@pytest.mark.parametrize("wrong", [7, -1, 10**9], ids=str)
@pytest.mark.parametrize("gradients", [True, False])
def test_target_out_of_range(gradients: bool, wrong: int, backend: str) -> None:
    """A target that is no class and not ignored is an IndexError that names it."""
    (x, w, b), target = problem(4, 7, 3)
    target[2] = wrong
    x.requires_grad_(gradients)
    with pytest.raises(IndexError, match=f"{wrong} is out"):
        linear_cross_entropy(x, w, target, linear_bias=b, backend=backend)


@pytest.mark.parametrize("wrong", [7, -1, 2**40])
def test_target_out_of_range_where_nobody_looks(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other devices than the CPU the row's loss and gradient are NaN, and the other rows' are right."""
    (x, w, b), target = problem(4, 7, 3)
    x.requires_grad_()
    weight = torch.linspace(1, 2, 7, dtype=torch.float64)

    def found(target: torch.Tensor) -> list[torch.Tensor]:
        losses = ours(x, w, target, linear_bias=b, weight=weight, label_smoothing=0.1, z_loss=0.1, reduction="none")
        return [losses.detach(), torch.autograd.grad(losses.sum(), x)[0]]

    expected = found(target)
    target[2] = wrong
    monkeypatch.setattr("recurrent_lm.kernels.loss.ops.check_classes", lambda *_: None)
    losses, gradient = found(target)
    assert losses.isnan().tolist() == [False, False, True, False]
    assert gradient.isnan().all(dim=1).tolist() == [False, False, True, False]
    keep = [0, 1, 3]
    assert torch.equal(losses[keep], expected[0][keep])
    torch.testing.assert_close(gradient[keep], expected[1][keep])


def test_default_ignore_index_is_a_mistake_where_another_is_set() -> None:
    """-100 is refused once ignore_index is something else; the last class is not."""
    (x, w, _), target = problem(4, 7, 3)
    target[:2] = torch.tensor([6, 0])
    ours(x, w, target, ignore_index=-1)
    target[2] = -100
    with pytest.raises(IndexError, match="Target -100 is out of bounds"):
        ours(x, w, target, ignore_index=-1)
    with pytest.raises(IndexError, match="target -100 is outside the 7 classes"):
        ours(x.requires_grad_(), w, target, ignore_index=-1)


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
