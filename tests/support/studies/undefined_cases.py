"""The small table of every study with measurements of 0, of nothing but the same, missing, tiny or infinite."""

import math

import pandas as pd
from small_tables import CASES, table_of

from recurrent_lm.studies.engine.catalogue import module_of

NAMES = {"seed", "round", "step", "lag", "layer", "epoch", "window", "steps", "batch", "hidden", "programs", "kilobytes", "d",
         "h", "bin", "rate", "multiple", "threshold", "w", "b", "scale", "bias", "temperature",
         "solved"}  # fmt: skip # what a row is of
PLACES = [(name, column) for name in CASES for column, kind in module_of(name).Study.COLUMNS.items()
          if kind is not str and column not in NAMES]  # fmt: skip
WRONG = {"zero": 0.0, "missing": math.nan, "tiny": 5e-324, "infinite": math.inf, "negative": -1.0, "huge": 1e300}


def changed(name, column, kind, rows):
    """The study's table with a column's value replaced in these rows; ``same`` takes its first value."""
    table = table_of(name).copy()
    table.attrs = table_of(name).attrs
    value = table[column].iloc[0] if kind == "same" else WRONG[kind]
    if pd.api.types.is_integer_dtype(table[column]):
        value = int(value) if math.isfinite(value) and abs(value) < 2**62 else 0
    table.loc[rows, column] = value
    return table
