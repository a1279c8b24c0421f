"""What backends answers, in sentences made from its table and claims."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.answers import Answer, both
from recurrent_lm.studies.engine.claims import select

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """Whether the curves are the same, and how many times as fast the others are."""
    same = _curves(table, claims)
    return Answer(both(same, _speed(table, claims)), "curves") if same else None


def _curves(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    mine = select(claims, "curve")
    mine = mine[mine["verdict"] != "not measured"]
    if mine.empty:
        return ""
    holds, count = int((mine["verdict"] == "holds").sum()), len(mine)
    if holds == count:
        return f"All backends teach a model the same: {holds} of {count} curves are within the spread of the seeds."
    return f"The backends do not all teach a model the same: {count - holds} of {count} curves leave the spread of the seeds."


def speeds(table: "pd.DataFrame") -> dict[str, tuple[float, float]]:
    """Least and largest ratio over cells of each backend's median tokens a second to the reference's, after the first epoch."""
    reference, *others = table.attrs["parameters"]["backends"]
    seen = table[(table["epoch"] > 1) & (table["tokens_per_second"] > 0)]
    by = seen.groupby(["cell", "backend"])["tokens_per_second"].median().unstack()
    if reference not in by:
        return {}
    ratios = {name: (by[name] / by[reference]).dropna() for name in others if name in by}
    return {name: (float(of.min()), float(of.max())) for name, of in ratios.items() if len(of)}


def _speed(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    reference, *_ = table.attrs["parameters"]["backends"]
    told = [
        f"{name} trains {low:.1f} to {high:.1f} times as fast as {reference}" for name, (low, high) in speeds(table).items()
    ]
    sentence = ", ".join(told)
    return f"{sentence[:1].upper()}{sentence[1:]}." if told else ""


FINDINGS = {"curves": _curves, "speed": _speed}
