"""Language models on real text: norm against lag before and after training, and credit horizon and cancellation on the way."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.statistics import exp
from recurrent_lm.studies.gradient_flow.figures.selection import (
    DRAWN,
    NAMES,
    below,
    draw_band,
    grid,
    last_epoch,
    need,
    pick,
    verdict_of,
)
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import DASHES, PALETTE, Size, canvas, legend, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DEEPEST = 1e-14  # of what is drawn, against the largest: a sigmoid falls far below the others
BANDS = ("low", "median", "high")


def title(table: "pd.DataFrame") -> str:
    return plain("How far back a language model hears, before and after training")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A row a corpus; left at initialisation, right after training; a line a cell, the last layer, over all seeds."""
    rows = pick(table, "language")
    rows = rows[rows["quantity"].isin(BANDS)]
    need(rows, "language models")
    rows = rows[rows["layer"] == rows["layer"].max()]
    corpora, cells = (list(dict.fromkeys(rows[column])) for column in ("corpus", "cell"))
    figure, _ = canvas(size)
    panels = iter(grid(figure, min(len(corpora), 3), 2))
    for corpus in corpora[:3]:
        own = rows[rows["corpus"] == corpus]
        for when, seen in (("at initialisation", own[own["epoch"] == 0]), ("after training", last_epoch(own))):
            axes = next(panels)
            for cell in cells:
                number = list(NAMES).index(cell)
                style = {"color": PALETTE[number], "linestyle": DASHES[number]}
                draw_band(axes, seen[seen["cell"] == cell], NAMES[cell], **style, linewidth=1.6 if size.narrow else 2.6)
            axes.set_title(plain(f"{corpus[:24]}, {when}"), fontsize=9 if size.narrow else 16, parse_math=False)
            axes.set_yscale("log")
    figure.supylabel("‖ part of $dL(t)/dW_h$ at step $i$ ‖ (nats)", fontsize=11 if size.narrow else 17)
    top = float(rows[rows["quantity"] == "high"]["value"].max())
    if DRAWN[0] < top < DRAWN[1]:
        figure.axes[0].set_ylim(top * DEEPEST, top * 2)
    below(figure, "lag $l$ (words)" if size.narrow else "lag $l = t - i$ (words back from the loss)")
    legend(figure)
    return figure


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    final = _final(table, "slope")
    decay = ", ".join(f"{NAMES[str(cell)]} {exp(v):.3f}" for cell, v in final.items())
    return (
        f"After training the median norm is multiplied per step back by: {decay or 'not measured'}. Gates help (a slower fall "
        f"than tanh's): {verdict_of(claims, 'gates_help')}. Vanishing usual, exploding rarer: "
        f"{verdict_of(claims, 'vanishing')}.{_silent(table)}"
    )


def _silent(table: "pd.DataFrame") -> str:
    """Cells whose parts are small already at lag 0, because their whole gradient is near 0."""
    rows = last_epoch(pick(table, "language", "median", lag=0))
    near = rows[rows["layer"] == rows["layer"].max()].groupby("cell", sort=False)["value"].median()
    quiet = [f"{NAMES[str(cell)]} network's ({value:.1g})" for cell, value in near.items() if value < near.max() / 100]
    told = " and a ".join(quiet)
    return (
        f" At lag 0 already a {told} is nearly nothing: its W_h hears hardly anything of the loss, from any step."
        if quiet
        else ""
    )


def _final(table: "pd.DataFrame", quantity: str) -> "pd.Series[float]":
    rows = last_epoch(pick(table, "language", quantity))
    return rows[rows["layer"] == rows["layer"].max()].groupby("cell", sort=False)["value"].median()


def training_title(table: "pd.DataFrame") -> str:
    return plain("Credit horizon and cancellation while a language model trains")


def draw_training(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Against the epoch, a line a cell: the lags that hold 90% of the norms, and ||sum g_i|| / sum ||g_i||; the last layer,
    the median over corpora and seeds, and their range."""
    rows = pick(table, "language")
    rows = rows[rows["layer"] == rows["layer"].max()]
    need(rows[rows["quantity"] == "horizon"], "language models")
    figure, panels = canvas(size, 2)
    whole = "credit horizon (lags)" if size.narrow else "credit horizon (lags with 90% of the norms)"
    for axes, quantity, label in zip(panels, ("horizon", "cancellation"), (whole, "‖Σ $g_i$‖ / Σ ‖$g_i$‖"), strict=True):
        for cell, own in rows[rows["quantity"] == quantity].groupby("cell", sort=False):
            number = list(NAMES).index(str(cell))
            by_epoch = own.groupby("epoch")["value"]
            style = {"color": PALETTE[number], "linestyle": DASHES[number]}
            axes.plot(by_epoch.median(), label=NAMES[str(cell)], **style)
            axes.fill_between(
                by_epoch.min().index, by_epoch.min(), by_epoch.max(), alpha=0.15, color=PALETTE[number], linewidth=0
            )
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch (0: before training)")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=-0.04 * axes.get_ylim()[1])  # a line at 0 is seen, too
    panels[1].set_ylim(-0.02, 1.02)
    legend(figure)
    return figure


def training_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    rows = pick(table, "language", "horizon")
    start = rows[(rows["epoch"] == 0) & (rows["layer"] == rows["layer"].max())].groupby("cell")["value"].median()
    moved = ", ".join(f"{NAMES[str(c)]} {start.get(c, float('nan')):g} to {v:g}" for c, v in _final(table, "horizon").items())
    cancel = ", ".join(f"{NAMES[str(c)]} {v:.2f}" for c, v in _final(table, "cancellation").items())
    return (
        f"Credit horizon from initialisation to the end, in words: {moved or 'not measured'}. Cancellation ratio at the end: "
        f"{cancel or 'not measured'}."
    )


CURVES = Plot(
    "language",
    title,
    draw,
    caption,
    "The same on models that learn a president's speeches (lecture, slides Vanishing, exploding and Why it matters). Each "
    "line is a kind of network; the height is the part of dL(t)/dW_h that comes from l words back, median over positions of "
    "text that the models were not trained on, bands the middle half. Left before the first update, right after the last. A "
    "line that falls more slowly hears further back. The last layer; each model's own loss.",
    slides=("Vanishing, exploding", "Why it matters"),
)
TRAINING = Plot(
    "training",
    training_title,
    draw_training,
    training_caption,
    "Left, the credit horizon: the number of words back that hold 90% of the summed norms of the parts of dL(t)/dW_h. "
    "Right, the cancellation ratio: the norm of the whole gradient over the sum of the norms of its parts g_i. It is 1 "
    "where all steps pull W_h the same way, and near 0 where they undo each other. Lines are medians over corpora and "
    "seeds, bands their range.",
    slides=("BPTT", "Problem with the vanilla RNN"),
)
