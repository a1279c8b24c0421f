"""What gradient_flow answers, in sentences made from its table."""

import math
from typing import TYPE_CHECKING, Any

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.answers import Answer, both, uncertain
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.engine.statistics import exp, ratio
from recurrent_lm.studies.gradient_flow.figures.paths import steps
from recurrent_lm.studies.gradient_flow.figures.selection import NAMES, last_epoch, pick

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """Which step's part is largest and by how much, and which cell's gradient reaches furthest; of networks without a text,
    what the spectral radius decides."""
    try:
        picture = steps(table)
    except InputError:
        told = _theory(table, claims)
        return Answer(told, "theory") if told else None
    largest = max(picture.part, key=lambda i: picture.part[i])
    other = 1 if largest != 1 else 4
    times = ratio(picture.part[largest], picture.part[other])
    if math.isnan(times):
        return None
    where = {4: "The last word", 1: "The word furthest back"}.get(largest, f"Word {largest} of 4")
    sentence = (
        f"{where} brings the largest part of the gradient of W_h: step {largest}, “{picture.words[largest - 1]}”, brings "
        f"{_times(times)} what step {other}, “{picture.words[other - 1]}”, brings."
    )
    return Answer(both(sentence, _furthest(table, claims)), "paths")


def _times(value: float) -> str:
    return f"{value:.2g} times" if value < 100 else f"{value:,.0f} times"


def factors(table: "pd.DataFrame") -> dict[str, float]:
    """What the gradient of a trained model's last layer is multiplied by per step back, by cell, the largest first."""
    rows = last_epoch(pick(table, "language", "slope"))
    slopes = rows[rows["layer"] == rows["layer"].max()].groupby("cell", sort=False)["value"].median().dropna()
    return {str(cell): exp(slope) for cell, slope in slopes.sort_values(ascending=False).items()}


def _furthest(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    decay = factors(table)
    if len(decay) < 2:
        return ""
    first, *others = decay
    tanh = "rnn-tanh" if "rnn-tanh" in others else others[-1]
    best, than = decay[first], decay[tanh]
    if first == "rnn-tanh":
        return (
            f"Gates do not help here: in a tanh network each step back multiplies the gradient by {best:.2f}, in the next "
            f"best, {NAMES[others[0]]}, by {decay[others[0]]:.2f}."
        )
    gates = select(claims, "gates_help")
    doubt = uncertain(gates[[facts["cell"] == first for facts in gates["facts"]]])
    network = "an LSTM" if first == "lstm" else f"a {NAMES[first]} network"
    return (
        f"In {network} it reaches furthest back: each step back multiplies it by {best:.2f}, in a {NAMES[tanh]} network by "
        f"{than:.2f}{doubt}."
    )


def _paths(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    try:
        picture = steps(table)
    except InputError:  # the table holds no four steps
        return ""
    near, far = (4, 1) if picture.part[4] >= picture.part[1] else (1, 4)
    times = ratio(picture.part[near], picture.part[far])
    return (
        ""
        if math.isnan(times)
        else f"The path through step {near} brings {_times(times)} what the path through step {far} brings."
    )


def _theory(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Whether a spectral radius above 1 means explosion, of random tanh networks."""
    rows = pick(table, "curves", cell="rnn-tanh")
    at = rows.pivot_table(index="scale", columns="quantity", values="value", aggfunc="median")
    if not {"log_radius", "slope"} <= set(at.columns):
        return ""
    above = at[at["log_radius"] > 0].dropna(subset=["log_radius", "slope"])
    if above.empty:
        return ""
    shrinking, growing = above[above["slope"] < 0], above[above["slope"] >= 0]
    if shrinking.empty:
        radius, pace = (exp(above[name].iloc[0]) for name in ("log_radius", "slope"))
        return (
            "Every tanh network here with a spectral radius above 1 explodes: with radius "
            f"{radius:.2f} each step back multiplies the gradient by {pace:.2f}."
        )
    widest = shrinking.sort_values("log_radius").iloc[-1]
    radius, pace = exp(widest["log_radius"]), exp(widest["slope"])
    told = (
        f"A spectral radius above 1 does not mean explosion: in a tanh network with radius {radius:.2f} "
        f"each step back multiplies the gradient by {pace:.2f}"
    )
    return f"{told}; it explodes from radius {exp(growing['log_radius'].min()):.2f} on." if len(growing) else f"{told}."


def _slopes(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = pick(table, "curves")
    wide = rows.pivot_table(index=["cell", "scale", "seed"], columns="quantity", values="value")
    if not {"slope", "exponent"} <= set(wide.columns):
        return ""
    gaps = (wide["slope"] - wide["exponent"]).abs().dropna()
    if gaps.empty or not math.isfinite(gaps.max()):
        return ""
    if gaps.max() <= 0.05:
        return f"In every kind of network the slope is the largest Lyapunov exponent, within {gaps.max():.3f}."
    cell: Any = gaps.groupby("cell").max().idxmax()
    return f"In a {NAMES[cell]} network the slope is {gaps.max():.2g} away from the largest Lyapunov exponent."


def _language(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    decay = factors(table)
    told = ", ".join(f"{NAMES[cell]} {value:.2f}" for cell, value in decay.items())
    return f"Each step back multiplies the gradient by: {told}." if decay else ""


FINDINGS = {"paths": _paths, "theory": _theory, "slopes": _slopes, "language": _language}
