"""What the table of gradient_flow decides: claim 1 and what the lecture says of language models here, theory elsewhere."""

import math
from typing import TYPE_CHECKING, Any

from studies.gradient_flow_theory import theory
from studies.gradient_flow_verdicts import EXACT, NOT, Claim, decided, names, of, shown

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("claim", "source", "setting", "threshold", "measured", "verdict")


def verdicts(table: "pd.DataFrame") -> "pd.DataFrame":
    """Claims 1 and 4 to 8, and two of the lecture: gates help, and vanishing is usual."""
    import pandas as pd

    study = table.attrs["parameters"]
    rows = _sums(table) + theory(table, study) + _help(table) + _usual(table, study)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def reason(table: "pd.DataFrame", claim: Any) -> str:
    """The likely reason why log(chi)/2 is missed at a small g."""
    scale = float(claim.setting.split("g = ")[1].split(",")[0]) if "g = " in claim.setting else math.nan
    if "is about log(chi)/2" not in claim.claim or not scale <= 1:
        return ""
    parts = [
        of(table, "curves", q, cell="rnn-tanh", scale=scale).set_index("seed")["value"]
        for q in ("log_radius", "exponent", "half_log_chi")
    ]
    if any(part.empty for part in parts):
        return ""
    radius, off = parts[0], (parts[1] - parts[2]).abs()
    (least, at_least), (most, at_most) = (sorted(zip(radius, off.reindex(radius.index), strict=True))[i] for i in (0, -1))
    return (
        "where tanh is almost linear, one matrix is multiplied again and again, and its largest eigenvalue shows, which at "
        "finite n may lie beyond g; chi takes each step for independent of those before. The network with the smallest "
        f"spectral radius ({math.exp(least):.2f}) is off by {at_least:.3f}, that with the largest ({math.exp(most):.2f}) by "
        f"{at_most:.3f}"
    )


def _sums(table: "pd.DataFrame") -> list[Claim]:
    """Claim 1, for each random network and each corpus, and that the trace of ``kernels`` says the same."""
    claim, source = "the parts of dL(t)/dW_h over steps i sum to autograd's dL(t)/dW_h", "lecture, slide BPTT"
    threshold = f"relative error <= {EXACT:g} in float64"
    whole = f"{threshold}; zero for i > t; zero at i = 1 when h(0) = 0"
    rows: list[Claim] = []
    for cell in names(table, "certificate", "cell") or ["every cell"]:
        error, beyond, first = (
            float(of(table, "certificate", q, cell=cell)["value"].max(skipna=False)) for q in ("sum_error", "beyond", "first")
        )
        right = error <= EXACT and beyond == 0 and first == 0
        setting = f"{cell}, random, h(0) = 0"
        measured = f"{error:.1e}; {beyond:g}; {first:g}" if math.isfinite(error + beyond + first) else NOT
        rows.append((claim, source, setting, whole, measured, decided(right, error + beyond + first)))
    for corpus in names(table, "language", "corpus") or ["every corpus"]:
        found = of(table, "language", "sum_error", corpus=corpus)
        error = float(found["value"].max(skipna=False))
        setting = f"language models on {corpus}, {len(found)} looks"
        rows.append((claim, source, setting, threshold, shown(error, ".1e"), decided(error <= EXACT, error)))
    traced = of(table, "certificate", "trace_error")["value"]
    error = float(traced.max(skipna=False)) if len(traced) else math.nan
    claim, source = "the gradient trace of the kernels has the norms ||dL(t)/dh(i)|| of the T x T map", "aim of the kernels"
    setting = "all cells, T losses stacked in the batch"
    rows.append((claim, source, setting, threshold, shown(error, ".1e"), decided(error <= EXACT, error)))
    return rows


def ends(table: "pd.DataFrame") -> "pd.DataFrame":
    """The part language after the last epoch of each model."""
    found = table[table["part"] == "language"]
    return found[found["epoch"] == found.groupby(["corpus", "cell", "seed"])["epoch"].transform("max")]


def _help(table: "pd.DataFrame") -> list[Claim]:
    """Gates help: the slope over the lag, pair by pair of seeds and layers."""
    claim, source = "gates help: the gradient decays more slowly", "lecture, slide Why it matters"
    slopes = ends(table)
    slopes = slopes[slopes["quantity"] == "slope"]
    rows: list[Claim] = []
    for corpus in names(table, "language", "corpus") or ["every corpus"]:
        here = slopes[slopes["corpus"] == corpus]
        for cell in ("lstm", "gru"):
            own, tanh = (here[here["cell"] == name] for name in (cell, "rnn-tanh"))
            both = own.merge(tanh, on=["seed", "layer"], suffixes=("_own", "_tanh")).dropna(subset=["value_own", "value_tanh"])
            slower = int((both["value_own"] > both["value_tanh"]).sum())
            verdict = NOT if both.empty else "holds" if slower == len(both) else "ambiguous" if slower else "fails"
            measured = NOT if both.empty else (
                f"{slower} of {len(both)}; per step back the median norm is multiplied by "
                f"{math.exp(both['value_own'].median()):.3f}, tanh's by {math.exp(both['value_tanh'].median()):.3f}"
            )  # fmt: skip
            setting = f"{cell} against rnn-tanh, {corpus}, after training"
            threshold = "a slower fall in every pair of seed and layer"
            rows.append((claim, source, setting, threshold, measured, verdict))
    return rows


def _usual(table: "pd.DataFrame", study: dict[str, Any]) -> list[Claim]:
    """Vanishing usual, exploding rarer: positions of real text, before and after training."""
    claim, source = "vanishing is usual, exploding rarer", "lecture, slide Vanishing, exploding"
    threshold = f"more than half of the parts at lag {study['reach']} are a tenth of lag 0 or less, fewer are ten times"
    start = table[(table["part"] == "language") & (table["epoch"] == 0)]
    rows: list[Claim] = []
    for when, seen in (("at initialisation", start), ("after training", ends(table))):
        down, up = (seen.loc[seen["quantity"] == q, "value"] for q in ("vanishing", "exploding"))
        if not len(down):
            rows.append((claim, source, f"language models, {when}", threshold, NOT, NOT))
            continue
        right = down.mean() > 0.5 and up.mean() < down.mean()
        setting = f"{len(down)} layers of language models, {when}"
        measured = f"{down.mean():.1%} vanish, {up.mean():.1%} explode"
        rows.append((claim, source, setting, threshold, measured, "holds" if right else "fails"))
    return rows
