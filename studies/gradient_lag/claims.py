"""What the table of gradient_lag decides: that the parts sum to the gradient, and that far steps' parts are smaller."""

import math
from typing import TYPE_CHECKING

import numpy as np

from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, Interval, by_lag, decay, decided, exp, median

if TYPE_CHECKING:
    import pandas as pd


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Two claims of the lecture: the parts sum to the gradient; parts of far steps are smaller than those of near ones.

    The second is of one model's text: its interval is that of the median over windows of each window's own slope.
    """

    run = table.attrs["parameters"]["run"]
    error = float(table["sum_error"].max(skipna=False))
    measured = "" if math.isnan(error) else f"{error:.1e}"
    text = f"the parts of dL(t)/d{weight(table)} over steps sum to autograd's gradient"
    threshold = "relative error <= 1e-12 in float64"
    rows = [Claim("sums", text, "lecture, slide BPTT", run, threshold, measured, error <= 1e-12)]
    text, threshold = "the parts of far steps are smaller than those of near ones", "log median norm falls with the lag"
    for layer, curve in by_lag(table).groupby("layer"):
        factor = decay(curve)
        measured, verdict = _fall(table[table["layer"] == layer], factor)
        setting, facts = f"{run}, layer {layer}", {"factor": math.nan if measured == UNDEFINED else factor}
        rows.append(
            Claim("fall", text, "lecture, slide Vanishing, exploding", setting, threshold, measured, verdict, "", facts)
        )
    return rows


def weight(table: "pd.DataFrame") -> str:
    """W_h, or W_z of a cell without W_h, as the table's subject says."""
    return "W_z" if str(table.attrs.get("subject", "")).endswith("parts of W_z") else "W_h"


def _fall(table: "pd.DataFrame", factor: float) -> tuple[str, str]:
    """What the norms of a layer are multiplied by per step back, with the verdict on its being less than 1."""

    if table["weight_norm"].isna().all():
        return NOT, NOT
    windows = [decay(window.rename(columns={"weight_norm": "median"})) for _, window in table.groupby("window")]
    known = np.asarray([value for value in windows if 0 < value < math.inf])  # a window of zeros has no slope
    if not 0 < factor < math.inf or not len(known):
        return UNDEFINED, "ambiguous"
    slope = median(np.log(known))
    verdict = decided(slope, high=0)
    windows_say = Interval(*map(exp, slope)).told(".3f")
    return f"{factor:.3f} times per step; median of {len(known)} windows {windows_say}", verdict
