"""Mixing two models: known weights, and log space where probabilities are too small for a float."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recurrent_lm.lm.scoring.interpolate import fit_weight, mix

EIGHTHS = st.integers(-240, 0)  # of a nat: models agree on a token or differ by what can be measured
LOG_PROBABILITIES = st.lists(st.tuples(EIGHTHS, EIGHTHS), min_size=1, max_size=30).map(
    lambda pairs: tuple(np.array(pairs).T / 8)
)
Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


@pytest.mark.parametrize(("share", "weight"), [(0.3, 0), (0.4, 0.2), (0.5, 0.5), (0.6, 0.8), (0.7, 1)])
def test_a_weight_by_hand(share: float, weight: float) -> None:
    # P is twice Q on a share f of the tokens and half of Q on the others. The slope of the mean of log(w P + (1 - w) Q) is
    # f / (1 + w) - (1 - f) / (2 - w), which is 0 at w = 3 f - 1; for f < 1/3 it falls all the way, for f > 2/3 it rises.
    log_q = np.log(np.linspace(0.01, 0.4, 100))
    log_p = log_q + math.log(2) * np.where(np.arange(100) < 100 * share, 1, -1)
    assert fit_weight(log_p, log_q) == pytest.approx(weight, abs=2e-9)
    assert weight not in (0, 1) or fit_weight(log_p, log_q) == weight, "the ends are exact"


def test_tokens_that_one_model_finds_impossible_pay_for_the_other() -> None:
    log_p = np.array([-1.0, -2.0, -3.0, -math.inf])
    log_q = np.array([-math.inf, -math.inf, -math.inf, -700.0])
    assert fit_weight(log_p, log_q) == pytest.approx(3 / 4, abs=2e-9)


def test_a_model_that_is_better_on_every_token_is_taken_alone() -> None:
    log_p = np.array([-1.0, -900.0])
    assert fit_weight(log_p, log_p - 800) == 1
    assert fit_weight(log_p - 800, log_p) == 0
    assert fit_weight(log_p, log_p) == 0


@given(LOG_PROBABILITIES, st.floats(0, 1))
def test_no_other_weight_is_better_near_or_far(pair: Pair, far: float) -> None:
    w = fit_weight(*pair)
    best = mix(*pair, w).mean()
    for other in (far, max(w - 1e-3, 0), min(w + 1e-3, 1)):
        assert best >= mix(*pair, other).mean() - 1e-12


@given(LOG_PROBABILITIES)
def test_the_order_of_the_models_only_turns_the_weight_round(pair: Pair) -> None:
    log_p, log_q = pair
    if not np.array_equal(log_p, log_q):
        assert fit_weight(log_q, log_p) == pytest.approx(1 - fit_weight(log_p, log_q), abs=1e-6)


@given(LOG_PROBABILITIES)
def test_a_mixture_is_the_sum_of_its_parts(pair: Pair) -> None:
    np.testing.assert_allclose(np.exp(mix(*pair, 0.3)), 0.3 * np.exp(pair[0]) + 0.7 * np.exp(pair[1]), rtol=1e-13)


def test_a_mixture_of_probabilities_too_small_for_a_float() -> None:
    mixed = mix(np.array([-2000.0, -math.inf, -5000.0]), np.array([-2001.0, -1000.0, -1.0]), 0.25)
    truth = [-2000 + math.log(0.25 + 0.75 / math.e), -1000 + math.log(0.75), -1 + math.log(0.75)]
    np.testing.assert_allclose(mixed, truth, rtol=1e-15)


def test_at_the_ends_a_mixture_is_one_model_and_leaves_it_untouched() -> None:
    log_p, log_q = np.array([-1.5, -math.inf]), np.array([-math.inf, -2.5])
    for w, model in ((1, log_p), (0, log_q)):
        mixed = mix(log_p, log_q, w)
        np.testing.assert_array_equal(mixed, model)
        mixed[0] = 0
        assert model[0] != 0


def test_what_does_not_belong_together_is_refused() -> None:
    one = np.array([-1.0])
    with pytest.raises(ValueError, match="shapes"):
        mix(one, np.array([-1.0, -2.0]), 0.5)
    with pytest.raises(ValueError, match="shapes"):
        fit_weight(np.zeros((2, 1)), np.zeros(2))
    with pytest.raises(ValueError, match="NaN"):
        fit_weight(one, np.array([math.nan]))
    with pytest.raises(ValueError, match="impossible"):
        fit_weight(np.array([-math.inf, -1]), np.array([-math.inf, -2]))
    with pytest.raises(ValueError, match="no token"):
        fit_weight(np.array([]), np.array([]))
    for w in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            mix(one, one, w)
