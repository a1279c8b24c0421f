"""Speed relative to torch.nn: whole training steps by size, recurrences by cell."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import LogLocator

from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import INK, MUTED, Size, canvas, legend, plain
from recurrent_lm.studies.throughput.comparison import AXES, summary
from recurrent_lm.studies.throughput.figures.shared import LOOKS, first, nothing, ours, shown, sizes, speed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DRAWN = (1e-3, 1e3)  # ratios beyond are no speeds but clocks that stood still
SPREAD = 0.28  # of a row's height, from the first variant to the last


def training(table: "pd.DataFrame") -> "pd.DataFrame":
    """Training steps of all sizes; ``row`` names each."""
    rows = _compared(shown(table, "training")).sort_values(["hidden", "vocabulary"])
    return rows.assign(row=[sizes(row).replace(", ", "\n") for _, row in rows.iterrows()])


def cells(table: "pd.DataFrame") -> "pd.DataFrame":
    """Recurrences of all cells and directions, at the first sizes; ``row`` names cell and direction."""
    rows, parameters = summary(table), table.attrs["parameters"]
    rows = rows[(rows["part"] == "recurrence") & (rows["seconds"] > 0)]
    for column in ("dtype", "mode", "cache"):
        rows = rows[rows[column] == first(rows, column, parameters[column])]
    for column, _, parameter in AXES["recurrence"]:
        rows = rows[rows[column] == parameters[parameter][0]]
    rows = _compared(rows)
    return rows.assign(row=[f"{cell}\n{direction.replace('+backward', ' + back')}" for cell, direction in
                            zip(rows["cell"], rows["direction"], strict=True)])  # fmt: skip


def _compared(rows: "pd.DataFrame") -> "pd.DataFrame":
    return rows[rows["speed"].between(*DRAWN) & (rows["variant"] != rows["against"])]


def draw_speeds(rows: "pd.DataFrame", size: Size) -> "Figure":
    """A row a setting, a mark a variant with its interval, on a log scale with torch.nn at 1."""

    figure, (axes,) = canvas(size)
    axes.axvline(1, color=INK, linewidth=2, label="torch.nn")
    names = list(dict.fromkeys(rows["row"]))
    variants = [name for name in LOOKS if name in set(rows["variant"])]
    for i, variant in enumerate(variants):
        mine = rows[rows["variant"] == variant]
        shift = 0.0 if len(variants) == 1 else SPREAD * (2 * i / (len(variants) - 1) - 1)
        heights = [names.index(name) + shift for name in mine["row"]]
        colour, marker, _ = LOOKS[variant]
        sure = mine["speed_low"] > 0
        reach = [(mine["speed"] - mine["speed_low"]).where(sure, 0.0), (mine["speed_high"] - mine["speed"]).where(sure, 0.0)]
        axes.errorbar(mine["speed"], heights, xerr=reach, fmt=marker, color=colour, linewidth=3, capsize=4, label=variant)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = min(low, 0.8), max(high, 1.25)  # equal variants fill no axis
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    if high < 12 * low:
        fine = (0.8, 0.9, 1, 1.1, 1.25) if high < 2 * low else (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10)
        axes.set_xticks([tick for tick in fine if low <= tick <= high])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    for between in range(1, len(names)):
        axes.axhline(between - 0.5, color=MUTED, linewidth=0.5)
    axes.set_xlabel("speed (times torch.nn's)")
    legend(figure)
    return figure


def _counts(rows: "pd.DataFrame") -> str:
    """How often each word was the comparison's."""
    return ", ".join(f"{count} {word}" for word, count in rows["compared"].value_counts().items())


def _caption(rows: "pd.DataFrame", subject: str, name: Callable[[Any], str]) -> str:
    mine = ours(rows["variant"])
    if not mine:
        return f"No {subject} of this project was timed beside torch.nn's."
    own = rows[rows["variant"] == mine].sort_values("speed")
    worst, best = own.iloc[0], own.iloc[-1]
    sentence = f"{mine}'s {subject}: {_counts(own)} of {len(own)} settings. At worst it is {speed(worst)}, for {name(worst)}"
    return f"{sentence}; at best {speed(best)}, for {name(best)}." if len(own) > 1 else f"{sentence}."


def _plot(name: str, rows_of: Any, empty: str, headline: Callable[[Any], str], caption: Any, understanding: str) -> Plot:
    def title(table: "pd.DataFrame") -> str:
        rows = rows_of(table)
        return plain(empty if rows.empty else headline(rows.iloc[0]))

    def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
        rows = rows_of(table)
        if rows.empty:
            raise nothing("comparison with torch.nn of this kind")
        return draw_speeds(rows, size)

    return Plot(name, title, draw, lambda table, claims: caption(rows_of(table)), understanding)


_READING = (
    " Right of the line at 1 is faster than torch.nn, left is slower; the same length means the same factor everywhere on the "
    "axis. The bars are 95% intervals of the median ratio: all take turns, and each ratio is of neighbours in time, so that "
    "what else the machine did hits both. A bar that crosses 1 decides nothing. What does not compute what float64 computes "
    "was not timed."
)

TRAINING = _plot(
    "training",
    training,
    "A training step beside torch.nn's",
    lambda row: f"A training step beside torch.nn's: LSTM, {row['dtype']}, B = {row['batch']}, T = {row['steps']}",
    lambda rows: _caption(rows, "training step", sizes),
    "A whole step of training a language model: embedding, recurrence, loss, gradients, clipping and update. The line at 1 is "
    "the loop that everybody writes, around nn.LSTM, nn.Linear and F.cross_entropy." + _READING,
)
CELLS = _plot(
    "cells",
    cells,
    "Recurrences beside torch.nn's",
    lambda row: f"Recurrences beside torch.nn's: {row['dtype']}, {sizes(row)}",
    lambda rows: _caption(rows, "recurrence", lambda row: f"{row['cell']}, {row['direction']}"),
    "One layer over a whole sequence, each cell forward alone and forward with all gradients. The loop over cells and "
    "kernels:eager are what the textbook's equations cost when every operation is a call of its own." + _READING,
)
