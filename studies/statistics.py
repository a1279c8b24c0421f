"""Tables and arrays to numbers; no measuring, no drawing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def by_lag(table: "pd.DataFrame", column: str = "weight_norm") -> "pd.DataFrame":
    """Median and quartiles of ``column`` over windows, by layer and lag: columns layer, lag, low, median, high."""
    import numpy as np

    grouped = table.groupby(["layer", "lag"])[column].quantile(np.array([0.25, 0.5, 0.75])).unstack()
    return grouped.set_axis(["low", "median", "high"], axis=1).reset_index()


def decay(curve: "pd.DataFrame") -> float:
    """The factor by which the medians of ``by_lag``, of one layer, change per step back: a line through their logarithms.

    Medians that are 0 or not finite say nothing about a factor; with fewer than two others it is nan.
    """
    import numpy as np

    seen = curve[(curve["median"] > 0) & np.isfinite(curve["median"])]
    if len(seen) < 2:
        return float("nan")
    with np.errstate(over="ignore"):
        return float(np.exp(np.polyfit(seen["lag"], np.log(seen["median"]), 1)[0]))


def paired_ratio(first: "pd.Series[float]", second: "pd.Series[float]") -> tuple[float, float, float]:
    """Median of first / second, pair by pair, with a 95% BCa bootstrap interval (Efron 1987): (median, low, high).

    Fewer than two pairs, and pairs that are all but alike, have no interval: nan. Without a finite ratio the median is nan too.
    """
    import warnings

    import numpy as np
    from scipy.stats import bootstrap

    with np.errstate(all="ignore"):
        paired = (first / second).to_numpy()
    if not np.isfinite(paired).all():
        return float("nan"), float("nan"), float("nan")
    if len(paired) < 2:
        return float(np.median(paired)), float("nan"), float("nan")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # that there is no interval is in the result
        interval = bootstrap((paired,), np.median, rng=0).confidence_interval
    return float(np.median(paired)), float(interval.low), float(interval.high)
