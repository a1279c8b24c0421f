"""Measured slopes of every kind of network against the scale of W_h, with the lines of theory on the same axes."""

from typing import TYPE_CHECKING, Any

from recurrent_lm.studies.gradient_flow.figures.beside_theory import THEORY
from recurrent_lm.studies.gradient_flow.figures.selection import NAMES, below, grid, need, pick
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import DASHES, INK, MUTED, PALETTE, Size, canvas, legend, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def title(table: "pd.DataFrame") -> str:
    return plain("Which networks vanish and which explode: slopes beside four lines of theory")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A panel a cell: slope against g, measured as dots (range of seeds as bars), theory as lines."""
    rows = pick(table, "curves")
    need(rows[rows["quantity"] == "slope"], "curves")
    cells = list(dict.fromkeys(rows["cell"]))
    figure, _ = canvas(size)
    columns = 2 if size.narrow else min(3, len(cells))
    panels = grid(figure, -(-len(cells) // columns), columns)
    middles = rows.groupby(["cell", "quantity", "scale"])["value"].agg(["min", "median", "max"])
    for axes, cell in zip(panels, cells, strict=False):
        for number, (name, label) in enumerate(THEORY.items()):
            if name not in set(rows.loc[rows["cell"] == cell, "quantity"]):
                continue
            line = middles.loc[cell, name]["median"]
            axes.plot(line.index, line, color=PALETTE[number], linestyle=DASHES[number], label=label)
        seen = middles.loc[cell, "slope"]
        reach = [seen["median"] - seen["min"], seen["max"] - seen["median"]]
        style: dict[str, Any] = {"fmt": "o", "color": INK, "markersize": 3.5 if size.narrow else 7, "zorder": 5}
        axes.errorbar(seen.index, seen["median"], yerr=reach, label="measured, range of seeds", **style)
        axes.axhline(0, color=MUTED, linewidth=1, linestyle="-")
        axes.set_title(NAMES[cell], fontsize=10 if size.narrow else 17)
    for axes in panels[len(cells) :]:
        axes.set_axis_off()
    figure.supylabel("slope (log per step; above 0 explodes)", fontsize=11 if size.narrow else 17)
    below(figure, "scale $g$ of $W_h$")
    legend(figure)
    return figure


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = pick(table, "curves")
    slopes = rows[rows["quantity"] == "slope"]
    if slopes.empty:
        return "The curves were not measured."
    keys = ["cell", "scale", "seed"]
    both = slopes.merge(rows[rows["quantity"] == "exponent"], on=keys, suffixes=("", "_theory"))
    gaps = (both["value"] - both["value_theory"]).abs().groupby(both["cell"], sort=False).max()
    told = ", ".join(f"{NAMES[str(cell)]} {gap:.3f}" for cell, gap in gaps.items())
    return (
        "The slope follows the Lyapunov exponent in every kind of network; the largest distance of any seed at any g is "
        f"{told or 'not measured'}."
    )


PLOT = Plot(
    "slopes",
    title,
    draw,
    caption,
    "The slopes of the figure above, all on the same axes: each dot is the median slope of the log norm over the lag, the bar "
    "the range of seeds; above the grey line the gradient explodes, below it vanishes (lecture, slides Why and Vanishing, "
    "exploding). For the linear network (identity) the spectral radius ρ decides, as the slide says. For tanh, relu and "
    "sigmoid it does not; the largest singular value, times the largest slope of the non-linearity (1, for the sigmoid 1/4), "
    "bounds them from above. The Lyapunov exponent, from QR factors of the same products of Jacobians along another stretch "
    "of states, is what they follow. ρ, the singular value and χ say nothing simple of an LSTM or a GRU, whose gates multiply.",
    slides=("Why", "Vanishing, exploding"),
    papers="Pascanu, Mikolov & Bengio 2013, section 2.1",
)
