"""From a study's table to what people see: a figure, its caption, and the same in a terminal."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from studies import InputError, load, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DRAWN = ("gradient_lag",)


@dataclass(frozen=True)
class Figure:
    """A drawing, the sentence that states what it shows, and lines for a terminal."""

    drawing: "Drawing"
    caption: str
    lines: list[str]


def figure(table_path: Path) -> Figure:
    """The figure of a stored table. The caption is made from the table and its verdicts, so that they cannot disagree.

    Raises:
        InputError: when there is no such table, or its study has no figure.
    """
    table = load(table_path)
    name = table.attrs["study"]
    if name not in DRAWN:
        raise InputError(f"the study {name} has no figure; studies show {table_path} prints its claims")
    module = import_module(f"reports.figures.{name}")
    return Figure(module.draw(table), module.caption(table, verdicts(table)), module.lines(table))
