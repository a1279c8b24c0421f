"""Selections from the clipping study's table: trainings, histograms, claims."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

BINS, LOWEST, A_DECADE = 80, -4.0, 10  # of histograms of norms: their number, log10 of the first edge, how many a decade
SLIDE = "lecture, slide Gradient clipping"
ROUNDING = 1e-12
ONE = "one seed shows no spread, so nothing says what another would give; --set seeds=3"
TRAINING = ("corpus", "seed", "rate", "multiple", "threshold", "loss", "clipped", "mean norm", "frequencies")


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
