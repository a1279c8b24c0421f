"""What the throughput study's samples come to: medians and rates, comparisons, exponents. Tables in, tables out."""

import math
from typing import Any

import numpy as np
import pandas as pd

from recurrent_lm import kernels
from recurrent_lm.studies.engine.claims import NOT
from recurrent_lm.studies.engine.statistics import NOTHING, Interval, compare, median, paired_ratio, power_law, ratio

CELL: dict[str, type] = {
    "part": str, "cell": str, "direction": str, "dtype": str, "batch": int, "steps": int, "hidden": int, "vocabulary": int,
}  # fmt: skip
KEYS = (*CELL, "variant", "mode", "cache")
STATUSES = ("timed", "disagrees", "skipped", "failed")
AGAINST = {"recurrence": "torch.nn", "cross_entropy": "torch.nn", "training": "torch.nn", "sequential": "product"}
# The sizes of a part: column, the lecture's letter, and the parameter that holds its values.
AXES = {
    "recurrence": (("batch", "B", "batch"), ("hidden", "H", "hidden"), ("steps", "T", "steps")),
    "sequential": (("batch", "B", "batch"), ("hidden", "H", "hidden"), ("steps", "T", "steps")),
    "cross_entropy": (("batch", "N", "tokens"), ("hidden", "d", "width"), ("vocabulary", "V", "vocabulary")),
    "training": (("hidden", "H", "hidden"), ("vocabulary", "V", "vocabulary")),
}


_known: "dict[Any, pd.DataFrame]" = {}


def summary(table: "pd.DataFrame") -> "pd.DataFrame":
    """One row a variant and setting. Of the same table as last time it is there already, since claims and figures all ask.

    ``seconds`` with ``low`` and ``high`` (median of the samples, 95% BCa interval); ``us_per_step``, ``tokens_per_second``,
    ``tflops``, ``gbs`` (least bytes that must move, over the time); ``of_product`` and ``of_copy``, the shares of this
    machine's measured peaks; ``floor_us`` and ``of_floor``, what a step's exchange alone takes where it was measured on such a
    GPU, and its share of the step; ``speed`` with its interval, the median of paired ratios to ``against``, above 1 where this
    variant is faster; ``compared``, the comparison in a word, ambiguous where both were timed and have no ratio, as of a clock
    that stood still. nan stands for what does not apply, was not measured, or is no finite number.
    """

    key = (int(pd.util.hash_pandas_object(table, index=False).sum()), repr(table.attrs))
    if key not in _known:
        _known.clear()
        _known[key] = _summary(table)
    known = _known[key].copy()
    known.attrs = table.attrs
    return known


def _summary(table: "pd.DataFrame") -> "pd.DataFrame":
    rows: list[dict[str, Any]] = []
    groups = _groups(table)
    seconds = {key: _samples(group) for key, group in groups.items()}
    with np.errstate(all="ignore"):
        peaks = _peaks(groups)
        for key, group in groups.items():
            at = dict(zip(KEYS, key, strict=True))
            first, samples = group.iloc[0], seconds[key]
            time = median(samples)
            rates = {"tflops": ratio(first["flops"] / 1e12, time.value), "gbs": ratio(first["bytes"] / 1e9, time.value)}
            against = AGAINST.get(at["part"], "")
            reference = (*key[: len(CELL)], against, at["mode"], at["cache"])
            both = reference in groups and _timed(group) and _timed(groups[reference])
            speed = _speed(samples, seconds[reference]) if both else NOTHING
            own = at["variant"] == against
            us = time.value / at["steps"] * 1e6 if at["part"] in ("recurrence", "sequential") else math.nan
            floor = _floor(at, table.attrs.get("machine") or {})
            rows.append(
                at
                | {"status": first["status"], "note": first["note"], "samples": len(samples)}
                | {"seconds": time.value, "low": time.low, "high": time.high}
                | {"us_per_step": us, "floor_us": floor, "of_floor": ratio(floor, us)}
                | {"tokens_per_second": ratio(at["batch"] * at["steps"], time.value) if at["part"] in AGAINST else math.nan}
                | rates
                | {"of_product": ratio(rates["tflops"], peaks.get(at["dtype"], math.nan))}
                | {"of_copy": ratio(rates["gbs"], peaks.get("copy", math.nan))}
                | {"peak_bytes": first["peak_bytes"], "error": first["error"], "dropped": first["dropped"]}
                | {"against": against, "speed": speed.value, "speed_low": speed.low, "speed_high": speed.high}
                | {"compared": "" if own or not against else _word(speed) if both else NOT}
            )
    return pd.DataFrame(rows)


def growth(table: "pd.DataFrame") -> "pd.DataFrame":
    """How time grows with each size while the others stay: ``exponent`` of a power law with its 95% interval.

    One row a variant and size that took three values or more; ``over`` is the size's letter, ``points`` their number.
    """
    return exponents(summary(table))


def together(table: "pd.DataFrame", rows: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of a summary that were compared, with intervals that all hold at once, each at 1 - 5% / n (Bonferroni).

    Of forty settings that are the same, one seems slower at 95% each; a claim about all of them needs these.
    """
    rows = rows[rows["compared"] != NOT].copy()
    groups = _groups(table)
    for index, row in rows.iterrows():
        key = tuple(row[list(KEYS)])
        other = (*key[: len(CELL)], row["against"], row["mode"], row["cache"])
        speed = _speed(_samples(groups[key]), _samples(groups[other]), 1 - 0.05 / len(rows))
        rows.loc[index, ["speed_low", "speed_high"]] = speed.low, speed.high
        rows.loc[index, "compared"] = _word(speed)
    return rows


def _word(speed: Interval) -> str:
    """The comparison of two that were timed: without a ratio it is not decided."""
    return compare(speed) if math.isfinite(speed.value) else "ambiguous"


def _timed(group: "pd.DataFrame") -> bool:
    return bool((group["status"] == "timed").any())


def _groups(table: "pd.DataFrame") -> dict[Any, Any]:
    """The rows of each variant and setting, without ``attrs``: pandas copies them at every operation, which takes longer than
    all else."""
    bare = table.copy(deep=False)
    bare.attrs = {}
    return dict(list(bare.groupby(list(KEYS), sort=False)))


def _samples(group: "pd.DataFrame") -> "pd.Series[Any]":
    """Seconds by round, of rows that were timed and hold a time."""
    timed = group[(group["status"] == "timed") & (group["seconds"] > 0) & (group["seconds"] < math.inf)]
    return timed.set_index("round")["seconds"]


def _speed(own: "pd.Series[Any]", other: "pd.Series[Any]", confidence: float = 0.95) -> Interval:
    """How many times as fast as the other, over rounds in which both were timed."""
    both = own.index.intersection(other.index)
    return paired_ratio(other[both], own[both], confidence) if len(both) else NOTHING


def _floor(at: dict[str, Any], machine: dict[str, Any]) -> float:
    """Microseconds a step of the exchange alone, on the GPU that the table was made on; nan where nobody measured it."""
    if at["part"] != "recurrence" or not machine.get("capability"):
        return math.nan
    device = f"sm_{str(machine['capability']).replace('.', '')}"
    forward, backward = kernels.exchange_floor(at["batch"], at["hidden"], at["cell"], at["dtype"], device)
    return forward if at["direction"] == "forward" else forward + backward


def _peaks(groups: dict[Any, "pd.DataFrame"]) -> dict[str, float]:
    """TFLOP/s of products by dtype and, under ``copy``, GB/s: the best that was measured."""
    best: dict[str, float] = {}
    for key, group in groups.items():
        at = dict(zip(KEYS, key, strict=True))
        if at["part"] != "peak" or at["variant"] == "launch":
            continue
        seconds = median(_samples(group)).value
        copy = at["variant"] == "copy"
        name, amount = ("copy", group["bytes"].iloc[0] / 1e9) if copy else (at["dtype"], group["flops"].iloc[0] / 1e12)
        best[name] = max(best.get(name, 0.0), ratio(amount, seconds))  # a time that is nan changes nothing
    return {name: value for name, value in best.items() if 0 < value < math.inf}


def exponents(about: "pd.DataFrame") -> "pd.DataFrame":
    """``growth`` of a table that is summed up already."""

    chosen = about.attrs["parameters"]
    rows = []
    fixed = ["part", "cell", "direction", "dtype", "variant", "mode", "cache"]
    key: Any
    for key, group in about[about["part"].isin(AXES)].groupby(fixed, sort=False):
        axes = AXES[key[0]]
        for column, letter, _ in axes:
            line = group
            for other, _, parameter in axes:
                if other != column:
                    line = line[line[other] == chosen[parameter][0]]
            line = line[line["seconds"] > 0]
            if line[column].nunique() >= 3:
                fit = power_law(line[column], line["seconds"])
                exponent = {"over": letter, "points": len(line), "exponent": fit.value, "low": fit.low, "high": fit.high}
                rows.append(dict(zip(fixed, key, strict=True)) | exponent)
    return pd.DataFrame(rows, columns=[*fixed, "over", "points", "exponent", "low", "high"])
