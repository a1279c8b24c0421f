"""Distance from the limits: microseconds a step beside the exchange alone, and the share of the measured peak."""

from typing import TYPE_CHECKING

from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import MUTED, Size, canvas, legend, plain, tall
from recurrent_lm.studies.throughput.figures.layers import rows_of
from recurrent_lm.studies.throughput.figures.shared import (  # fmt: skip
    LOOKS,
    NAMES,
    along,
    base,
    curve,
    log_values,
    nothing,
    ours,
    over_sizes,
    sizes,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def title(table: "pd.DataFrame") -> str:
    """Cell, direction and dtype."""
    rows = rows_of(table)
    if rows.empty:
        return "A step and its limits"
    return plain(f"A step and its limits: {', '.join(rows[word].iloc[0] for word in ('cell', 'direction', 'dtype'))}")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Left, microseconds a step against H, with the exchange's floor where it is known; right, the share of the peak.

    Raises:
        InputError: when the table holds no peak to compare with.
    """
    rows = rows_of(table)
    rows = rows[rows["of_product"] > 0]
    if rows.empty:
        raise nothing("recurrence beside a measured peak; the part peak of the study measures it")
    figure, (left, right) = canvas(tall(size, 2), panels=2)
    column, line = along(table, rows, "H")
    for variant in (name for name in LOOKS if name in set(line["variant"])):
        curve(left, line[line["variant"] == variant], column, "us_per_step")
        curve(right, line[line["variant"] == variant], column, "of_product", 100)
    floor = line[line["floor_us"] > 0].drop_duplicates(column).sort_values(column)
    if len(floor):
        left.plot(floor[column], floor["floor_us"], color=MUTED, linestyle=":", marker="", label="the exchange alone")
    for axes in (left, right):
        over_sizes(axes, line[column], NAMES["H"], 0.1)
    log_values(left, "time of a step (µs)")
    log_values(right, "share of the fastest product (%)")
    legend(figure)
    return figure


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    """Ours at the first sizes: the step, its share of the peak and of the floor."""
    at = base(table, rows_of(table))
    mine = ours(at.index)
    if not mine:
        return "No recurrence of this project was timed."
    row = at.loc[mine]
    parts = [f"At {sizes(row)} a step of {mine} takes {row['us_per_step']:.3g} µs"]
    if row["of_product"] > 0:
        parts.append(f"its arithmetic runs at {row['of_product']:.1%} of the fastest product measured on this machine")
    if row["floor_us"] > 0:
        share = f", {row['of_floor']:.0%} of it" if row["of_floor"] > 0 else ""
        parts.append(f"the exchange alone would take {row['floor_us']:.3g} µs{share}")
    return f"{'; '.join(parts)}."


PLOT = Plot(
    "limits",
    title,
    draw,
    caption,
    "A recurrence cannot go faster than its steps can follow each other. Left is the time of one step, all of a call's time "
    "divided by T. Where a GPU's exchange was measured, a dotted line shows what a step would take if programs only told each "
    "other their part of the state. Right is the arithmetic done in that time as a share of the fastest large product that was "
    "measured on the same machine, whose 100% no dependent computation of this size can reach; gradients and the input's "
    "product are counted.",
)
