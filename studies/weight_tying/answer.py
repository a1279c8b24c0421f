"""What weight_tying answers, in sentences made from its table."""

import math
from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.answers import Answer, uncertain
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.engine.statistics import ratio

if TYPE_CHECKING:
    import pandas as pd

PAIR = ("tied, d = h", "untied, d = h")


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """How many parameters tying saves and what it does to perplexity."""
    saved, change = saving(table), change_of(table)
    if math.isnan(change):
        told = _counts(table, claims)
        return Answer(told, "counts") if told else None
    better = "predicts better: perplexity falls" if change < 1 else "predicts worse: perplexity rises"
    better += f" by {abs(1 - change):.1%}{uncertain(select(claims, 'tied.same_width'))}"
    least = "" if math.isnan(saved) else f"saves {saved:.0%} of the parameters and "
    return Answer(f"Letting the decoder use the embedding {least}{better}.", "perplexity")


def saving(table: "pd.DataFrame") -> float:
    """The median share of an untied model's parameters that its tied twin does without; of trained models."""
    models = table[table["part"] == "model"].groupby(["corpus", "variant"])["parameters"].first().unstack()
    if not set(PAIR) <= set(models.columns):
        return math.nan
    return float((1 - models[PAIR[0]] / models[PAIR[1]]).median())


def change_of(table: "pd.DataFrame") -> float:
    """The median over pairs of corpus and seed of tied over untied perplexity, at the same d and h."""
    models = table[table["part"] == "model"].pivot_table(index=["corpus", "seed"], columns="variant", values="perplexity")
    if not set(PAIR) <= set(models.columns):
        return math.nan
    change = float((models[PAIR[0]] / models[PAIR[1]]).median())
    return change if math.isfinite(change) else math.nan


def _counts(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    counts = table[(table["part"] == "counts") & (table["variant"] == PAIR[1])]
    by = counts.groupby(["vocabulary", "h", "matrix"])["parameters"].sum().unstack()
    if by.empty or not {"E", "U"} <= set(by.columns):
        return ""
    shares = (by["E"] + by["U"]) / by.sum(axis=1)
    words = [int(v) for v in shares.index.get_level_values("vocabulary")]
    low, high = shares.min(), shares.max()
    told = f"of {min(words):,} to {max(words):,} words" if min(words) < max(words) else f"of {words[0]:,} words"
    return f"E and U hold {low:.0%} to {high:.0%} of the parameters of a model {told}." if ratio(high, 1.0) == high else ""


def _perplexity(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    change = change_of(table)
    if math.isnan(change):
        return ""
    word = "better" if change < 1 else "worse"
    return f"At the same d and h tying multiplies perplexity by {change:.3f}: the tied model is {word}."


FINDINGS = {"counts": _counts, "perplexity": _perplexity}
