"""What long_range answers, in sentences made from its table."""

import math
from typing import TYPE_CHECKING, Any

from recurrent_lm.studies.engine.answers import Answer, both
from recurrent_lm.studies.long_range.claims import summary
from recurrent_lm.studies.long_range.figures import CELLS, METHODS

if TYPE_CHECKING:
    import pandas as pd


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """Which cell learns what lies furthest back; of a table without cells, which gradient does."""
    cells = _gates(table, claims)
    if not cells:
        told = _clipping(table, claims)
        return Answer(told, "clipping") if told else None
    return Answer(both(cells, _history(table, claims)), "gates")


def _gates(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = table[table["part"] == "gates"]
    if rows.empty:
        return ""
    far = int(rows["steps"].max())
    counts = rows[rows["steps"] == far].groupby("cell")["solved"].agg(solved="sum", seeds="size")
    order = counts.assign(share=counts["solved"] / counts["seeds"]).sort_values("share", ascending=False, kind="stable")
    of_cells: Any = order.itertuples()
    told = [f"{CELLS[row.Index][0]} {row.solved:g} of {row.seeds:g}" for row in of_cells]
    best, last = order.iloc[0], order.iloc[-1]
    if best["solved"] == 0:
        return f"No cell learns what lies {far} steps back: {', '.join(told)} trainings."
    if best["share"] == last["share"]:
        return f"All cells learn what lies {far} steps back equally often: {', '.join(told)} trainings."
    name = CELLS[str(order.index[0])][0]
    return f"{name} remembers longest: over {far} steps these trainings succeed: {', '.join(told)}."


def _clipping(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = table[table["part"] == "clipping"]
    if rows.empty:
        return ""
    about = summary(rows).sort_values("steps")
    wide = about.pivot_table(index="steps", columns="method", values="share")
    gap: Any = (wide.max(axis=1) - wide.min(axis=1)).dropna()
    at = int(gap.idxmax()) if len(gap) else int(about["steps"].max())
    here = about[about["steps"] == at].set_index("method")
    solved, seeds = here["solved"].to_dict(), here["seeds"].to_dict()
    told = [f"{METHODS[m][0]} {solved[m]} of {seeds[m]}" for m in METHODS if m in solved]
    if not here["solved"].any():
        return f"Over {at} steps no tanh network learns what came first: {', '.join(told)}."
    return f"Over {at} steps tanh networks learn what came first: {', '.join(told)}."


def _history(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """After how many kept tokens 90% of what the whole history gains is reached, at most over the models."""
    needed = [n for n in _needed(table) if not math.isnan(n)]
    if not needed:
        return ""
    low, high = min(needed), max(needed)
    words = f"last {high:g} word{'s' * (high != 1)}" if low == high else f"last {low:g} to {high:g} words"
    return f"A language model gets 90% of what its history brings from the {words}."


def _needed(table: "pd.DataFrame") -> list[float]:
    needed = []
    rows = table[(table["part"] == "history") & table["method"].isin(["dropped", "all"])]
    for _, of in rows.groupby(["task", "cell"], sort=False):
        nats = of.groupby("steps")["nats"].mean().sort_index()
        if not nats.map(math.isfinite).all():
            continue
        whole = nats.iloc[0] - nats.iloc[-1]
        reached = nats[nats.iloc[0] - nats >= 0.9 * whole].index if whole > 0 else []
        needed.append(float(reached[0]) if len(reached) else math.nan)
    return needed


def _influence(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = table[(table["part"] == "influence") & (table["nats"] > 0)]
    by = rows.groupby(["cell", "steps"])["nats"].mean().unstack()
    if rows.empty or 0 not in by.columns:
        return ""
    far = int(by.columns.max())
    left = (by[far] / by[0]).dropna()
    if left.empty:
        return ""
    told = ", ".join(f"{CELLS[str(cell)][0]} {value:.1g}" for cell, value in left.sort_values(ascending=False).items())
    return f"Another word {far} steps back changes the prediction by this part of what the last word changes: {told}."


FINDINGS = {"clipping": _clipping, "gates": _gates, "history": _history, "influence": _influence}
