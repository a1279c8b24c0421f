"""Algorithm 1 of Pascanu et al. by hand, and clipping by value."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lm.clip import clip
from lm.config import parse_clip
from lm.errors import InputError

FINITE = st.floats(-1e3, 1e3, width=32)


def doubles(*values: list[float]) -> list[Tensor]:
    return [torch.tensor(v, dtype=torch.double) for v in values]


def test_a_norm_above_the_threshold_is_rescaled_to_it_over_all_parameters_together() -> None:
    gradients = doubles([3.0, 0.0], [[0.0], [4.0]])  # ||g|| = 5
    assert clip(gradients, "norm", 2.5) == (5.0, True)
    torch.testing.assert_close(gradients, doubles([1.5, 0.0], [[0.0], [2.0]]), rtol=1e-15, atol=0)


def test_a_norm_below_the_threshold_leaves_every_bit() -> None:
    gradients = doubles([3.0, 0.1], [4.0])
    before = [g.clone() for g in gradients]
    norm, clipped = clip(gradients, "norm", 5.2)
    assert not clipped
    assert norm == pytest.approx(math.sqrt(25.01), rel=1e-15)
    assert all(torch.equal(a, b) for a, b in zip(gradients, before, strict=True))


def test_a_norm_at_the_threshold_changes_nothing() -> None:
    gradients = doubles([3.0], [4.0])
    norm, _ = clip(gradients, "norm", 5.0)
    assert norm == 5.0
    torch.testing.assert_close(gradients, doubles([3.0], [4.0]), rtol=0, atol=0)


@given(st.lists(st.lists(FINITE, min_size=1, max_size=5), min_size=1, max_size=4), st.floats(0.01, 100))
def test_norm_clipping_follows_algorithm_1_in_float64(values: list[list[float]], threshold: float) -> None:
    gradients = doubles(*values)
    truth = math.sqrt(sum(v * v for part in values for v in part))
    norm, clipped = clip(gradients, "norm", threshold)
    assert norm == pytest.approx(truth, rel=1e-12, abs=1e-300)
    scale = threshold / truth if truth >= threshold else 1.0
    for gradient, part in zip(gradients, values, strict=True):
        torch.testing.assert_close(gradient, torch.tensor(part, dtype=torch.double) * scale, rtol=1e-12, atol=1e-300)
    after = math.sqrt(sum(float((g * g).sum()) for g in gradients))
    assert after <= threshold * (1 + 1e-12)
    if abs(truth - threshold) > 1e-9 * threshold:
        assert clipped == (truth > threshold)


@given(st.lists(st.lists(FINITE, min_size=1, max_size=5), min_size=1, max_size=4), st.floats(0.0625, 128, width=32))
def test_value_clipping_limits_each_element_and_reports_the_norm_before(values: list[list[float]], threshold: float) -> None:
    gradients = doubles(*values)
    norm, clipped = clip(gradients, "value", threshold)
    flat = [v for part in values for v in part]
    assert norm == pytest.approx(math.sqrt(sum(v * v for v in flat)), rel=1e-12, abs=1e-300)
    limited = [min(max(v, -threshold), threshold) for v in flat]
    assert torch.cat([g.flatten() for g in gradients]).tolist() == limited
    assert clipped == any(abs(v) > threshold for v in flat)


def test_none_only_measures() -> None:
    gradients = doubles([30.0], [40.0])
    assert clip(gradients, *parse_clip("none")) == (50.0, False)
    torch.testing.assert_close(gradients, doubles([30.0], [40.0]), rtol=0, atol=0)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("kind", ["norm", "value", "none"])
def test_a_norm_that_is_not_finite_is_told_and_nothing_is_touched(kind: str, bad: float) -> None:
    gradients = doubles([100.0, bad], [-100.0])
    before = [g.clone() for g in gradients]
    norm, clipped = clip(gradients, kind, 1.0)
    assert not math.isfinite(norm)
    assert not clipped
    torch.testing.assert_close(gradients, before, rtol=0, atol=0, equal_nan=True)


def test_gradients_are_clipped_in_place() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([6.0, 8.0])
    clip([parameter.grad], "norm", 1.0)
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))


def test_the_setting_names_kind_and_threshold() -> None:
    assert parse_clip("norm:0.25") == ("norm", 0.25)
    assert parse_clip("value:5") == ("value", 5.0)
    assert parse_clip("none")[0] == "none"


@pytest.mark.parametrize(
    "text", ["", "norm", "norm:", "norm:0", "norm:-1", "value:x", "value:nan", "l1:3", "None", "none:1", "5"]
)
def test_a_wrong_setting_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--clip must be"):
        parse_clip(text)
