"""Replicas side by side: each computes what a network of its own does by autograd in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from recurrent_lm import kernels
from recurrent_lm.studies.long_range.replica_training import Recipe, descend, joint_norm, train
from recurrent_lm.studies.long_range.replicas import Weights, answers, gradients, immediate, initial
from recurrent_lm.studies.long_range.tasks import TASKS

CELLS = ("rnn-tanh", "lstm", "gru")


def randoms(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def problem(cell, task="temporal_order", steps=10, replicas=3, rows=4, hidden=5, std=0.6):
    """Weights and a batch in float64; weights so large that the gradient does not vanish."""
    about = TASKS[task]
    weights = initial(cell, about, hidden, std, randoms(*range(replicas)))
    weights = Weights(*(t.double() + 0.1 for t in weights.tensors()))
    drawn = [about.generate(random, steps, rows) for random in randoms(*range(10, 10 + replicas))]
    x, target = (torch.stack(part, dim=1) for part in zip(*drawn, strict=True))
    return about, weights, x.double(), target


def alone(cell, about, weights, x, target):
    """Loss of one network by the textbook's steps, one sequence of operations for autograd: weights without axis R."""
    W_h, W_e, U, c = weights
    state = (x.new_zeros(x.shape[1], len(W_h)),) * kernels.CELLS[cell].states
    hidden = []
    for at in x:
        state = kernels.step(cell, at @ W_e, state, W_h.t())
        hidden.append(state[0])
    y = torch.stack(hidden[-len(target) :]) @ U + c
    loss = F.cross_entropy(y.flatten(0, 1), target.flatten()) if about.classes else F.mse_loss(y[..., 0], target.to(y))
    return loss, y, hidden


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("task", TASKS)
def test_losses_answers_and_gradients_are_those_of_each_network_alone(cell, task):
    about, weights, x, target = problem(cell, task)
    loss, grads, omega = gradients(cell, about, weights, x, target)
    y = answers(cell, weights, x, len(target))
    for r in range(3):
        own = [t[r].clone().requires_grad_() for t in weights.tensors()]
        expected, of_own, _ = alone(cell, about, own, x[:, r], target[:, r])
        torch.testing.assert_close(loss[r], expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(y[:, r], of_own, rtol=1e-12, atol=1e-14)
        for mine, theirs in zip(grads.tensors(), torch.autograd.grad(expected, own), strict=True):
            assert theirs.abs().max() > 1e-6
            torch.testing.assert_close(mine[r], theirs, rtol=1e-9, atol=1e-13)
    assert (omega == 0).all()


def by_hand(W_h, h, deltas):
    """Omega of one network, loop by loop as the paper writes it: W_h moves, gradients and slopes stay."""
    terms = []
    for k in range(len(h) - 1):
        for row in range(h.shape[1]):
            jacobian = W_h * (1 - h[k, row].square())[:, None]  # dx(k+1)/dx(k), [from, to]
            terms.append(((jacobian @ deltas[k + 1, row]).norm() / deltas[k + 1, row].norm() - 1) ** 2)
    return sum(terms) / len(terms)


def test_omega_is_the_papers_and_its_derivative_the_immediate_one():
    """Finite differences of W_h alone, dE/dx and the slopes held: not the derivative of Omega through them."""
    about, weights, x, target = problem("rnn-tanh")
    _, plain, _ = gradients("rnn-tanh", about, weights, x, target)
    _, grads, omega = gradients("rnn-tanh", about, weights, x, target, omega=4.0)
    for r in range(3):
        own = [t[r] for t in weights.tensors()]
        shift = torch.zeros(len(x), 4, 5, dtype=torch.float64, requires_grad=True)  # on the sum inside the tanh
        state, hidden = x.new_zeros(4, 5), []
        for t in range(len(x)):
            state = torch.tanh(x[t, r] @ own[1] + state @ own[0] + shift[t])
            hidden.append(state)
        loss = F.cross_entropy(state @ own[2] + own[3], target[0, r])
        (deltas,) = torch.autograd.grad(loss, shift)
        h = torch.stack(hidden).detach()
        torch.testing.assert_close(omega[r], by_hand(own[0], h, deltas), rtol=1e-10, atol=0)
        slope = (grads.W_h[r] - plain.W_h[r]) / 4
        eps = 1e-6
        for i, j in ((0, 0), (1, 3), (4, 2), (2, 4)):
            step = torch.zeros_like(own[0])
            step[i, j] = eps
            rise = (by_hand(own[0] + step, h, deltas) - by_hand(own[0] - step, h, deltas)) / (2 * eps)
            assert abs(rise) > 1e-4
            torch.testing.assert_close(slope[i, j], rise, rtol=1e-6, atol=1e-9)
    for name in ("W_e", "U", "c"):  # Omega pulls at W_h only
        assert torch.equal(getattr(plain, name), getattr(grads, name))


def test_omega_is_zero_where_the_step_keeps_the_norm_and_leaves_vanished_gradients_out():
    W = torch.linalg.qr(torch.randn(2, 4, 4, dtype=torch.float64, generator=randoms(0)[0]))[0]
    h = torch.zeros(3, 2, 5, 4, dtype=torch.float64)  # slopes of 1
    deltas = torch.randn(3, 2, 5, 4, dtype=torch.float64, generator=randoms(1)[0])
    onward = deltas[1:] @ W.transpose(1, 2)
    value, slope = immediate(W, h, deltas, onward)
    assert value.max() < 1e-25 and slope.abs().max() < 1e-12
    value, slope = immediate(3 * W, h, deltas, 3 * onward)
    torch.testing.assert_close(value, torch.full((2,), 4.0, dtype=torch.float64))  # (3 - 1)^2
    deltas[1, :, :3] = 1e-11
    vanished = immediate(3 * W, h, deltas, 3 * (deltas[1:] @ W.transpose(1, 2)))
    torch.testing.assert_close(vanished[0], value)
    deltas[:] = 0
    value, slope = immediate(W, h, deltas, torch.zeros_like(onward))
    assert (value == 0).all() and (slope == 0).all()


def test_omega_of_a_gated_cell_is_refused():
    with pytest.raises(ValueError, match="rnn-tanh, not for gru"):
        gradients("gru", *problem("gru"), omega=1.0)


@pytest.mark.parametrize("clip", [math.inf, 0.01, 1e9])
def test_an_update_clips_each_replica_by_its_own_joint_norm(clip):
    about, weights, x, target = problem("rnn-tanh")
    _, grads, _ = gradients("rnn-tanh", about, weights, x, target)
    before = [t.clone() for t in weights.tensors()]
    alive = descend(weights, grads, Recipe("rnn-tanh", 5, 0.1, "sgd", 0.5, clip))
    assert alive.tolist() == [True] * 3
    for r in range(3):
        norm = math.sqrt(sum(float(g[r].square().sum()) for g in grads.tensors()))
        assert norm > 0.01
        for old, new, g in zip(before, weights.tensors(), grads.tensors(), strict=True):
            torch.testing.assert_close(new[r], old[r] - 0.5 * min(1, clip / norm) * g[r], rtol=1e-12, atol=1e-15)


def test_a_replica_whose_gradient_is_no_number_stands_still_and_says_so():
    about, weights, x, target = problem("rnn-tanh")
    _, grads, _ = gradients("rnn-tanh", about, weights, x, target)
    grads.U[1, 0, 0] = math.nan
    grads.W_h[2] = 1e12
    before = weights.W_h.clone()
    assert descend(weights, grads, Recipe("rnn-tanh", 5, 0.1, "sgd", 0.5, math.inf)).tolist() == [True, False, False]
    assert torch.equal(weights.W_h[1:], before[1:]) and not torch.equal(weights.W_h[0], before[0])


@pytest.mark.parametrize("size", [1e12, 1e30, 1e200, 1e-200])
def test_a_clipped_replica_goes_on_whatever_its_gradients_size(size):
    """The squares of the last two are no float64, and CLIPPED is a bound for float32."""
    about, weights, x, target = problem("rnn-tanh")
    _, grads, _ = gradients("rnn-tanh", about, weights, x, target)
    plain = joint_norm(grads)
    for tensor in grads.tensors():
        tensor[2] *= size
    norm = joint_norm(grads)
    torch.testing.assert_close(norm, plain * torch.tensor([1.0, 1.0, size], dtype=plain.dtype), rtol=1e-12, atol=0)
    assert torch.equal(norm[:2], plain[:2])
    if size > 1 and size < 1e37:
        before = [t.clone() for t in weights.tensors()]
        assert descend(weights, grads, Recipe("rnn-tanh", 5, 0.1, "sgd", 0.5, 0.01)).all()
        moved = [(new[2] - old[2]).norm() for new, old in zip(weights.tensors(), before, strict=True)]
        assert float(torch.stack(moved).norm()) == pytest.approx(0.5 * 0.01, rel=1e-9)


def test_adam_takes_the_steps_of_torchs():
    from recurrent_lm.studies.long_range.replica_training import _Adam

    about, weights, x, target = problem("gru")
    mine, recipe = _Adam(weights), Recipe("gru", 5, 0.1, "adam", 0.01, math.inf)
    theirs = [t.clone().requires_grad_() for t in weights.tensors()]
    optimizer = torch.optim.Adam(theirs, lr=0.01)
    for _ in range(5):
        _, grads, _ = gradients("gru", about, weights, x, target)
        for leaf, grad in zip(theirs, grads.tensors(), strict=True):
            leaf.grad = grad.clone()
        optimizer.step()
        descend(weights, grads, recipe, mine)
        for a, b in zip(weights.tensors(), theirs, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("cell", "optimizer"), [("rnn-tanh", "sgd"), ("gru", "adam")])
def test_a_training_does_not_depend_on_those_beside_it(cell, optimizer):
    """Also where others have ended: seed 2 by success, since all are solved that have no error."""
    recipe = Recipe(cell, 8, 0.3, optimizer, 0.02, 1.0, rows=5, updates=45, every=15)
    together = train("temporal_order", 10, recipe, [1, 2, 3])
    assert together == [train("temporal_order", 10, recipe, [seed])[0] for seed in (1, 2, 3)]
    assert len({row["error"] for row in together}) == 3
