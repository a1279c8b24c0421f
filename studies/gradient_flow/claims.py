"""Claims of gradient_flow: claim 1 and the lecture's statements on language models; those of theory are in ``theory``."""

import math
from typing import TYPE_CHECKING, Any

from recurrent_lm.studies.engine.claims import Claim
from recurrent_lm.studies.engine.statistics import UNDEFINED, Interval, decided, exp, mean, share
from recurrent_lm.studies.gradient_flow.theory import theory
from recurrent_lm.studies.gradient_flow.verdicts import EXACT, names, of, shown

if TYPE_CHECKING:
    import pandas as pd


def claims(table: "pd.DataFrame") -> list[Claim]:
    """Claims 1 and 4 to 8, and two of the lecture: gates help, and vanishing is usual."""
    study = table.attrs["parameters"]
    return _sums(table) + theory(table, study) + _help(table) + _usual(table, study)


def _sums(table: "pd.DataFrame") -> list[Claim]:
    """Claim 1, for each random network and each corpus, and that the trace of ``kernels`` says the same."""
    claim = "sums", "the parts of dL(t)/dW_h over steps i sum to autograd's dL(t)/dW_h", "lecture, slide BPTT"
    threshold = f"relative error <= {EXACT:g} in float64"
    whole = f"{threshold}; zero for i > t; zero at i = 1 when h(0) = 0"
    rows: list[Claim] = []
    for cell in names(table, "certificate", "cell") or ["every cell"]:
        error, beyond, first = (
            float(of(table, "certificate", q, cell=cell)["value"].max(skipna=False)) for q in ("sum_error", "beyond", "first")
        )
        right = error <= EXACT and beyond == 0 and first == 0
        setting = f"{cell}, random, h(0) = 0"
        measured = "" if math.isnan(error + beyond + first) else f"{error:.1e}; {beyond:g}; {first:g}"
        rows.append(Claim(*claim, setting, whole, measured, right))
    for corpus in names(table, "language", "corpus") or ["every corpus"]:
        rows_of_corpus = of(table, "language", "sum_error", corpus=corpus)
        error = float(rows_of_corpus["value"].max(skipna=False))
        setting = f"language models on {corpus}, {len(rows_of_corpus)} looks"
        rows.append(Claim(*claim, setting, threshold, shown(error, ".1e"), error <= EXACT))
    traced = of(table, "certificate", "trace_error")["value"]
    error = float(traced.max(skipna=False)) if len(traced) else math.nan
    text = "the gradient trace of the kernels has the norms ||dL(t)/dh(i)|| of the T x T map"
    claim = "trace", text, "aim of the kernels"
    setting = "all cells, T losses stacked in the batch"
    rows.append(Claim(*claim, setting, threshold, shown(error, ".1e"), error <= EXACT))
    return rows


def ends(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of the part language after the last epoch of each model."""
    models = table[table["part"] == "language"]
    return models[models["epoch"] == models.groupby(["corpus", "cell", "seed"])["epoch"].transform("max")]


def _help(table: "pd.DataFrame") -> list[Claim]:
    """Gates help: the slope over the lag, a mean over layers for each seed, because layers of one model are not independent."""
    claim = "gates_help", "gates help: the gradient decays more slowly", "lecture, slide Why it matters"
    slopes = ends(table)
    slopes = slopes[slopes["quantity"] == "slope"]
    rows: list[Claim] = []
    for corpus in names(table, "language", "corpus") or ["every corpus"]:
        here = slopes[slopes["corpus"] == corpus]
        for cell in ("lstm", "gru"):
            own, tanh = (here[here["cell"] == name] for name in (cell, "rnn-tanh"))
            both = own.merge(tanh, on=["seed", "layer"], suffixes=("_own", "_tanh")).dropna(subset=["value_own", "value_tanh"])
            decision = _slower(both) if len(both) else ("", "", "")
            setting = f"{cell} against rnn-tanh, {corpus}, after training"
            threshold, facts = "a slower fall, by a 95% interval over seeds", {"cell": cell, "corpus": corpus}
            rows.append(Claim(*claim, setting, threshold, *decision, facts))
    return rows


def _slower(both: "pd.DataFrame") -> tuple[str, str, str]:
    """(measured, verdict, reason) of slopes ``value_own`` and ``value_tanh``, a row a seed and layer."""
    of_seeds = both.groupby("seed")[["value_own", "value_tanh"]].mean()
    more = mean(of_seeds["value_own"] - of_seeds["value_tanh"])
    if math.isnan(more.value):
        return UNDEFINED, "ambiguous", ""
    own, tanh = (exp(both[column].median()) for column in ("value_own", "value_tanh"))
    slower = int((both["value_own"] > both["value_tanh"]).sum())
    times = f"{Interval(*map(exp, more)).told('.2f')} times tanh's" if len(of_seeds) > 1 else "one seed"
    measured = (
        f"{slower} of {len(both)}; per step back the median norm is multiplied by {own:.3f}, tanh's by {tanh:.3f}; {times}"
    )
    verdict, why = decided(more, low=0), ""
    if len(of_seeds) == 1:
        why = "one seed shows no spread, so nothing says how far another would lie; --set model_seeds=5"
    elif verdict == "ambiguous":
        why = "the interval over so few seeds reaches across 0; --set model_seeds=5 would narrow it"
    return measured, verdict, why


def _usual(table: "pd.DataFrame", study: dict[str, Any]) -> list[Claim]:
    """Vanishing is usual and exploding rarer, at positions of real text before and after training; usual means in most
    models.
    """
    claim = "vanishing", "vanishing is usual, exploding rarer", "lecture, slide Vanishing, exploding"
    threshold = f"more than half of the parts at lag {study['reach']} are a tenth of lag 0 or less, fewer are ten times"
    threshold += ", in most models (Wilson's 95% interval)"
    start = table[(table["part"] == "language") & (table["epoch"] == 0)]
    rows: list[Claim] = []
    for when, seen in (("at initialisation", start), ("after training", ends(table))):
        both = seen[seen["quantity"].isin(["vanishing", "exploding"])]
        both = both.pivot(index=["corpus", "cell", "seed", "layer"], columns="quantity", values="value")
        both = both.reindex(columns=["vanishing", "exploding"]).dropna()
        if both.empty:
            rows.append(Claim(*claim, f"language models, {when}", threshold))
            continue
        setting = f"{len(both)} layers of language models, {when}"
        measured, verdict, why = UNDEFINED, "", ""
        if both.ge(0).all(axis=None) and both.le(1).all(axis=None):
            models = both.groupby(["corpus", "cell", "seed"]).mean()
            right = (models["vanishing"] > 0.5) & (models["exploding"] < models["vanishing"])
            most = share(int(right.sum()), len(models))
            measured = f"{both['vanishing'].mean():.1%} vanish, {both['exploding'].mean():.1%} explode; "
            measured += f"so in {most.told('.0%')} of {len(models)} models"
            verdict = decided(most, low=0.5)
            if verdict == "ambiguous":
                why = "so few models leave a wide interval of the share in which it is so; --set model_seeds=5"
        rows.append(Claim(*claim, setting, threshold, measured, verdict, why))
    return rows
