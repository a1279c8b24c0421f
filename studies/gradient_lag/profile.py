"""The gradient by lag of one run as a single curve, without a stored table."""

import pandas as pd

from recurrent_lm.studies.engine.statistics import by_lag
from recurrent_lm.studies.gradient_lag.study import Study


def lag_profile(run: str, windows: int = 8, lags: int = 40) -> list[tuple[int, float]]:
    """(lag, median norm over windows of the part of dL(t)/dW_h at step t - lag) of a run's last layer.

    Raises:
        InputError: when the run's text is not there, or its validation text too short.
    """
    study = Study(run=run, windows=windows, lags=lags, warmup=lags)
    study.prepare()
    rows = [row for cell in study.cells() for row in study.measure(cell)]
    curve = by_lag(pd.DataFrame(rows)).query("layer == layer.max()")
    return [(int(lag), float(norm)) for lag, norm in zip(curve["lag"], curve["median"], strict=True)]
