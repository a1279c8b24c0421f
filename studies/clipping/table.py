"""Selections from the clipping study's table: trainings, histograms, claims."""

from typing import TYPE_CHECKING, Any

import numpy as np

from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED

if TYPE_CHECKING:
    import pandas as pd

BINS, LOWEST, A_DECADE = 80, -4.0, 10  # of histograms of norms: their number, log10 of the first edge, how many a decade
SLIDE = "lecture, slide Gradient clipping"
ROUNDING = 1e-12
WORDS = {"holds": True, "fails": False, "ambiguous": None}
ONE = "one seed shows no spread, so nothing says what another would give; --set seeds=3"
TRAINING = ("corpus", "seed", "rate", "multiple", "threshold", "loss", "clipped", "mean norm", "frequencies")


def claim_of(
    key: str, text: str, source: str, setting: str, threshold: str, measured: str, holds: bool | None, reason: str = ""
) -> Claim:
    """A claim; ``holds`` of None is ambiguous, an empty ``measured`` means not measured."""
    if not measured:
        return Claim(key, text, source, setting, threshold, NOT, NOT)
    if measured == UNDEFINED:
        holds = None
    verdict = next(word for word, value in WORDS.items() if value is holds)
    return Claim(key, text, source, setting, threshold, measured, verdict, reason)


def bin_of(norms: Any) -> Any:
    """The histogram's bin of each norm; the first and the last bin take norms beyond the edges."""

    with np.errstate(divide="ignore"):
        logs = np.log10(np.asarray(norms, dtype=np.float64))
    return np.clip(np.floor((logs - LOWEST) * A_DECADE), 0, BINS - 1).astype(int)


def norm_edges() -> Any:
    """The bins' edges [BINS + 1], as norms."""

    return 10 ** (LOWEST + np.arange(BINS + 1) / A_DECADE)


def trainings(table: "pd.DataFrame") -> "pd.DataFrame":
    """One row for each training: corpus, seed, rate, multiple, threshold, loss, clipped, mean norm, frequencies and diverged.

    ``diverged`` is 1 if the trainer gave up, or the final loss exceeds that of the word frequencies that the model began with.
    """
    part = table[table["part"] == "training"]
    if part.empty:
        return part.reindex(columns=[*TRAINING, "diverged"])
    wide = part.pivot(index=list(TRAINING[:5]), columns="quantity", values="value").reset_index().rename_axis(columns=None)
    wide = wide.reindex(columns=list(TRAINING))
    return wide.assign(diverged=(~(wide["loss"] < wide["frequencies"])).astype(int))
