"""What clipping answers, in sentences made from its table."""

import math

import pandas as pd

from recurrent_lm.studies.clipping.figures.clipping_cliff import CUT
from recurrent_lm.studies.clipping.figures.clipping_kinds import NAMES
from recurrent_lm.studies.clipping.table import trainings
from recurrent_lm.studies.engine.answers import Answer, both


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """What clipping does at the cliff, and how many trainings it keeps from diverging."""
    cliff, training = _surface(table, claims), _thresholds(table, claims)
    if not cliff:
        return Answer(training, "thresholds") if training else None
    return Answer(both(cliff, training), "surface")


def ends(table: "pd.DataFrame") -> "dict[str, pd.Series[float]]":
    """Where the two descents at the cliff end, plain and clipped: w, b and value, the error."""
    part = table[(table["part"] == "cliff") & (table["quantity"] == "error")]
    descents = {kind: part[part["kind"] == kind].sort_values("step") for kind in ("plain", "clipped")}
    return {kind: path.iloc[-1] for kind, path in descents.items() if len(path)}


def _surface(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    last_points = ends(table)
    if len(last_points) < 2 or not all(math.isfinite(end["value"]) for end in last_points.values()):
        return ""
    plain, clipped = last_points["plain"], last_points["clipped"]
    if clipped["value"] < plain["value"]:
        return (
            f"At the cliff a plain step is thrown to w = {plain['w']:.1f}, b = {plain['b']:.1f} and ends with error "
            f"{plain['value']:.2g}; clipped steps stay at the foot of the wall and end with {clipped['value']:.2g}."
        )
    return (
        f"At the cliff clipping does not help here: clipped the descent ends with error {clipped['value']:.2g}, without with "
        f"{plain['value']:.2g}."
    )


def _cliff(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    probes = table[(table["part"] == "cliff") & (table["kind"] == "ridge") & (table["quantity"] == "dE/db")]
    if probes.empty:
        return ""
    here = probes[probes["w"] == CUT]  # where the picture is cut
    at = (probes if here.empty else here).iloc[0]
    steep = float(f"{abs(at['value']):.3g}")
    return f"On the wall the error falls {steep:,.0f} times as fast as b grows, at w = {at['w']:g}."


def _thresholds(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    runs = trainings(table)
    free = runs[runs["multiple"] == math.inf] if len(runs) else runs
    if free.empty:
        return ""
    lost = free.groupby("rate")["diverged"].sum()
    bad = free[free["rate"].isin(lost[lost > 0].index)]
    if bad.empty:
        return f"No training diverges without clipping, at learning rates up to {free['rate'].max():g}."
    many = f"{int(bad['diverged'].sum())} of {len(bad)} trainings"
    told = f"Without clipping {many} at learning rates from {bad['rate'].min():g} on diverge"
    held = runs[(runs["multiple"] < math.inf) & runs["rate"].isin(bad["rate"])].groupby("multiple")["diverged"].sum()
    safe = held[held == 0].index
    if len(safe):
        return f"{told}, clipped at {max(safe):g} times the mean norm none."
    best = held.idxmin() if len(held) else math.nan
    return f"{told}, clipped at {best:g} times the mean norm {int(held.min())}." if len(held) else f"{told}."


def _kinds(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    part = table[(table["part"] == "kinds") & (table["quantity"] == "cosine")]
    least = part[part["multiple"] == part["multiple"].min()].groupby("kind")["value"].median().dropna()
    others = least.drop("norm", errors="ignore")
    if "norm" not in least or others.empty:
        return ""
    worst = " ".join(NAMES.get(str(others.idxmin()), str(others.idxmin())).split())
    if least["norm"] > 0.999:
        kept = f"Clipping the norm keeps the gradient's direction (cosine {least['norm']:.2f})"
        return f"{kept}; clipping {worst} turns it most ({others.min():.2f})."
    return f"Clipping the norm does not keep the gradient's direction here: the median cosine is {least['norm']:.2f}."


FINDINGS = {"surface": _surface, "cliff": _cliff, "thresholds": _thresholds, "kinds": _kinds}
