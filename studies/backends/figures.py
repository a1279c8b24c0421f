"""Each backend's training: validation curves on top of each other, and tokens a second."""

from typing import TYPE_CHECKING, Any

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import INK, PALETTE, Size, canvas, legend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CELLS = {"lstm": "LSTM", "gru": "GRU", "rnn-tanh": "tanh", "rnn-relu": "relu", "rnn-sigmoid": "sigmoid"}
MARKS = ("o", "s")  # of the backends beside the reference


def _names(table: "pd.DataFrame") -> list[str]:
    """The backends that were measured, the reference first."""
    return [name for name in table.attrs["parameters"]["backends"] if (table["backend"] == name).any()]


def _drawn(table: "pd.DataFrame", column: str) -> "pd.DataFrame":
    seen = table[(table[column] > 0) & (table[column] < float("inf"))]
    if seen.empty:
        raise InputError(f"there is nothing to draw: the table holds no {column}")
    return seen


def curves_title(table: "pd.DataFrame") -> str:
    """Who is compared."""
    return f"The same training by {' and by '.join(_names(table))}"


def draw_curves(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """A panel a corpus, a colour a cell: the reference as the band of its seeds and a line, others as open marks.

    Raises:
        InputError: when the table holds no validation loss.
    """
    seen = _drawn(table, "valid_loss")
    reference, *others = _names(seen)
    corpora = list(seen["corpus"].unique())
    figure, panels = canvas(size, panels=len(corpora))
    for axes, corpus in zip(panels, corpora, strict=True):
        of_corpus = seen[seen["corpus"] == corpus]
        for (cell, name), colour in zip(CELLS.items(), PALETTE, strict=False):
            mine = of_corpus[of_corpus["cell"] == cell]
            if mine.empty:
                continue
            by: Any = mine.groupby(["backend", "epoch"])["valid_loss"]
            low, middle, high = by.min()[reference], by.median(), by.max()[reference]
            axes.fill_between(low.index, low, high, color=colour, alpha=0.25, linewidth=0)
            axes.plot(middle[reference].index, middle[reference], color=colour, linestyle="-", label=name)
            for other, mark in zip(others, MARKS, strict=False):
                style = {"markerfacecolor": "none", "markeredgewidth": 2, "markersize": 11, "linestyle": "none"}
                axes.plot(middle[other].index, middle[other], mark, color=colour, **style)
        axes.set_title(corpus, color=INK)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    for other, mark in zip(others, MARKS, strict=False):
        panels[0].plot([], [], mark, color=INK, markerfacecolor="none", markeredgewidth=2, markersize=11, label=f"by {other}")
    for axes in panels if size.narrow else panels[:1]:
        axes.set_ylabel("loss (nats a token)" if size.narrow else "validation loss (nats a token)")
    legend(figure)
    return figure


def curves_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """The number of equal curves, and the pair that is furthest apart."""
    mine = select(claims, "curve")
    mine = mine[mine["verdict"] != "not measured"]
    if mine.empty:
        return "No two backends were measured."
    holds = int((mine["verdict"] == "holds").sum())
    return (
        f"The same curve within the spread of the seeds: {holds} of {len(mine)}. "
        + "; ".join(f"{row['setting']}: {row['measured']}" for _, row in mine[mine["verdict"] != "holds"].head(3).iterrows())
        + ("." if holds < len(mine) else f"The first: {mine.iloc[0]['setting']}, {mine.iloc[0]['measured']}.")
    )


def draw_speed(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Median tokens a second, a group a cell, a bar a backend, epochs after the first as dots.

    Raises:
        InputError: when the table holds no speed.
    """
    seen = _drawn(table, "tokens_per_second")
    later = seen[seen["epoch"] > 1]
    seen = later if len(later) else seen
    names = _names(seen)
    cells = [cell for cell in CELLS if (seen["cell"] == cell).any()]
    figure, (axes,) = canvas(size)
    height = 0.8 / len(names)
    for i, (name, colour) in enumerate(zip(names, PALETTE, strict=False)):
        for row, cell in enumerate(cells):
            speeds = seen[(seen["backend"] == name) & (seen["cell"] == cell)]["tokens_per_second"] / 1e3
            at = row + (i - (len(names) - 1) / 2) * height
            axes.barh(at, speeds.median(), height=height * 0.92, color=colour, alpha=0.75, label=name)
            axes.plot(speeds, [at] * len(speeds), ".", color=INK, markersize=6, alpha=0.6)
    axes.set_yticks(range(len(cells)), [CELLS[cell] for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("thousand tokens a second")
    legend(figure)
    return figure


def speed_caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """The ratios with their verdicts."""
    mine = select(claims, "speed")
    parts = [f"{row['facts']['cell']} {row['measured']} ({row['verdict']})" for _, row in mine.iterrows()]
    if not parts:
        return "No two backends were measured."
    words = " and ".join(dict.fromkeys(mine["claim"]))
    return f"{words[0].upper()}{words[1:]}: {'; '.join(parts)}."


PLOTS = (
    Plot(
        "curves",
        curves_title,
        draw_curves,
        curves_caption,
        "A line is the validation loss as the reference trains, median of the seeds, and the band around it what another seed "
        "makes of the same training. Open marks are another backend's medians from the same weights, batches and masks: they "
        "belong on the line. A mark outside the band would be a fault of a kernel, not chance (lecture, slide Training).",
        slides=("Training",),
    ),
    Plot(
        "speed",
        lambda table: f"Tokens a second of whole trainings by {' and by '.join(_names(table))}",
        draw_speed,
        speed_caption,
        "Each dot is an epoch of one training, the bar their median: loading, updates and the log, everything that a user "
        "waits for but the validation. The first epoch is left out, in which kernels are compiled.",
    ),
)
