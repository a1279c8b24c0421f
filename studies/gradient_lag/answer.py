"""What gradient_lag answers, in a sentence made from its table."""

import math
from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.answers import Answer
from recurrent_lm.studies.engine.statistics import by_lag, decay

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """How fast the parts of far steps shrink, and from which lag on they are a tenth."""
    curve = by_lag(table).query("layer == layer.max()")
    pace, last = decay(curve), int(curve["lag"].max())
    near = curve.loc[curve["lag"] == 0, "median"].item()
    if not math.isfinite(pace) or not 0 < near < math.inf:
        return None
    if pace >= 1:
        return Answer(
            f"The gradient does not fade over {last} words: each step back multiplies a step's part by {pace:.2f}.", "norms"
        )
    told = f"Each step back multiplies a step's part of the gradient by {pace:.2f}"
    large = curve.loc[~(curve["median"] < near / 10), "lag"].max()
    if large < last:
        return Answer(f"{told}; from {large + 1} words back on a word has less than a tenth of the last word's.", "norms")
    return Answer(f"{told}; {last} words back a word still has more than a tenth of the last word's.", "norms")
