"""Norms far back in the past, whose squares are no float64, in the gradient studies; and clipping of gradients as large."""

import math

import pytest
import torch

from recurrent_lm.studies.clipping.kinds import by_norm, cosine
from recurrent_lm.studies.gradient_flow.parts import at_own_step, backward, forward, part_norms


def test_a_gradient_vanishes_over_a_thousand_steps_without_becoming_zero():
    """A linear unit of eigenvalue 0.6: ||dL(t)/dh(i)|| = 0.6^(t - i), down to 1e-222, whose square is 0."""
    steps = 1001
    z, weight = torch.ones(steps, 1, 1, dtype=torch.double), torch.full((1, 1), 0.6, dtype=torch.double)
    unrolled = forward("rnn-identity", z, (torch.ones(1, 1, dtype=torch.double),), weight)
    back = backward(unrolled, at_own_step(torch.ones(1, 1, 1, dtype=torch.double), steps))
    lags = torch.arange(steps - 1, -1, -1, dtype=torch.double)
    torch.testing.assert_close(back.state_norms()[:, 0, 0], 0.6**lags, rtol=1e-10, atol=0)
    before = unrolled.before[0][:, 0, 0].abs()
    torch.testing.assert_close(part_norms(unrolled, back)[:, 0, 0], 0.6**lags * before, rtol=1e-10, atol=0)


@pytest.mark.parametrize("size", [1.0, 1e200, 1e-200])
def test_clipping_and_angles_of_vectors_of_any_length(size):
    a, b = torch.tensor([3.0, 4.0], dtype=torch.double) * size, torch.tensor([4.0, 3.0], dtype=torch.double) * size
    assert cosine(a, b) == pytest.approx(0.96, rel=1e-12)
    assert math.isnan(cosine(a, torch.zeros_like(a)))
    assert by_norm(a, size).tolist() == pytest.approx([0.6 * size, 0.8 * size], rel=1e-12)
    assert torch.equal(by_norm(a, 6 * size), a)
