"""Summaries of the throughput study's samples: medians, rates, comparisons, exponents."""

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
AGAINST = {
    "recurrence": "torch.nn", "cross_entropy": "torch.nn", "training": "torch.nn", "sequential": "product",
    "trace": "untraced",
}  # fmt: skip
# The sizes of a part: column, the lecture's letter, and the parameter that holds its values.
AXES = {
    "recurrence": (("batch", "B", "batch"), ("hidden", "H", "hidden"), ("steps", "T", "steps")),
    "trace": (("batch", "B", "batch"), ("hidden", "H", "hidden"), ("steps", "T", "steps")),
    "sequential": (("batch", "B", "batch"), ("hidden", "H", "hidden"), ("steps", "T", "steps")),
    "cross_entropy": (("batch", "N", "tokens"), ("hidden", "d", "width"), ("vocabulary", "V", "vocabulary")),
    "training": (("hidden", "H", "hidden"), ("vocabulary", "V", "vocabulary")),
}


Samples = dict[Any, "pd.Series[Any]"]  # of each variant and setting, in the order of the table
_known: "list[tuple[pd.DataFrame, pd.DataFrame, Samples]]" = []  # the last table, as it was, with its summary and samples


def summary(table: "pd.DataFrame") -> "pd.DataFrame":
    """Sum up a table, one row for each variant and setting. The last summary is cached, since claims and figures all ask for
    it.

    Returns:
        ``seconds`` with ``low`` and ``high`` (median of the samples, 95% BCa interval); ``us_per_step``, ``tokens_per_second``,
        ``tflops``, ``gbs`` (least bytes that must move, over the time); ``of_product`` and ``of_copy``, the shares of this
        machine's measured peaks; ``floor_us`` and ``of_floor``, the time of a step's exchange alone where such a GPU was
        measured, and its share of the step; ``speed`` with its interval, the median of paired ratios to ``against``, above 1
        where this variant is faster; ``compared``, the comparison in a word, ambiguous if both were timed and have no ratio, as
        with a clock that stood still. nan means that a value does not apply, was not measured, or is not finite.
    """

    known = _summed_up(table)[0].copy()
    known.attrs = table.attrs
    return known


def _summed_up(table: "pd.DataFrame") -> "tuple[pd.DataFrame, Samples]":
    """The summary, and the samples that it is of."""
    if not (_known and _known[0][0].equals(table) and _known[0][0].attrs == table.attrs):
        groups = _groups(table)
        seconds = _samples(table, groups)
        _known[:] = [(table.copy(deep=False), _summary(table, groups, seconds), seconds)]
    return _known[0][1:]


def _summary(table: "pd.DataFrame", groups: dict[Any, "pd.DataFrame"], seconds: Samples) -> "pd.DataFrame":
    rows: list[dict[str, Any]] = []
    timed = set(table.loc[table["status"] == "timed", list(KEYS)].itertuples(index=False, name=None))
    with np.errstate(all="ignore"):
        peaks = _peaks(groups, seconds)
        for key, group in groups.items():
            at = dict(zip(KEYS, key, strict=True))
            first, samples = group.iloc[0], seconds[key]
            time = median(samples)
            rates = {"tflops": ratio(first["flops"] / 1e12, time.value), "gbs": ratio(first["bytes"] / 1e9, time.value)}
            against = AGAINST.get(at["part"], "")
            reference = (*key[: len(CELL)], against, at["mode"], at["cache"])
            both = {key, reference} <= timed
            speed = _speed(samples, seconds[reference]) if both else NOTHING
            own = at["variant"] == against
            us = time.value / at["steps"] * 1e6 if at["part"] in ("recurrence", "sequential", "trace") else math.nan
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
    """Exponent of a power law of the time in each size, while the others stay, with its 95% interval.

    Returns:
        One row for each variant and size with three values or more; ``over`` is the size's letter, ``points`` their number.
    """
    return exponents(summary(table))


def together(table: "pd.DataFrame", rows: "pd.DataFrame") -> "pd.DataFrame":
    """Compared rows of a summary with intervals that hold simultaneously, each at 1 - 5% / n (Bonferroni).

    Of forty settings that are equal, one or two seem slower at 95% each; a claim about all of them needs these intervals.
    """
    rows = rows[rows["compared"] != NOT].copy()
    seconds = _summed_up(table)[1]
    for index, row in rows.iterrows():
        key = tuple(row[list(KEYS)])
        other = (*key[: len(CELL)], row["against"], row["mode"], row["cache"])
        speed = _speed(seconds[key], seconds[other], 1 - 0.05 / len(rows))
        rows.loc[index, ["speed_low", "speed_high"]] = speed.low, speed.high
        rows.loc[index, "compared"] = _word(speed)
    return rows


def _word(speed: Interval) -> str:
    """The comparison of two variants in a word; ambiguous without a ratio."""
    return compare(speed) if math.isfinite(speed.value) else "ambiguous"


def _groups(table: "pd.DataFrame") -> dict[Any, Any]:
    """The rows of each variant and setting, without ``attrs``, because pandas copies those at every operation."""
    bare = table.copy(deep=False)
    bare.attrs = {}
    return dict(list(bare.groupby(list(KEYS), sort=False)))


def _samples(table: "pd.DataFrame", groups: dict[Any, "pd.DataFrame"]) -> Samples:
    """Seconds by round, of rows with a time; none for a variant and setting without such rows."""
    timed = table[(table["status"] == "timed") & (table["seconds"] > 0) & (table["seconds"] < math.inf)]
    seconds = {key: group.set_index("round")["seconds"] for key, group in _groups(timed).items()}
    nothing = table.iloc[:0].set_index("round")["seconds"]
    return {key: seconds.get(key, nothing) for key in groups}


def _speed(own: "pd.Series[Any]", other: "pd.Series[Any]", confidence: float = 0.95) -> Interval:
    """Speed relative to the other, over rounds in which both were timed."""
    both = own.index.intersection(other.index)
    return paired_ratio(other[both], own[both], confidence) if len(both) else NOTHING


def _floor(at: dict[str, Any], machine: dict[str, Any]) -> float:
    """Microseconds a step of the exchange alone on the table's GPU; nan if unmeasured or if nothing is exchanged."""
    if at["part"] != "recurrence" or at["cell"] in kernels.LINEAR_CELLS or not machine.get("capability"):
        return math.nan
    device = f"sm_{str(machine['capability']).replace('.', '')}"
    forward, backward = kernels.exchange_floor(at["batch"], at["hidden"], at["cell"], at["dtype"], device)
    return forward if at["direction"] == "forward" else forward + backward


def _peaks(groups: dict[Any, "pd.DataFrame"], samples: Samples) -> dict[str, float]:
    """Best measured TFLOP/s of products by dtype, and GB/s under ``copy``."""
    best: dict[str, float] = {}
    for key, group in groups.items():
        at = dict(zip(KEYS, key, strict=True))
        if at["part"] != "peak" or at["variant"] == "launch":
            continue
        seconds = median(samples[key]).value
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
            if group[column].nunique() < 3:
                continue
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
