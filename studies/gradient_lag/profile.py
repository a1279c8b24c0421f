"""The gradient by lag of one run as a single curve, without a stored table."""

import pandas as pd

from recurrent_lm.studies.engine.statistics import by_lag
from recurrent_lm.studies.gradient_lag.study import Study


def lag_profile(run: str, windows: int = 8, lags: int = 40) -> list[tuple[int, float]]:
    """Measure how far back the gradient of a trained run reaches (lecture, slide BPTT).

    Args:
        run: the run folder.
        windows: positions in the validation text.
        lags: steps back.

    Returns:
        (lag, median norm over windows of the part of dL(t)/dW_h at step t - lag) of the run's last layer.

    Raises:
        InputError: if the run's text is missing, or its validation text is too short.
    """
    study = Study(run=run, windows=windows, lags=lags, warmup=lags)
    study.prepare()
    rows = [row for cell in study.cells() for row in study.measure(cell)]
    curve = by_lag(pd.DataFrame(rows)).query("layer == layer.max()")
    return [(int(lag), float(norm)) for lag, norm in zip(curve["lag"], curve["median"], strict=True)]
