"""Statistics of tables and arrays; no measuring, no drawing."""

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import binomtest, fisher_exact, rankdata

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 2_000
FLOOR = 0.03  # ratios within 3% of 1 count as noise: a rebuilt program moves as much


class Interval(NamedTuple):
    """A number with its confidence interval; nan if missing."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.told(".2f")

    def told(self, spec: str) -> str:
        """The number and its interval, formatted by ``spec``."""
        return f"{self.value:{spec}} {self.between(spec)}"

    def between(self, spec: str) -> str:
        """The interval alone."""
        return NO_INTERVAL if math.isnan(self.low) else f"[{self.low:{spec}}, {self.high:{spec}}]"


NOTHING = Interval(math.nan, math.nan, math.nan)
NO_INTERVAL = "no interval"
UNDEFINED = "undefined: a value is 0, negative or not finite"  # in the place of a ratio or mean that does not exist


def ratio(value: float, by: float) -> float:
    """``value`` / ``by``; nan if the quotient is not finite."""
    value, by = float(value), float(by)
    quotient = value / by if by else math.nan
    return quotient if math.isfinite(quotient) else math.nan


def exp(log: float) -> float:
    """e to the power of ``log``; infinity instead of ``math.exp``'s error where float64 overflows."""
    return math.exp(log) if log < 709 else log * math.inf


def decided(interval: Interval, low: float = -math.inf, high: float = math.inf) -> str:
    """Verdict on whether a number lies within [low, high].

    Returns:
        "holds" if its whole interval does, "fails" if no part of it does, otherwise "ambiguous", also without an interval (one
        seed).
    """
    if math.isnan(interval.low) or math.isnan(interval.high):
        return "ambiguous"
    if interval.low >= low and interval.high <= high:
        return "holds"
    return "fails" if interval.high < low or interval.low > high else "ambiguous"


def by_lag(table: "pd.DataFrame", column: str = "weight_norm") -> "pd.DataFrame":
    """Median and quartiles of a column over windows.

    Args:
        table: with the columns window, layer and lag.
        column: the column to sum up.

    Returns:
        One row for each layer and lag: columns layer, lag, low, median, high.
    """

    grouped = table.groupby(["layer", "lag"])[column].quantile(np.array([0.25, 0.5, 0.75])).unstack()
    return grouped.set_axis(["low", "median", "high"], axis=1).reset_index()


def decay(curve: "pd.DataFrame") -> float:
    """Factor by which the medians of ``by_lag`` change per step back, from a line through their logarithms.

    Args:
        curve: the rows of one layer. Medians that are 0 or not finite are left out.

    Returns:
        The factor; nan with fewer than two medians.
    """

    seen = curve[(curve["median"] > 0) & np.isfinite(curve["median"])]
    if len(seen) < 2:
        return float("nan")
    with np.errstate(over="ignore"):
        return float(np.exp(np.polyfit(seen["lag"], np.log(seen["median"]), 1)[0]))


def median(samples: Any, confidence: float = 0.95) -> Interval:
    """Median with a BCa bootstrap interval (Efron 1987).

    Args:
        samples: [n].
        confidence: of the interval.

    Returns:
        No number if a sample is not finite. No interval for samples that are nearly all equal, or so few that their range holds
        the median with less probability than ``confidence`` (that probability is 1 - 2 / 2^n).
    """

    samples = np.asarray(samples, dtype=np.float64)
    if not len(samples) or not np.isfinite(samples).all():
        return NOTHING
    with np.errstate(over="ignore"):
        middle = float(np.median(samples))
    if not math.isfinite(middle):
        return NOTHING
    if 2 * 0.5 ** len(samples) > 1 - confidence:
        return Interval(middle, math.nan, math.nan)
    return Interval(middle, *_bca(samples, confidence))


def mean(samples: Any, confidence: float = 0.95) -> Interval:
    """Mean of a few independent samples, such as one a seed, with Student's interval.

    ``median`` assumes no distribution and needs six samples; this function assumes a normal one, and two suffice.

    Args:
        samples: [n].
        confidence: of the interval.

    Returns:
        No number if a sample is not finite; no interval for samples that are all equal.
    """

    samples = np.asarray(samples, dtype=np.float64)
    if not len(samples) or not np.isfinite(samples).all():
        return NOTHING
    with np.errstate(all="ignore"):
        middle = float(samples.mean())
        if len(samples) < 2 or (samples == samples[0]).all():
            return Interval(middle, math.nan, math.nan)
        reach = float(stdtrit(len(samples) - 1, (1 + confidence) / 2) * samples.std(ddof=1) / math.sqrt(len(samples)))
    return Interval(middle, middle - reach, middle + reach) if math.isfinite(middle + reach) else NOTHING


def paired_ratio(first: "pd.Series[float]", second: "pd.Series[float]", confidence: float = 0.95) -> Interval:
    """Median of first / second, pair by pair, with ``median``'s interval.

    Returns:
        No number if any value is not finite and above 0, such as the time of a clock that stood still.
    """

    a, b = (np.asarray(s, dtype=np.float64) for s in (first, second))
    with np.errstate(all="ignore"):
        quotients = a / b
    if not all((np.isfinite(s) & (s > 0)).all() for s in (a, b, quotients)):
        return NOTHING
    return median(quotients, confidence)


def unpaired_ratio(first: Any, second: Any, confidence: float = 0.95) -> Interval:
    """Median of ``first`` over median of ``second``, with a percentile bootstrap interval (Efron 1979) that resamples each
    alone.

    The interval covers the noise within each sample, not differences between them, such as another day.

    Args:
        first, second: [n] and [m], sampled independently.
        confidence: of the interval.

    Returns:
        No number if a sample is not finite and above 0; no interval for as few samples as ``median`` needs more of.
    """

    samples = [np.asarray(s, dtype=np.float64) for s in (first, second)]
    if any(not len(s) or not (np.isfinite(s) & (s > 0)).all() for s in samples):
        return NOTHING
    value = ratio(float(np.median(samples[0])), float(np.median(samples[1])))
    if 2 * 0.5 ** min(map(len, samples)) > 1 - confidence:
        return Interval(value, math.nan, math.nan)
    medians = [np.median(s[_draws(len(s), seed)], axis=1) for seed, s in enumerate(samples)]
    with np.errstate(all="ignore"):
        low, high = np.quantile(medians[0] / medians[1], [(1 - confidence) / 2, (1 + confidence) / 2])
    if not math.isfinite(value) or value == 0:
        return NOTHING
    if low == high or not math.isfinite(high):  # equal samples have no noise to estimate
        return Interval(value, math.nan, math.nan)
    return Interval(value, float(low), float(high))


def compare(speed: Interval, floor: float = FLOOR) -> str:
    """Classify a ratio of speeds.

    Args:
        speed: the ratio.
        floor: ratios within this share of 1 count as noise.

    Returns:
        "faster" or "slower" if the whole interval lies beyond the floor, "same" if it lies within, "not measured" without a
        number, otherwise "ambiguous": more samples or a quieter machine might decide.
    """
    if not math.isfinite(speed.value):
        return "not measured"
    if math.isnan(speed.low):
        return "ambiguous"
    if speed.low > 1 + floor:
        return "faster"
    if speed.high < 1 / (1 + floor):
        return "slower"
    return "same" if speed.low >= 1 / (1 + floor) and speed.high <= 1 + floor else "ambiguous"


def power_law(sizes: Any, values: Any) -> Interval:
    """Exponent p of values ~ sizes^p by least squares on logarithms, with Student's 95% interval.

    The interval covers the scatter of the points about a straight line, whether noise or a cost that is no power law.

    Args:
        sizes, values: [n], above 0.

    Returns:
        No interval for fewer than three points, no number for fewer than two sizes.
    """

    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(values, dtype=np.float64)
    seen = (x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y)
    x, y = np.log(x[seen]), np.log(y[seen])
    if len(np.unique(x)) < 2:
        return NOTHING
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    if len(x) < 3:
        return Interval(slope, math.nan, math.nan)
    error = math.sqrt(float(((y - slope * x) ** 2).sum() / (x @ x)) / (len(x) - 2))
    reach = float(stdtrit(len(x) - 2, 0.975)) * error
    return Interval(slope, slope - reach, slope + reach)


def share(successes: int, total: int, confidence: float = 0.95) -> Interval:
    """Share of successes among ``total`` tries with Wilson's score interval (1927); nan for no try."""

    if not total:
        return NOTHING
    interval = binomtest(successes, total).proportion_ci(confidence, method="wilson")
    return Interval(successes / total, float(interval.low), float(interval.high))


def rank_correlation(first: Any, second: Any, confidence: float = 0.95) -> Interval:
    """Spearman's rank correlation with the interval of Bonett & Wright (2000), on Fisher's scale.

    Args:
        first, second: [n], pairs; infinite values rank last, equal values share a rank.
        confidence: of the interval.

    Returns:
        No number if a value is missing or all values of one are equal; no interval for fewer than five pairs or ranks that
        agree entirely.
    """

    a, b = (np.asarray(s, dtype=np.float64) for s in (first, second))
    if len(a) < 2 or np.isnan(a).any() or np.isnan(b).any() or min(len(np.unique(a)), len(np.unique(b))) < 2:
        return NOTHING
    value = float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
    if len(a) < 5 or abs(value) > 1 - 1e-12:
        return Interval(value, math.nan, math.nan)
    reach = float(ndtri((1 + confidence) / 2)) * math.sqrt((1 + value * value / 2) / (len(a) - 3))
    return Interval(value, math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach))


def fisher(successes: tuple[int, int], totals: tuple[int, int]) -> float:
    """Two-sided p of Fisher's exact test for two groups: the probability of a difference as large by chance alone."""

    table = [[s, n - s] for s, n in zip(successes, totals, strict=True)]
    return float(fisher_exact(table).pvalue)


@cache
def _draws(count: int, seed: int = 0) -> "np.ndarray[Any, Any]":
    """Indices of the samples in each of ``RESAMPLES`` resamples, the same in every call."""

    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def _bca(samples: "np.ndarray[Any, Any]", confidence: float) -> tuple[float, float]:
    """BCa interval of the median, equal to that of ``scipy.stats.bootstrap`` and faster."""

    count, middle = len(samples), np.median(samples)
    medians = np.median(samples[_draws(count)], axis=1)
    without = np.median(np.broadcast_to(samples, (count, count))[~np.eye(count, dtype=bool)].reshape(count, -1), axis=1)
    with np.errstate(all="ignore"):  # equal samples give nan
        bias = ndtri(((medians < middle).mean() + (medians <= middle).mean()) / 2)
        apart = without.mean() - without
        acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
        reach = bias + ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
        at = ndtr(bias + reach / (1 - acceleration * reach))
    if not np.isfinite(at).all():
        return math.nan, math.nan
    low, high = np.percentile(medians, 100 * at)
    return float(low), float(high)
