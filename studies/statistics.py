"""Tables and arrays to numbers; no measuring, no drawing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def by_lag(table: "pd.DataFrame", column: str = "weight_norm") -> "pd.DataFrame":
    """Median and quartiles of ``column`` over windows, by layer and lag: columns layer, lag, low, median, high."""
    import numpy as np

    grouped = table.groupby(["layer", "lag"])[column].quantile(np.array([0.25, 0.5, 0.75])).unstack()
    return grouped.set_axis(["low", "median", "high"], axis=1).reset_index()


def paired_ratio(first: "pd.Series[float]", second: "pd.Series[float]") -> tuple[float, float, float]:
    """Median of first / second, pair by pair, with a 95% BCa bootstrap interval (Efron 1987): (median, low, high).

    Fewer than two pairs have no interval: nan.
    """
    import numpy as np
    from scipy.stats import bootstrap

    paired = (first / second).to_numpy()
    if len(paired) < 2:
        return float(np.median(paired)), float("nan"), float("nan")
    interval = bootstrap((paired,), np.median, rng=0).confidence_interval
    return float(np.median(paired)), float(interval.low), float(interval.high)
