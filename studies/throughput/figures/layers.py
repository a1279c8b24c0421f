"""One layer's recurrence: time against steps, hidden units and rows of the batch."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.statistics import ratio
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import Size, canvas, legend, plain, tall
from recurrent_lm.studies.throughput.figures.shared import (  # fmt: skip
    LOOKS,
    NAMES,
    along,
    base,
    curve,
    first,
    growth,
    log_values,
    nothing,
    ours,
    over_sizes,
    shown,
    sizes,
    speed,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PART = "recurrence"


def rows_of(table: "pd.DataFrame") -> "pd.DataFrame":
    """The recurrences of the first cell that was timed."""
    rows = shown(table, PART)
    return rows[rows["cell"] == first(rows, "cell", table.attrs["parameters"]["cell"])]


def title(table: "pd.DataFrame") -> str:
    """Cell, direction and dtype, on a GPU also how it is launched and whether the cache is cold."""
    rows = rows_of(table)
    if rows.empty:
        return "How the time of a recurrence grows"
    words = ["cell", "direction", "dtype", *(("mode", "cache") if table.attrs["parameters"]["device"] == "cuda" else ())]
    return plain(f"How the time of a recurrence grows: {', '.join(rows[word].iloc[0] for word in words)}")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Three panels, one size each, the others at their first value; a line a variant, with intervals.

    Raises:
        InputError: when no recurrence was timed.
    """
    rows = rows_of(table)
    if rows.empty:
        raise nothing("recurrence that was timed")
    figure, panels = canvas(tall(size, 3), panels=3)
    for axes, letter in zip(panels, ("T", "H", "B"), strict=True):
        column, line = along(table, rows, letter)
        for variant in (name for name in LOOKS if name in set(line["variant"])):
            curve(axes, line[line["variant"] == variant], column, "seconds", 1e3, bars=True)
        over_sizes(axes, line[column], NAMES[letter], 0.1 if size.narrow else 0.2)
        log_values(axes, "time of a call (ms)" if size.narrow or letter == "T" else "")
    low, high = (pick(axes.get_ylim()[i] for axes in panels) for i, pick in enumerate((min, max)))
    for axes in panels:  # heights of different panels can be compared
        axes.set_ylim(low, high)
        log_values(axes, axes.get_ylabel())
    legend(figure)
    return figure


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Ours beside torch.nn at the first sizes, the slowest, and the exponents of growth."""
    rows = rows_of(table)
    at = base(table, rows)
    mine = ours(at.index)
    if not mine:
        return "No recurrence of this project was timed."
    row = at.loc[mine]
    slowest = str(at["seconds"].idxmax())
    powers = growth(table, rows, mine)
    parts = [f"At {sizes(row)} {mine} takes {row['seconds'] * 1e3:.3g} ms, {speed(row)}"]
    if slowest != mine:
        times = ratio(at["seconds"].max(), at["seconds"][mine])
        parts.append(f"{slowest} takes longest" + ("" if times != times else f", {times:.2g} times as long as {mine}"))
    if powers:
        parts.append(f"the time of {mine} grows as {powers}, while the other sizes stay (95% intervals)")
    return f"{'; '.join(parts)}."


PLOT = Plot(
    "recurrence",
    title,
    draw,
    caption,
    "Each mark is the median time of a whole sequence through one layer, with its 95% interval where that is larger than the "
    "mark; in each panel one size changes and the other two stay. Both axes are logarithmic, so a straight line is a power "
    "law: a slope of 1 means twice the size, twice the time. Over T the slope should be near 1, since steps follow each other. "
    "Over B it is flatter as long as a step has not enough to do: until then more rows in the batch are nearly free.",
)
