"""Claims of the throughput study."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from recurrent_lm.studies.engine.claims import NOT, Claim
from recurrent_lm.studies.engine.statistics import FLOOR, UNDEFINED, Interval, decided
from recurrent_lm.studies.throughput.comparison import AXES, exponents, summary, together

if TYPE_CHECKING:
    import pandas as pd

OURS = ("kernels:torch", "kernels:triton")
GRAPH = "kernels:triton-graph"
TWICE = 2.0  # times torch.nn's tokens a second that the trainer aims at on a GPU
NAMES = {"recurrence": "recurrence", "cross_entropy": "loss", "training": "training step"}
TRACE = 1.15  # times the backward pass that a gradient trace may take
TRACE_LSTM = 1.8  # the same beside a library's fused LSTM, which tells no gradient of a step
LINEAR = (0.8, 1.2)  # exponents that still count as growth in proportion
FEW = 4  # sizes below which an exponent decides nothing: three may lie on a line by chance


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Right; not slower than torch.nn; steps that wait cost more; time in proportion to T; a loss in less memory."""

    about = summary(table)
    parts = table.attrs["parameters"]["parts"]
    rows = [_right(about)]
    for part in NAMES:
        if part in parts:
            rows += [row for variant in OURS for row in _not_slower(table, about, part, variant)]
    if "training" in parts:
        rows += _twice(table, about)
    if "sequential" in parts:
        rows += _waiting(table, about)
    if "trace" in parts:
        rows += _traced(table, about)
    if "recurrence" in parts:
        rows += _proportional(exponents(about))
    if "cross_entropy" in parts:
        rows += _lean(about)
    return rows


def _right(about: "pd.DataFrame") -> Claim:
    seen = about[about["error"].notna() | about["status"].isin(["timed", "disagrees"])]
    wrong = seen[seen["status"] == "disagrees"]  # by nan, too: a result that holds one agrees with nothing
    right = seen[(seen["status"] != "disagrees") & np.isfinite(seen["error"])]
    measured = f"{len(right)} of {len(seen)} agree; the largest error of those is "
    measured += f"{right['error'].max():.1e}" if len(right) else "none"
    if len(wrong):
        far = wrong["error"].max() if np.isfinite(wrong["error"]).all() else math.inf
        measured += f"; {wrong['variant'].iloc[0]} is wrong by {far:.1e}"
    return Claim(
        "right",
        "every variant computes what float64 does",
        "the textbook in float64",
        "all variants and sizes, gradients included",
        "at most 4 times the error of the textbook in the same dtype",
        "" if seen.empty else measured,
        False if len(wrong) else len(right) == len(seen) or None,
    )


def _not_slower(table: "pd.DataFrame", about: "pd.DataFrame", part: str, variant: str) -> list[Claim]:
    claim = f"not_slower.{part}.{variant}", f"{variant}'s {NAMES[part]} is not slower than torch.nn's", "aim of the kernels"
    threshold = f"at least 1 / {1 + FLOOR:g} times as fast at every size"
    rows = []
    mine = about[(about["part"] == part) & (about["variant"] == variant)]
    key: Any
    for key, group in mine.groupby(["cell", "direction", "dtype"], sort=False):
        setting = ", ".join(word for word in key if word)
        seen = together(table, group)
        if seen.empty:
            continue
        verdict = _all_not_slower(seen["compared"])
        why = f"an interval reaches across the limit: differences of {FLOOR:.0%} are smaller than the noise of these times"
        if verdict == "fails":
            calls = "around its chunks of logits it makes more small calls than torch, which weigh where there are few logits"
            why = calls if (part, variant) == ("cross_entropy", "kernels:torch") else ""
        rows.append(Claim(*claim, setting, threshold, _worst(seen), verdict, why))
    return rows or [Claim(*claim, "all", threshold)]


def _all_not_slower(compared: "pd.Series[Any]") -> str:
    if (compared == "slower").any():
        return "fails"
    return "holds" if compared.isin(["faster", "same"]).all() else "ambiguous"


def _worst(seen: "pd.DataFrame") -> str:
    """The slowest setting, and how many there are of each kind."""
    worst = seen.sort_values("speed").iloc[0]  # nan is last
    if math.isnan(worst["speed"]):
        return UNDEFINED
    counts = ", ".join(f"{n} {word}" for word, n in seen["compared"].value_counts(sort=False).items())
    return f"{_interval(worst, 'speed')} times as fast at worst, at {_size(worst)}; of {len(seen)} settings {counts}"


def _twice(table: "pd.DataFrame", about: "pd.DataFrame") -> list[Claim]:
    text = f"a training step as a CUDA graph is at least {TWICE:g} times as fast as torch.nn's"
    claim = "graph_twice", text, "aim of the trainer"
    rows: list[Claim] = []
    mine = about[(about["part"] == "training") & (about["variant"] == GRAPH)]
    for dtype, group in mine.groupby("dtype", sort=False):
        seen = together(table, group)
        if seen.empty:
            continue
        holds = (seen["speed_low"] >= TWICE).all()
        verdict = "holds" if holds else "fails" if (seen["speed_high"] < TWICE).any() else "ambiguous"
        rows.append(Claim(*claim, str(dtype), f">= {TWICE:g}", _worst(seen), verdict))
    return rows or [Claim(*claim, "all", f">= {TWICE:g}")]


def _waiting(table: "pd.DataFrame", about: "pd.DataFrame") -> list[Claim]:
    text = "T steps that wait for each other take longer than the same multiplications as one product"
    claim = "waiting", text, "lecture, slide Summary of RNNs (recurrent computation is slow)"
    threshold = f"> {1 + FLOOR:g} times"
    rows: list[Claim] = []
    steps = about[(about["part"] == "sequential") & (about["variant"] == "steps") & (about["compared"] != NOT)]
    for dtype, of_dtype in steps.groupby("dtype", sort=False):
        group = together(table, of_dtype)
        costs = 1 / group["speed"].dropna()
        least, most = (f"{value:.3g}" for value in (costs.min(), costs.max()))
        if (group["compared"] == "slower").all():
            verdict = "holds"
        else:
            verdict = "fails" if group["compared"].isin(["faster", "same"]).any() else "ambiguous"
        measured = f"{least} to {most} times the time of one product, at {len(group)} sizes" if len(costs) else UNDEFINED
        rows.append(Claim(*claim, str(dtype), threshold, measured, verdict, "", {"dtype": dtype}))
    return rows or [Claim(*claim, "all", threshold)]


def _traced(table: "pd.DataFrame", about: "pd.DataFrame") -> list[Claim]:
    rows = []
    traced = about[(about["part"] == "trace") & (about["variant"] == "traced") & (about["compared"] != NOT)]
    for (cell, dtype), group in traced.groupby(["cell", "dtype"], sort=False):
        seen, most = together(table, group), TRACE_LSTM if cell == "lstm" else TRACE
        costs = 1 / seen["speed"]
        verdict = "holds" if (1 / seen["speed_low"] <= most).all() else "fails" if (1 / seen["speed_high"] > most).any() else ""
        text = "a backward pass that records the gradient of every step takes little longer than one that does not"
        measured = f"{costs.min():.2f} to {costs.max():.2f} times, at {len(seen)} sizes" if costs.notna().all() else UNDEFINED
        setting, threshold = f"{cell}, {dtype}", f"at most {most:g} times at every size"
        rows.append(Claim("trace", text, "aim of the kernels", setting, threshold, measured, verdict or "ambiguous"))
    return rows


def _proportional(fits: "pd.DataFrame") -> list[Claim]:
    rows = []
    text = "the time of a recurrence grows in proportion to T"
    why = "a call costs something whatever T is, which weighs at the smallest; and a few sizes leave a wide interval"
    low, high = LINEAR
    mine = fits[(fits["part"] == "recurrence") & fits["variant"].isin(OURS) & (fits["over"] == "T")]
    fit: Any
    for fit in mine.itertuples():
        if not math.isfinite(fit.exponent):
            continue
        power = Interval(fit.exponent, fit.low, fit.high)
        verdict = None if fit.points < FEW else decided(power, low, high)
        setting = ", ".join(w for w in (fit.cell, fit.direction, fit.dtype, fit.variant, fit.mode, fit.cache) if w)
        measured = f"T^{power}, {fit.points} sizes"
        source, threshold = "lecture, slide Standard (Elman) RNN", f"exponent within [{low:g}, {high:g}]"
        why_open = why if verdict in (None, "ambiguous") else ""
        rows.append(Claim("proportional", text, source, setting, threshold, measured, verdict, why_open))
    return rows


def _lean(about: "pd.DataFrame") -> list[Claim]:
    rows = []
    losses = about[(about["part"] == "cross_entropy") & (about["status"] == "timed")]
    for variant in OURS:
        text = f"{variant}'s loss holds at most half the memory that torch.nn's holds"
        claim = f"memory.{variant}", text, "aim of the kernels"
        measured_any = False
        for (direction, dtype), group in losses.groupby(["direction", "dtype"], sort=False):
            largest = group[group["batch"] * group["vocabulary"] == (group["batch"] * group["vocabulary"]).max()]
            peaks = largest.groupby("variant")["peak_bytes"].first()
            if variant not in peaks or "torch.nn" not in peaks:
                continue
            measured_any = True
            sizes, share, measured = _size(largest.iloc[0]), math.nan, UNDEFINED
            if peaks["torch.nn"] > 0 and peaks[variant] > 0:  # every call holds something
                share = peaks[variant] / peaks["torch.nn"]
                measured = f"{share:.2f} ({peaks[variant] / 1e6:.3g} of {peaks['torch.nn'] / 1e6:.3g} MB)"
            facts = {"direction": direction, "dtype": dtype, "sizes": sizes, "share": share}
            rows.append(Claim(*claim, f"{direction}, {dtype}, {sizes}", "<= 0.5", measured, share <= 0.5, "", facts))
        if not measured_any:
            rows.append(Claim(*claim, "all", "<= 0.5"))
    return rows


def _interval(row: Any, column: str) -> str:
    return str(Interval(row[column], row[f"{column}_low"], row[f"{column}_high"]))


def _size(row: Any) -> str:
    return ", ".join(f"{letter} {row[column]}" for column, letter, _ in AXES[row["part"]])
