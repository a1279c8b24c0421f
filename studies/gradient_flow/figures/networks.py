"""Random networks: norm against lag, a panel a cell, a line a scale of W_h."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from recurrent_lm.studies.gradient_flow.figures.selection import NAMES, below, draw_band, grid, need, pick
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import DASHES, PALETTE, Size, canvas, legend, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

LOW, HIGH = 1e-16, 1e16  # of the axis at most


def title(table: "pd.DataFrame") -> str:
    return plain("Vanishing and exploding: random networks whose W_h has the scale g")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Medians as lines, quartiles as bands, all panels on the same axes."""

    rows = pick(table, "curves")
    need(rows[(rows["quantity"] == "median") & (rows["value"] > 0) & (rows["value"] < float("inf"))], "curves")
    cells = list(dict.fromkeys(rows["cell"]))
    figure, _ = canvas(size)
    columns = 2 if size.narrow else min(3, len(cells))
    panels = grid(figure, -(-len(cells) // columns), columns)
    scales = sorted(rows["scale"].unique())
    for axes, cell in zip(panels, cells, strict=False):
        for number, scale in enumerate(scales):
            own = rows[(rows["cell"] == cell) & (rows["scale"] == scale)]
            style = {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number % len(DASHES)]}
            draw_band(axes, own[own["lag"] >= 0], f"g = {scale:g}", **style, linewidth=1.6 if size.narrow else 2.4)
        axes.set_title(NAMES[cell], fontsize=10 if size.narrow else 17)
    for axes in panels[len(cells) :]:
        axes.set_axis_off()
    seen = rows[(rows["quantity"] == "median") & (rows["value"] < float("inf"))]["value"]
    low, high = max(LOW, float(seen[seen > 0].min()) / 3), min(HIGH, max(float(seen.max()) * 3, 1e2))
    panels[0].set_yscale("log")
    panels[0].set_ylim(low, high)
    panels[0].yaxis.set_major_locator(_decades(np.log10(high / low)))
    panels[0].yaxis.set_minor_locator(_none())
    figure.supylabel("‖$dL(t)/dh(i)$‖ / ‖$dL(t)/dh(t)$‖", fontsize=11 if size.narrow else 17)
    below(figure, "lag $l = t - i$")
    legend(figure)
    return figure


def _decades(span: float) -> "Locator":
    return LogLocator(base=10.0 ** max(1, round(span / 7)), numticks=12)


def _none() -> "Locator":
    return NullLocator()


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    slopes = pick(table, "curves", "slope")
    parts = []
    for cell, own in slopes.groupby("cell", sort=False):
        by_scale = own.groupby("scale")["value"].median()
        growing = by_scale[by_scale > 0]
        says = (
            f"grows from g = {growing.index.min():g} on" if len(growing) else f"falls at every g up to {by_scale.index.max():g}"
        )
        parts.append(f"{NAMES[str(cell)]} {says}")
    return f"Median slope over the lag: {'; '.join(parts)}." if parts else "The curves were not measured."


PLOT = Plot(
    "lags",
    title,
    draw,
    caption,
    "What the lecture's slides Vanishing, exploding and Why say, measured. Each panel is a kind of network with random "
    "weights, each line a scale g of W_h (its entries have standard deviation $g/\\sqrt{n}$), and the height is what is left "
    "of the gradient l steps back, on a scale where each mark is a factor. Straight falling lines vanish exponentially, rising "
    "ones explode. Lines are medians over networks and inputs, bands the middle half. Of an LSTM the state is h and c "
    "together.",
    slides=("Vanishing, exploding",),
)
