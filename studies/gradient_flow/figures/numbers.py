"""The numbers of gradient_flow for a quick answer: random tanh networks by scale, language models by cell."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.statistics import exp
from recurrent_lm.studies.gradient_flow.figures.selection import NAMES, last_epoch, pick
from recurrent_lm.studies.plotting.plots import Listing

if TYPE_CHECKING:
    import pandas as pd


def listings(table: "pd.DataFrame") -> list[Listing]:
    return [_models(table), _networks(table)]


def _models(table: "pd.DataFrame") -> Listing:
    """Factor per step back, credit horizon and cancellation ratio, before and after training."""
    rows = pick(table, "language")
    rows = rows[rows["layer"] == rows["layer"].max()]
    both = [
        seen.groupby(["cell", "quantity"], sort=False)["value"].median()
        for seen in (rows[rows["epoch"] == 0], last_epoch(rows))
    ]
    lines = []
    for cell in dict.fromkeys(rows["cell"]):
        before, after = (values.get(cell, None) for values in both)
        if before is None or after is None or not {"slope", "horizon", "cancellation"} <= set(after.index) & set(before.index):
            continue
        factor = [f"{exp(x['slope']):.3f}" for x in (before, after)]
        reach = [f"{x['horizon']:g}" for x in (before, after)]
        cancel = [f"{x['cancellation']:.2f}" for x in (before, after)]
        lines.append([NAMES[cell], *factor, *reach, *cancel])
    columns = ["factor per step back, before training", "after", "credit horizon (words), before", "after"]
    columns += ["cancellation ratio, before", "after"]
    return Listing("Language models, last layer: medians over speakers and seeds", ["cell", *columns], lines)


def _networks(table: "pd.DataFrame") -> Listing:
    """Each g of the random tanh networks: what theory says, and what was measured."""
    rows = pick(table, "curves", cell="rnn-tanh")
    middles = rows.groupby(["scale", "quantity"])["value"].median().unstack()
    wanted = ["log_radius", "log_singular", "half_log_chi", "exponent", "slope"]
    if not set(wanted) <= set(middles.columns):
        return Listing("", [], [])
    lines = [
        [f"{scale:g}", f"{exp(at['log_radius']):.2f}", f"{exp(at['log_singular']):.2f}"]
        + [f"{at[name]:+.3f}" for name in wanted[2:]]
        + ["explodes" if at["slope"] > 0 else "vanishes"]
        for scale, at in middles[wanted].dropna().iterrows()
    ]
    columns = [
        "g",
        "spectral radius",
        "largest singular value",
        "log(chi)/2",
        "Lyapunov exponent",
        "slope measured",
        "gradient",
    ]
    return Listing("Random tanh networks by the scale g of W_h: medians over seeds", columns, lines)
