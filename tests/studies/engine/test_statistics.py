"""Numbers from samples of distributions whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from recurrent_lm.studies.engine.statistics import (
    NOTHING,
    RESAMPLES,
    Interval,
    compare,
    decided,
    exp,
    fisher,
    mean,
    median,
    paired_ratio,
    power_law,
    ratio,
    share,
    unpaired_ratio,
)


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    """Exponential samples: the median is ln 2. Of 300 intervals of 25 samples, 95% should hold it; 90% to 99% may."""
    random = np.random.default_rng(0)
    results = [median(random.exponential(size=25)) for _ in range(300)]
    covered = np.mean([f.low < math.log(2) < f.high for f in results])
    assert 0.9 < covered < 0.99


@pytest.mark.filterwarnings("ignore")  # scipy's, of samples that are alike
@given(st.lists(st.sampled_from([1.0, 1.1, 2.0, 3.5, 7.0]) | st.floats(0.1, 10), min_size=8, max_size=20), st.booleans())
@settings(deadline=None, max_examples=40)
def test_the_interval_is_scipys(samples, wide):
    confidence = 0.98 if wide else 0.95
    known = bootstrap((samples,), np.median, confidence_level=confidence, n_resamples=RESAMPLES, rng=0).confidence_interval
    interval = median(samples, confidence)
    assert (interval.low, interval.high) == pytest.approx((known.low, known.high), nan_ok=True)


def test_median_of_little():
    assert median([]) == NOTHING or math.isnan(median([]).value)
    assert median([3.0]).value == 3.0 and math.isnan(median([3.0]).low)
    five, six = range(1, 6), range(1, 7)  # the range of five holds the median with 94%, of six with 97%
    assert math.isnan(median(five).low) and not math.isnan(median(six).low)
    assert math.isnan(median(six, confidence=0.99).low)
    assert math.isnan(median([1.0, math.inf]).value)
    assert math.isnan(median([2.0, 2.0, 2.0]).low)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (1.1, 1.2, "faster"),
        (0.8, 0.9, "slower"),
        (0.99, 1.01, "same"),
        (0.9, 1.2, "ambiguous"),
        (1.01, 1.10, "ambiguous"),
        (0.90, 0.99, "ambiguous"),
        (math.nan, math.nan, "ambiguous"),
    ],
)
def test_comparison_against_a_floor_of_five_percent(low, high, word):
    assert compare(Interval(1.0, low, high), floor=0.05) == word


def test_comparison_of_nothing():
    assert compare(NOTHING) == "not measured"


@given(low=st.floats(0.01, 100), width=st.floats(1, 10))
def test_comparison_does_not_depend_on_who_is_first(low, width):
    """a / b and b / a say the same: faster turns into slower, same stays same."""
    high = low * width
    forward = compare(Interval(low, low, high))
    backward = compare(Interval(1 / high, 1 / high, 1 / low))
    assert backward == {"faster": "slower", "slower": "faster"}.get(forward, forward)


def test_a_power_law_is_found_as_often_as_its_interval_says():
    """y = 3 x^1.7 with 5% noise at five sizes: the exponent lies within 95% of the intervals."""
    random = np.random.default_rng(0)
    sizes = np.array([16, 32, 64, 128, 256])
    fits = [power_law(sizes, 3 * sizes**1.7 * random.lognormal(0, 0.05, 5)) for _ in range(1000)]
    covered = np.mean([f.low < 1.7 < f.high for f in fits])
    assert 0.93 < covered < 0.97
    assert np.mean([f.value for f in fits]) == pytest.approx(1.7, abs=0.005)


def test_a_cost_that_is_no_power_law_widens_the_interval():
    sizes = np.array([1.0, 2, 4, 8, 16])
    straight, bent = power_law(sizes, sizes), power_law(sizes, sizes + 5)
    assert straight.high - straight.low < 1e-6
    assert bent.high - bent.low > 0.3


def test_power_law_of_little():
    assert math.isnan(power_law([1.0], [1.0]).value)
    assert math.isnan(power_law([2.0, 2.0], [1.0, 3.0]).value)
    two = power_law([1, 4, 9], [1, 2, math.nan])
    assert two.value == pytest.approx(0.5) and math.isnan(two.low)


def test_pairs_see_what_medians_cannot():
    """Two that differ by 2% under a common noise of 50%: paired, the interval excludes 1."""
    random = np.random.default_rng(0)
    mood = random.lognormal(0, 0.5, 60)
    first = pd.Series(1.02 * mood * random.normal(1, 0.005, 60))
    second = pd.Series(mood * random.normal(1, 0.005, 60))
    ratio = paired_ratio(first, second)
    assert 1.01 < ratio.low < 1.02 < ratio.high < 1.03


def test_an_interval_reads_as_text():
    assert str(Interval(1.234, 1.0, 1.5)) == "1.23 [1.00, 1.50]"
    assert str(Interval(1.234, math.nan, math.nan)) == "1.23 no interval"


def test_the_interval_of_a_share_is_wilsons_by_hand():
    """1 of 15 with z = 1.959964: centre (p + z^2/2n) / (1 + z^2/n), reach z sqrt(p q / n + z^2 / 4n^2) / (1 + z^2/n)."""
    z, n, p = 1.959963984540054, 15, 1 / 15
    centre, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    whole = 1 + z * z / n
    assert share(1, 15) == pytest.approx((p, (centre - reach) / whole, (centre + reach) / whole), rel=1e-12)
    assert share(0, 10).low == 0.0 and share(10, 10).high == 1.0
    assert math.isnan(share(0, 0).value)


def test_fishers_p_by_hand():
    """2 of 2 against 0 of 2: of the six ways to place two successes among four, this and its mirror are as extreme."""
    assert fisher((2, 0), (2, 2)) == pytest.approx(2 / 6)
    assert fisher((0, 2), (2, 2)) == pytest.approx(2 / 6)
    assert fisher((3, 3), (5, 5)) == pytest.approx(1.0)


def test_the_interval_of_a_mean_of_few_is_students_by_hand():
    """1, 2, 4 of mean 7/3 and variance 7/3; t of two degrees of freedom is 4.302653 at 97.5%."""
    reach = 4.302652729911275 * math.sqrt(7 / 3 / 3)
    assert mean([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, 7 / 3 - reach, 7 / 3 + reach), rel=1e-9)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    random = np.random.default_rng(0)
    for count in (2, 3, 5):
        results = [mean(random.normal(1.0, 3.0, count)) for _ in range(1000)]
        assert 0.93 < np.mean([f.low < 1.0 < f.high for f in results]) < 0.97


def test_mean_of_little():
    assert math.isnan(mean([]).value) and math.isnan(mean([1.0, math.inf]).value)
    for samples in ([3.0], [2.0, 2.0, 2.0]):
        assert mean(samples).value == samples[0] and math.isnan(mean(samples).low)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(1.5, 1.2, 1.8), "holds"),
        (Interval(0.5, 0.2, 0.8), "fails"),
        (Interval(1.5, 0.8, 2.2), "ambiguous"),
        (Interval(9.0, math.nan, math.nan), "ambiguous"),
        (NOTHING, "ambiguous"),
    ],
)
def test_an_interval_decides_where_it_lies_on_one_side(interval, verdict):
    assert decided(interval, low=1) == verdict
    turned = Interval(*(-x for x in (interval.value, interval.high, interval.low)))
    assert decided(turned, high=-1) == verdict


@pytest.mark.parametrize(("value", "by"), [(1.0, 0.0), (0.0, 0.0), (1e300, 1e-300), (math.inf, 2.0), (1.0, math.nan)])
def test_a_ratio_that_is_no_number_is_nan(value, by):
    assert math.isnan(ratio(value, by))
    assert ratio(3.0, 2.0) == 1.5 and ratio(0.0, 2.0) == 0.0


def test_exp_ends_where_float64_does():
    assert exp(1.0) == math.exp(1.0) and exp(1e6) == math.inf and exp(-1e6) == 0.0 and math.isnan(exp(math.nan))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_pair_without_a_ratio_leaves_none(bad):
    good, other = pd.Series([1.0, 1.1] * 5), pd.Series([1.0, 1.2] * 4 + [1.0, bad])
    assert math.isnan(paired_ratio(good, other).value) and math.isnan(paired_ratio(other, good).value)
    assert math.isnan(unpaired_ratio(good, other).value)
    assert math.isnan(unpaired_ratio([2.0] * 9, [1.0] * 9).low)  # samples that are all alike
