"""From a study's table to drawings with words: what a module of ``reports.figures`` gives, and how it is found."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurrent_lm.reports.figures.style import WIDE, Size, headline
from recurrent_lm.studies import InputError, load, verdicts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Plot:
    """One way to draw a study's tables, and the words that belong to it.

    ``draw`` makes a figure of a size from a table and its claims; it raises ``InputError`` where a table has nothing to draw.
    ``title`` says what is shown, ``caption`` what is found, the weightiest in its first sentence: it is made from table and
    claims, so that they cannot disagree. ``understanding`` explains to a newcomer how to read the plot. ``lines`` are the same
    for a terminal. ``slides`` are the lecture's that it follows (``reports.lecture``), ``papers`` the papers. ``joined`` makes
    one table of a study's several where the plot shows them together.
    """

    name: str
    title: "Callable[[pd.DataFrame], str]"
    draw: "Callable[[pd.DataFrame, pd.DataFrame, Size], Drawing]"
    caption: "Callable[[pd.DataFrame, pd.DataFrame], str]"
    understanding: str
    lines: "Callable[[pd.DataFrame], list[str]]" = lambda table: []
    slides: tuple[str, ...] = ()
    papers: str = ""
    joined: "Callable[[list[pd.DataFrame]], pd.DataFrame] | None" = None


@dataclass(frozen=True)
class Passage:
    """A text that belongs to a study's table, such as what a model wrote, under a title that says where it comes from."""

    title: str
    text: str


@dataclass(frozen=True)
class Listing:
    """A short table of numbers for a quick answer: its title, columns, and rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    @property
    def numeric(self) -> list[bool]:
        """By column, whether its values begin with a number; what is missing is no value."""
        return [all(not v or v.lstrip("+-")[:1].isdigit() for v in values) for values in zip(*self.rows, strict=True)]


@dataclass(frozen=True)
class Figure:
    """A drawing, the sentence that states what it shows, and lines for a terminal."""

    drawing: "Drawing"
    caption: str
    lines: list[str]


def plots(study: str) -> tuple[Plot, ...]:
    """The plots of a study; a study without a module in ``reports.figures`` has none."""
    name = f"recurrent_lm.reports.figures.{study}"
    return import_module(name).PLOTS if find_spec(name) else ()


def passages(table: "pd.DataFrame") -> list[Passage]:
    """The texts of a table, where its module in ``reports.figures`` has a function ``passages`` that picks them."""
    return _given(table, "passages", [])


def listings(table: "pd.DataFrame") -> list[Listing]:
    """The short tables of a table, where its module in ``reports.figures`` has a function ``listings``."""
    return [listing for listing in _given(table, "listings", []) if listing.rows]


def subject(table: "pd.DataFrame") -> str:
    """What was measured, as the table says it or its module in ``reports.figures`` makes out; empty where neither does."""
    return str(table.attrs.get("subject") or _given(table, "subject", ""))


def _given(table: "pd.DataFrame", function: str, otherwise: Any) -> Any:
    name = f"recurrent_lm.reports.figures.{table.attrs['study']}"
    found = getattr(import_module(name), function, None) if find_spec(name) else None
    return found(table) if found else otherwise


def figure(table_path: Path, name: str = "") -> Figure:
    """The figure of a stored table; ``name`` chooses among several, the first is taken if it is left out.

    Raises:
        InputError: when there is no such table, or its study has no such figure.
    """
    table = load(table_path)
    study = table.attrs["study"]
    found = {plot.name: plot for plot in plots(study)}
    if not found:
        raise InputError(f"the study {study} has no figure; studies show {table_path} prints its claims")
    if name and name not in found:
        raise InputError(f"the study {study} has no figure {name!r}; it has {', '.join(found)}")
    plot = found[name or next(iter(found))]
    claims = verdicts(table)
    drawing = plot.draw(table, claims, WIDE)
    headline(drawing, plot.title(table))
    return Figure(drawing, plot.caption(table, claims), plot.lines(table))
