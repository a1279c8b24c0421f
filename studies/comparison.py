"""What the throughput study's samples say: medians and rates, comparisons, exponents, claims. Tables in, tables out."""

import math
from typing import TYPE_CHECKING, Any

from studies.statistics import FLOOR, NOTHING, Interval, compare, median, paired_ratio, power_law

if TYPE_CHECKING:
    import pandas as pd

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
OURS = ("kernels:torch", "kernels:triton")
NAMES = {"recurrence": "recurrence", "cross_entropy": "loss", "training": "training step"}
LINEAR = (0.8, 1.2)  # exponents that still count as growth in proportion
NOT = "not measured"


def summary(table: "pd.DataFrame") -> "pd.DataFrame":
    """One row a variant and setting.

    ``seconds`` with ``low`` and ``high`` (median of the samples, 95% BCa interval); ``us_per_step``, ``tokens_per_second``,
    ``tflops``, ``gbs`` (least bytes that must move, over the time); ``of_product`` and ``of_copy``, the shares of this
    machine's measured peaks; ``speed`` with its interval, the median of paired ratios to ``against``, above 1 where this
    variant is faster; ``compared``, the comparison in a word. nan stands for what does not apply or was not measured.
    """
    import numpy as np
    import pandas as pd

    rows, groups = [], dict(list(table.groupby(list(KEYS), sort=False)))
    with np.errstate(all="ignore"):
        peaks = _peaks(groups)
        for key, group in groups.items():
            at = dict(zip(KEYS, key, strict=True))
            first, samples = group.iloc[0], _samples(group)
            time = median(samples)
            rates = {"tflops": first["flops"] / time.value / 1e12, "gbs": first["bytes"] / time.value / 1e9}
            against = AGAINST.get(at["part"], "")
            other = groups.get((*key[: len(CELL)], against, at["mode"], at["cache"]))
            speed = NOTHING if other is None else _speed(samples, _samples(other))
            own = at["variant"] == against
            rows.append(
                at
                | {"status": first["status"], "note": first["note"], "samples": len(samples)}
                | {"seconds": time.value, "low": time.low, "high": time.high}
                | {"us_per_step": time.value / at["steps"] * 1e6 if at["part"] in ("recurrence", "sequential") else math.nan}
                | {"tokens_per_second": at["batch"] * at["steps"] / time.value if at["part"] in AGAINST else math.nan}
                | rates
                | {"of_product": rates["tflops"] / peaks.get(at["dtype"], math.nan)}
                | {"of_copy": rates["gbs"] / peaks.get("copy", math.nan)}
                | {"peak_bytes": first["peak_bytes"], "error": first["error"], "dropped": first["dropped"]}
                | {"against": against, "speed": speed.value, "speed_low": speed.low, "speed_high": speed.high}
                | {"compared": "" if own or not against else compare(speed)}
            )
    made = pd.DataFrame(rows)
    made.attrs = table.attrs
    return made


def growth(table: "pd.DataFrame") -> "pd.DataFrame":
    """How time grows with each size while the others stay: ``exponent`` of a power law with its 95% interval.

    One row a variant and size that took three values or more; ``over`` is the size's letter, ``points`` their number.
    """
    return _growth(summary(table))


def verdicts(table: "pd.DataFrame") -> "pd.DataFrame":
    """Right; not slower than torch.nn; steps that wait cost more; time in proportion to T; a loss in less memory."""
    import pandas as pd

    about = summary(table)
    parts = table.attrs["parameters"]["parts"]
    rows = [_right(about)]
    for part in NAMES:
        if part in parts:
            rows += [row for variant in OURS for row in _not_slower(about, part, variant)]
    if "sequential" in parts:
        rows += _waiting(about)
    if "recurrence" in parts:
        rows += _proportional(_growth(about))
    if "cross_entropy" in parts:
        rows += _lean(about)
    columns = ["claim", "source", "setting", "threshold", "measured", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _samples(group: "pd.DataFrame") -> "pd.Series[Any]":
    """Seconds by round, of rows that were timed and hold a time."""
    timed = group[(group["status"] == "timed") & (group["seconds"] > 0) & (group["seconds"] < math.inf)]
    return timed.set_index("round")["seconds"]


def _speed(own: "pd.Series[Any]", other: "pd.Series[Any]") -> Interval:
    """How many times as fast as the other, over rounds in which both were timed."""
    both = own.index.intersection(other.index)
    return paired_ratio(other[both], own[both]) if len(both) else NOTHING


def _peaks(groups: dict[Any, "pd.DataFrame"]) -> dict[str, float]:
    """TFLOP/s of products by dtype and, under ``copy``, GB/s: the best that was measured."""
    best: dict[str, float] = {}
    for key, group in groups.items():
        at = dict(zip(KEYS, key, strict=True))
        seconds = median(_samples(group)).value
        if at["part"] != "peak" or at["variant"] == "launch" or math.isnan(seconds):
            continue
        copy = at["variant"] == "copy"
        name, amount = ("copy", group["bytes"].iloc[0] / 1e9) if copy else (at["dtype"], group["flops"].iloc[0] / 1e12)
        best[name] = max(best.get(name, 0.0), amount / seconds)
    return {name: value for name, value in best.items() if 0 < value < math.inf}


def _growth(about: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    chosen = about.attrs["parameters"]
    rows = []
    fixed = ["part", "cell", "direction", "dtype", "variant", "mode", "cache"]
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
                found = {"over": letter, "points": len(line), "exponent": fit.value, "low": fit.low, "high": fit.high}
                rows.append(dict(zip(fixed, key, strict=True)) | found)
    return pd.DataFrame(rows, columns=[*fixed, "over", "points", "exponent", "low", "high"])


Claim = tuple[str, str, str, str, str, str]


def _right(about: "pd.DataFrame") -> Claim:
    seen = about[about["error"].notna()]
    wrong = seen[seen["status"] == "disagrees"]
    measured = f"{len(seen) - len(wrong)} of {len(seen)} agree; the largest error of those is "
    measured += f"{seen.loc[seen['status'] != 'disagrees', 'error'].max():.1e}" if len(wrong) < len(seen) else "none"
    if len(wrong):
        measured += f"; {wrong['variant'].iloc[0]} is wrong by {wrong['error'].max():.1e}"
    verdict = NOT if seen.empty else "fails" if len(wrong) else "holds"
    return (
        "every variant computes what float64 does",
        "the textbook in float64",
        "all variants and sizes, gradients included",
        "at most 4 times the error of the textbook in the same dtype",
        NOT if seen.empty else measured,
        verdict,
    )


def _not_slower(about: "pd.DataFrame", part: str, variant: str) -> list[Claim]:
    claim = f"{variant}'s {NAMES[part]} is not slower than torch.nn's"
    threshold = f"at least 1 / {1 + FLOOR:g} times as fast at every size"
    rows = []
    mine = about[(about["part"] == part) & (about["variant"] == variant)]
    for (cell, direction, dtype), group in mine.groupby(["cell", "direction", "dtype"], sort=False):
        setting = ", ".join(word for word in (cell, direction, dtype) if word)
        seen = group[group["compared"] != NOT]
        if not seen.empty:
            rows.append((claim, "aim of the kernels", setting, threshold, _worst(seen), _all_not_slower(seen["compared"])))
    return rows or [(claim, "aim of the kernels", "all", threshold, NOT, NOT)]


def _all_not_slower(compared: "pd.Series[Any]") -> str:
    if (compared == "slower").any():
        return "fails"
    return "holds" if compared.isin(["faster", "same"]).all() else "ambiguous"


def _worst(seen: "pd.DataFrame") -> str:
    """The slowest setting, and how many there are of each kind."""
    worst = seen.loc[seen["speed"].idxmin()]
    counts = ", ".join(f"{n} {word}" for word, n in seen["compared"].value_counts(sort=False).items())
    return f"{_interval(worst, 'speed')} times as fast at worst, at {_size(worst)}; of {len(seen)} settings {counts}"


def _waiting(about: "pd.DataFrame") -> list[Claim]:
    rows = []
    steps = about[(about["part"] == "sequential") & (about["variant"] == "steps") & (about["compared"] != NOT)]
    for dtype, group in steps.groupby("dtype", sort=False):
        costs = 1 / group["speed"]
        least, most = (f"{value:.3g}" for value in (costs.min(), costs.max()))
        if (group["compared"] == "slower").all():
            verdict = "holds"
        else:
            verdict = "fails" if group["compared"].isin(["faster", "same"]).any() else "ambiguous"
        measured = f"{least} to {most} times the time of one product, at {len(group)} sizes"
        rows.append((_WAITING, "lecture, recurrent computation is slow", dtype, f"> {1 + FLOOR:g} times", measured, verdict))
    return rows or [(_WAITING, "lecture, recurrent computation is slow", "all", f"> {1 + FLOOR:g} times", NOT, NOT)]


_WAITING = "T steps that wait for each other take longer than the same multiplications as one product"


def _proportional(fits: "pd.DataFrame") -> list[Claim]:
    rows = []
    claim = "the time of a recurrence grows in proportion to T"
    low, high = LINEAR
    mine = fits[(fits["part"] == "recurrence") & fits["variant"].isin(OURS) & (fits["over"] == "T")]
    for fit in mine.itertuples():
        if not math.isfinite(fit.exponent):
            continue
        if math.isnan(fit.low):
            verdict = "ambiguous"
        elif fit.low >= low and fit.high <= high:
            verdict = "holds"
        else:
            verdict = "fails" if fit.high < low or fit.low > high else "ambiguous"
        setting = ", ".join(w for w in (fit.cell, fit.direction, fit.dtype, fit.variant, fit.mode, fit.cache) if w)
        measured = f"T^{Interval(fit.exponent, fit.low, fit.high)}, {fit.points} sizes"
        rows.append((claim, "lecture, slide Elman RNN", setting, f"exponent within [{low:g}, {high:g}]", measured, verdict))
    return rows


def _lean(about: "pd.DataFrame") -> list[Claim]:
    rows = []
    losses = about[(about["part"] == "cross_entropy") & (about["status"] == "timed")]
    for variant in OURS:
        claim = f"{variant}'s loss holds at most half the memory that torch.nn's holds"
        found = False
        for (direction, dtype), group in losses.groupby(["direction", "dtype"], sort=False):
            largest = group[group["batch"] * group["vocabulary"] == (group["batch"] * group["vocabulary"]).max()]
            peaks = largest.groupby("variant")["peak_bytes"].first()
            if variant not in peaks or "torch.nn" not in peaks or peaks["torch.nn"] <= 0 or peaks[variant] < 0:
                continue
            found = True
            share = peaks[variant] / peaks["torch.nn"]
            measured = f"{share:.2f} ({peaks[variant] / 1e6:.1f} of {peaks['torch.nn'] / 1e6:.1f} MB)"
            setting = f"{direction}, {dtype}, {_size(largest.iloc[0])}"
            rows.append((claim, "aim of the kernels", setting, "<= 0.5", measured, "holds" if share <= 0.5 else "fails"))
        if not found:
            rows.append((claim, "aim of the kernels", "all", "<= 0.5", NOT, NOT))
    return rows


def _interval(row: Any, column: str) -> str:
    return str(Interval(row[column], row[f"{column}_low"], row[f"{column}_high"]))


def _size(row: Any) -> str:
    return ", ".join(f"{letter} {row[column]}" for column, letter, _ in AXES[row["part"]])
