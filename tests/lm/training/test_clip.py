"""Algorithm 1 of Pascanu et al. by hand, and clipping by value."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import parse_clip
from recurrent_lm.lm.training.clip import clip, not_finite

clip_unseen = partial(clip, look=False)  # as on a GPU whose numbers are not read
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


# -- beyond what squares in float32 can hold ------------------------------------------------------------------------

SIZES = st.lists(st.tuples(st.floats(-40.0, 38.4), st.integers(1, 2000)), min_size=1, max_size=3)  # log10, elements


def drawn(sizes: list[tuple[float, int]], dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], float]:
    """Normal numbers of these sizes, and the norm of all of them in float64."""
    generator = torch.Generator().manual_seed(len(sizes))
    normal = [torch.randn(n, generator=generator, dtype=torch.double) * 10**log for log, n in sizes]
    most = torch.finfo(dtype).max
    gradients = [g.clamp(-most, most).to(dtype) for g in normal]
    return gradients, norm_of(gradients)


def norm_of(gradients: list[Tensor]) -> float:
    return float(torch.cat([g.double() for g in gradients]).norm())


@given(SIZES, st.floats(-6.0, 0.5))
@example([(28.0, 2000)], -20.0)  # a norm of 4.5e29 and a threshold of 1, or so
@example([(38.4, 2000)], -3.0)  # the norm is no float32
@example([(38.4, 2000)], -38.0)  # threshold / norm is no normal number, and next it is 0
@example([(38.4, 2000)], -60.0)
@example([(-23.0, 2000)], -1.0)  # squares vanish
@example([(-22.0, 2000)], -1.0)  # squares have lost digits
@example([(-40.0, 2000)], 0.0)  # elements are subnormal
@example([(38.0, 5), (-40.0, 2000), (0.0, 1)], -38.0)
def test_any_gradient_of_finite_elements_is_clipped_to_its_threshold(sizes: list[tuple[float, int]], ratio: float) -> None:
    """On the host and on the device, against float64; the plain norm, bit for bit, where its squares are normal numbers."""
    gradients, truth = drawn(sizes)
    threshold = truth * 10**ratio
    count = sum(g.numel() for g in gradients)
    plain = float(torch.nn.utils.get_total_norm(gradients))
    for function in (clip, clip_unseen):
        ours = [g.clone() for g in gradients]
        norm, clipped = function(ours, "norm", threshold)
        assert float(norm) == pytest.approx(truth, rel=1e-6, abs=0)
        if 1e-15 * math.sqrt(count) < plain < math.inf:
            assert float(norm) == plain
        subnormal = 2**-149 * math.sqrt(count)  # the result's own rounding
        assert norm_of(ours) == pytest.approx(min(threshold, truth), rel=1e-6, abs=subnormal)
        if abs(ratio) > 1e-6:
            assert bool(clipped) == (ratio < 0)
        if ratio > 1e-6:
            assert all(torch.equal(a, b) for a, b in zip(ours, gradients, strict=True))


@pytest.mark.parametrize("function", [clip, clip_unseen])
def test_two_thousand_elements_of_1e_23_have_a_norm(function: Callable[..., Any]) -> None:
    gradients = [torch.full((2000,), 1e-23)]
    assert float(function(gradients, "none", math.inf)[0]) == pytest.approx(1e-23 * math.sqrt(2000), rel=1e-6)


@pytest.mark.parametrize("function", [clip, clip_unseen])
@pytest.mark.parametrize(("dtype", "log"), [(torch.float16, 4.6), (torch.float16, -5.0), (torch.bfloat16, 38.4)])
def test_halves_are_measured_and_multiplied_as_float32(function: Callable[..., Any], dtype: torch.dtype, log: float) -> None:
    """To the rounding of the elements; 4.5e4 squared is no half, and neither is a factor of 1e-8."""
    gradients, truth = drawn([(log, 2000)], dtype)
    threshold = min(truth / 4, 0.5)
    assert float(function(gradients, "norm", threshold)[0]) == pytest.approx(truth, rel=1e-6)
    assert norm_of(gradients) == pytest.approx(threshold, rel=1e-2)


@pytest.mark.parametrize("function", [clip, clip_unseen])
@pytest.mark.parametrize("log", [160.0, 300.0, -170.0, -300.0])
def test_float64_has_its_limits_further_out(function: Callable[..., Any], log: float) -> None:
    gradients = [torch.full((9,), 10.0**log, dtype=torch.double)]
    assert float(function(gradients, "norm", 10.0**log)[0]) == pytest.approx(3 * 10.0**log, rel=1e-12)
    assert gradients[0].tolist() == pytest.approx([10.0**log / 3] * 9, rel=1e-12)


@pytest.mark.parametrize("function", [clip, clip_unseen])
def test_values_are_clipped_where_the_norm_is_no_float(function: Callable[..., Any]) -> None:
    gradients = [torch.tensor([3e38, -3e38, 0.5]), torch.zeros(0), torch.full((2000,), 3e38)]
    norm, clipped = function(gradients, "value", 1.0)
    assert float(norm) == pytest.approx(3e38 * math.sqrt(2002), rel=1e-6)
    assert clipped
    assert gradients[0].tolist() == [1.0, -1.0, 0.5]


def test_elements_that_are_not_finite_are_counted() -> None:
    gradients = [torch.tensor([1.0, math.nan, -math.inf, 0.0]), torch.tensor([[3e38, -0.0]]), torch.tensor([math.inf])]
    assert not_finite(gradients).tolist() == [2.0, 0.0, 1.0]


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
