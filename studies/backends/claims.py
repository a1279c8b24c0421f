"""What the table of backends decides: whether all learn the same curve, and how fast each is beside the first."""

from typing import Any

import numpy as np
import pandas as pd

from recurrent_lm.studies.engine.claims import OPEN, Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, compare, paired_ratio

KEYS = ["corpus", "cell", "seed", "epoch"]


def claims(table: "pd.DataFrame") -> list[Claim]:
    """For each backend beside the first: the same curves, and how its tokens a second compare."""
    reference, *others = table.attrs["parameters"]["backends"]
    rows = []
    for backend in others:
        measured = {reference, backend} <= set(table["backend"])
        rows += _same(apart(table, backend, reference) if measured else None, backend, reference)
        rows += _speed(table, backend, reference) if measured else []
    return rows


def _same(differences: "pd.DataFrame | None", backend: str, reference: str) -> list[Claim]:
    """Of how far curves lie ``apart``, where both backends were measured."""
    text = f"trained by {backend}, a model learns the curve that it learns by {reference}"
    claim, threshold = (f"curve.{backend}", text, "aim of the trainer"), "within the spread of the seeds, at every epoch"
    wrong = (
        "a backend that computes something else, which the kernels' own tests would show, or too few seeds to span what "
        "seeds make of a training"
    )
    rows: list[Claim] = []
    row: Any
    for row in differences.itertuples() if differences is not None else ():
        measured = f"{row.distance:.2g} nats apart at most, after epoch {row.epoch}; seeds {row.noise:.2g} there"
        right, why = row.distance <= row.noise, wrong
        if row.distance != row.distance:
            measured = UNDEFINED
        elif row.noise != row.noise:
            measured, right = f"{row.distance:.2g} nats apart at most; one seed has no spread", None
            why = "one seed says nothing of how far seeds lie apart; --set seeds=3"
        rows.append(Claim(*claim, f"{row.cell} on {row.corpus}, {row.seeds} seeds", threshold, measured, right, why))
    return rows or [Claim(*claim, "", threshold)]


def _speed(table: "pd.DataFrame", backend: str, reference: str) -> list[Claim]:
    """Of the epochs after the first, in which kernels are compiled, if there are any."""
    claim = f"speed.{backend}", f"{backend} trains at least as fast as {reference}", "aim of the trainer"
    later = table[table["epoch"] > 1]
    speeds = pairs(later if len(later) else table, "tokens_per_second")
    rows = []
    for cell, group in speeds.groupby("cell", sort=False):
        ratio = paired_ratio(group[backend], group[reference])
        verdict = {"faster": "holds", "same": "holds", "slower": "fails"}.get(compare(ratio), "ambiguous")
        middle = f"{group[backend].median():,.0f} and {group[reference].median():,.0f} tokens a second"
        known = ratio.value == ratio.value
        why = _spread(speeds) if known and verdict in OPEN else ""
        setting, threshold = f"{cell}, {len(group)} pairs of epochs", "at least 1 / 1.03 times as fast"
        measured = f"{ratio}; {middle}" if known else UNDEFINED
        rows.append(Claim(*claim, setting, threshold, measured, verdict, why, {"cell": cell}))
    return rows


def _spread(speeds: "pd.DataFrame") -> str:
    """Why a speed is not decided."""
    grouped = speeds[(speeds > 0).all(axis=1) & (speeds < float("inf")).all(axis=1)].groupby("cell")
    spread = (grouped.quantile(0.9) / grouped.quantile(0.1)).to_numpy().max()
    return f"epochs of one backend differ by up to {spread:.2f} times, and differences below 3% decide nothing"


def apart(table: "pd.DataFrame", backend: str, reference: str) -> "pd.DataFrame":
    """Distances of the validation losses of two backends, one row for each corpus and cell.

    Returns:
        ``distance``, the largest over epochs of the mean over seeds; ``noise``, the distance between seeds of the reference at
        that epoch; both in nats a token, nan for a loss that is not finite and for a single seed.
    """

    rows = []
    wide = pairs(table, "valid_loss")
    key: Any
    for key, group in wide.groupby(["corpus", "cell"], sort=False):
        count = group.index.get_level_values("seed").nunique()
        if not np.isfinite(group.to_numpy()).all():
            rows.append((*key, count, 0, float("nan"), float("nan")))
            continue
        distances = (group[backend] - group[reference]).abs().groupby("epoch").mean()
        epoch: Any = distances.idxmax()
        seeds = group[reference].xs(epoch, level="epoch")
        noise = float(seeds.max() - seeds.min()) if len(seeds) > 1 else float("nan")
        rows.append((*key, count, int(epoch), float(distances.max()), noise))
    return pd.DataFrame(rows, columns=["corpus", "cell", "seeds", "epoch", "distance", "noise"])


def pairs(table: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """``column`` with one row for each corpus, cell, seed and epoch and one column a backend; rows that have all of them."""
    return table.pivot(index=KEYS, columns="backend", values=column).dropna()
