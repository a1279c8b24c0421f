"""Draws a study's table as one figure with words."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recurrent_lm.studies import WIDE, InputError, headline, load, plots, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Figure:
    """A drawing, the sentence that states what it shows, and lines for a terminal."""

    drawing: "Drawing"
    caption: str
    lines: list[str]


def figure(table_path: Path, name: str = "") -> Figure:
    """Draw one figure of a stored table.

    Args:
        table_path: a table from a study.
        name: which of the study's figures; the first if left out.

    Returns:
        The drawing, its caption, and lines for a terminal.

    Raises:
        InputError: if there is no such table or figure.
    """
    table = load(table_path)
    study = table.attrs["study"]
    figures = {plot.name: plot for plot in plots(study)}
    if not figures:
        raise InputError(f"the study {study} has no figure; studies show {table_path} prints its claims")
    if name and name not in figures:
        raise InputError(f"the study {study} has no figure {name!r}; it has {', '.join(figures)}")
    plot = figures[name or next(iter(figures))]
    claims = verdicts(table)
    drawing = plot.draw(table, claims, WIDE)
    headline(drawing, plot.title(table))
    return Figure(drawing, plot.caption(table, claims), plot.lines(table))
