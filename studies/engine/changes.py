"""What was measured now against what was measured before, where a study repeats its measurements."""

import math
from statistics import median
from typing import Any

import pandas as pd

from recurrent_lm.studies.engine.catalogue import module_of
from recurrent_lm.studies.engine.statistics import compare, unpaired_ratio

LEVELS = {"faster": "higher", "slower": "lower"}  # where it is no time that is compared


def changes(table: "pd.DataFrame", older: "pd.DataFrame") -> "pd.DataFrame":
    """One row for what both tables of one study repeat, in the study's order; none where it repeats nothing.

    After the columns that name it: ``then`` and ``now``, the medians; ``ratio`` with ``low`` and ``high``, of times then / now,
    so that above 1 is faster, of others now / then; ``change`` in a word: faster, slower, higher, lower, same, ambiguous or not
    measured. The intervals are of 95% each, so that of forty that did not change two seem to. The
    column that was compared is named in ``attrs["of"]``.
    """

    study = module_of(table.attrs["study"]).Study
    keys, value = study.SAMPLES
    found = _samples(table, keys, value) if keys else {}
    before = _samples(older, keys, value) if keys else {}
    rows = []
    for key in (key for key in found if key in before):
        pair = (before[key], found[key]) if study.TIMED else (found[key], before[key])
        ratio = unpaired_ratio(*pair)
        word = compare(ratio)
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"then": median(before[key]), "now": median(found[key])}
            | {"ratio": ratio.value, "low": ratio.low, "high": ratio.high}
            | {"change": word if study.TIMED else LEVELS.get(word, word)}
        )
    made = pd.DataFrame(rows, columns=[*keys, "then", "now", "ratio", "low", "high", "change"])
    made.attrs = {"study": table.attrs["study"], "of": value}
    return made


def _samples(table: "pd.DataFrame", keys: tuple[str, ...], value: str) -> dict[Any, list[float]]:
    seen = table[(table[value] > 0) & (table[value] < math.inf)]
    seen.attrs = {}  # each group would get a copy
    return {key: group[value].tolist() for key, group in seen.groupby(list(keys), sort=False)}
