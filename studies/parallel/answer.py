"""What parallel answers, in sentences made from its table."""

import math
from typing import TYPE_CHECKING

import numpy as np

from recurrent_lm.studies.engine.answers import Answer, both
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.parallel.claims import LINEAR, VANISHING, first_cell, iterations_of, longest, shown, trained

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """Iterations where gradients vanish and where they explode, and of trained models."""
    random = _networks(table)
    if random.empty:
        sentence = _trained(table)
        return Answer(sentence, "training") if sentence else None
    vanishing = random[random["exponent"] < VANISHING]["iterations"]
    exploding = random[random["exponent"] > 0]["iterations"]
    if vanishing.empty or not vanishing.max() < math.inf:
        return None
    steps = f"{random['steps'].max():,} time steps"
    few = f"{vanishing.min():.0f} to {vanishing.max():.0f}"
    if exploding.empty:
        sentence = f"Where gradients vanish, Newton's method solves {steps} in {few} parallel iterations."
    elif exploding.min() <= vanishing.max():
        sentence = (
            f"Whether gradients vanish does not decide how parallel a recurrence is: {steps} take Newton's method {few} "
            f"iterations where they vanish, and {exploding.min():.0f} or more where they explode."
        )
    else:
        many = f"{exploding.min():.0f} or more, or does not solve them"
        if exploding.min() == math.inf:
            many = "does not solve them at all"
        elif exploding.max() < math.inf:
            many = f"{exploding.min():.0f} to {exploding.max():.0f}"
        sentence = (
            f"A recurrence need not be slow where gradients vanish: Newton's method solves {steps} in {few} parallel "
            f"iterations; where gradients explode it needs {many}."
        )
    return Answer(both(sentence, _trained(table)), "exponent")


def _networks(table: "pd.DataFrame") -> "pd.DataFrame":
    """Random networks that are not linear, at the largest T."""
    random = longest(iterations_of(table))
    return random[(random["part"] == "random") & (random["cell"] != LINEAR) & random["known"]]


def _trained(table: "pd.DataFrame") -> str:
    models = trained(longest(iterations_of(table)))
    if models.empty or not models["known"].all():
        return ""
    least, most = models["iterations"].min(), models["iterations"].max()
    if most == math.inf:
        return "Not every trained language model is solved."
    return f"Trained language models need {least:.0f} to {most:.0f}."


def _exponent(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rank = select(claims, "rank.random").iloc[0]
    value = rank["facts"].get("rank", math.nan)
    if not math.isfinite(value):
        return ""
    follow = "follow" if value > 0.5 else "do not follow"
    return f"The iterations {follow} the Lyapunov exponent: rank correlation {value:.2f} over {len(_networks(table))} networks."


def _lengths(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """The networks with the smallest and with the largest g of the drawn kind, at the smallest and the largest T."""
    rows = iterations_of(table)
    rows = rows[(rows["part"] == "random") & rows["known"] & (rows["cell"] == first_cell(rows))]
    if rows.empty or rows["steps"].nunique() < 2:
        return ""
    wide = rows.groupby(["scale", "steps"])["iterations"].median().unstack().dropna()
    short, long = wide.columns.min(), wide.columns.max()
    wide = wide[np.isfinite(wide[short])]
    if len(wide) < 2:
        return ""
    ends = (wide.iloc[0], wide.iloc[-1])
    changes = [
        f"{shown(of[short])} iterations become {shown(of[long])}"
        if of[long] < math.inf
        else f"{shown(of[short])} iterations turn into no solution"
        for of in ends
    ]
    low, high = wide.index[0], wide.index[-1]
    return f"From T = {short:,} to {long:,}, {changes[0]} at g = {low:g}, and {changes[1]} at g = {high:g}."


def _training(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = longest(iterations_of(table))
    models = rows[(rows["part"] == "language") & rows["known"]]
    last, first = trained(models)["iterations"].median(), models[models["epoch"] == 0]["iterations"].median()
    if not math.isfinite(first) or not math.isfinite(last):
        return ""
    word = "more" if last > first else "fewer" if last < first else "as many"
    return f"A model needs {word} iterations once it is trained: {first:.0f} at initialisation, {last:.0f} at the end."


FINDINGS = {"exponent": _exponent, "lengths": _lengths, "training": _training}
