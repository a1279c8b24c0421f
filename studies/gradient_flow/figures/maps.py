"""The T x T map: the part of dL(t)/dW_h at step i, for every t and i."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm

from recurrent_lm.studies.gradient_flow.figures.selection import DRAWN, NAMES, last_epoch, need, pick, verdict_of
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import INK, RULE, Size, canvas, plain, printable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOWN = ("rnn-tanh", "lstm")
DECADES = 4  # of the colour scale, below the largest


def title(table: "pd.DataFrame") -> str:
    return plain("Which earlier word each loss teaches: the parts of dL(t)/dW_h")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A panel a cell, rows t, columns i, colour the norm on a log scale that both share; words beside the steps where there
    is room."""

    rows = last_epoch(pick(table, "map", "part"))
    rows = rows[rows["value"].between(*DRAWN) | (rows["value"] == 0)]
    need(rows[rows["value"] > 0], "map (part language)")
    cells = [cell for cell in SHOWN if cell in set(rows["cell"])] or list(dict.fromkeys(rows["cell"]))[:2]
    figure, panels = canvas(size, len(cells))
    largest = rows[rows["cell"].isin(cells)]["value"].max()
    norm = LogNorm(largest / 10**DECADES, largest, clip=True)
    for number, (axes, cell) in enumerate(zip(panels, cells, strict=True)):
        own = rows[rows["cell"] == cell].assign(i=lambda r: r["step"] - r["lag"])
        square = own.pivot(index="step", columns="i", values="value")
        edges = np.arange(len(square) + 1) + 0.5
        image = axes.pcolormesh(edges, edges, square, norm=norm, cmap="viridis", rasterized=True)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.grid(False)
        axes.set_title(NAMES[cell], color=INK)
        words = own[own["lag"] == 0].set_index("step")["token"].map(_shown)
        if not size.narrow and len(words) <= 24:
            places = list(words.index)
            axes.set_xticks(places, words, rotation=90, fontsize=11)
            axes.set_yticks(
                places, [f"{w} {t}" for t, w in words.items()] if not number else [str(t) for t in places], fontsize=11
            )
            axes.set_xlabel("word $x(i)$ that step $i$ reads", fontsize=15)
        else:
            axes.set_xlabel("step $i$")
        if size.narrow:
            axes.set_ylabel("loss $L(t)$")
        elif not number:
            axes.set_ylabel("loss $L(t)$, after word $x(t)$", fontsize=15)
        for spine in axes.spines.values():
            spine.set_edgecolor(RULE)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.9, extend="min", aspect=30)
    bar.set_label("‖ part of $dL(t)/dW_h$ at step $i$ ‖ (nats)", fontsize=None if size.narrow else 15)
    return figure


def _shown(word: object) -> str:
    """A word beside an axis; line ends are a token too."""
    return printable(str(word).replace("\n", "¶"))[:11] or "¶"


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = last_epoch(pick(table, "map", "part"))
    shares = []
    for cell in (cell for cell in SHOWN if cell in set(rows["cell"])):
        own = rows[(rows["cell"] == cell) & (rows["step"] - rows["lag"] > 1)]
        whole = own.groupby("step")["value"].sum()
        near = own[own["lag"] <= 2].groupby("step")["value"].sum()
        share = (near / whole).loc[lambda s: s.index > s.index.max() / 2].median()
        if share == share:  # parts that are all 0 have no shares
            shares.append(f"{NAMES[cell]}: {share:.0%}")
    return (
        f"Of the summed norms of a late loss, the nearest three steps hold (median) {', '.join(shares) or 'not measured'}. "
        "Nothing comes from steps after t, nor from i = 1, where h(0) = 0. Claim that the parts sum to autograd's gradient: "
        f"{verdict_of(claims, 'sums')}."
    )


PLOT = Plot(
    "map",
    title,
    draw,
    caption,
    "A row is a loss: the model has read the text up to word t and is asked for the next. A column is a step of the past. "
    "The colour says how much of the gradient of W_h that loss brings by way of that step (lecture, slides Backpropagation "
    "for RNNs and BPTT: dL(3)/dW_h at (3), (2), (1)); each mark of the scale is a factor. Along a row to the left one goes "
    "back in time. A bright diagonal that fades at once is a network that learns from the last few words only; long rows "
    "are long memories. All rows come from one backward pass, the losses stacked in the batch. The models' last layer, "
    "after training.",
    slides=("Backpropagation for RNNs", "BPTT"),
)
