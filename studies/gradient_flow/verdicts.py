"""Row selection and verdicts that the claims of gradient_flow share."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from recurrent_lm.studies.engine.claims import NOT

if TYPE_CHECKING:
    import pandas as pd

EXACT = 1e-12


def of(table: "pd.DataFrame", part: str, quantity: str, **where: Any) -> "pd.DataFrame":
    """Rows of one quantity of a part, filtered by column values."""
    rows = table[(table["part"] == part) & (table["quantity"] == quantity)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def each(values: list[float], tolerance: float) -> str:
    """Verdict on a prediction that is exact: holds if every seed is within ``tolerance``, ambiguous if the median is, else
    fails.
    """

    errors = np.abs(np.asarray(values, dtype=np.float64))
    if not len(errors) or np.isnan(errors).any():
        return NOT
    return "holds" if errors.max() <= tolerance else "ambiguous" if np.median(errors) <= tolerance else "fails"


def shown(value: float, spec: str) -> str:
    return NOT if math.isnan(value) else f"{value:{spec}}"


def names(table: "pd.DataFrame", part: str, column: str) -> list[str]:
    return list(dict.fromkeys(table.loc[table["part"] == part, column]))
