"""What a study's ``figures`` give, and how they are found. matplotlib is imported with them, and by nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from recurrent_lm.studies.plotting.style import Size


@dataclass(frozen=True)
class Plot:
    """One way to draw a study's tables, and the words that belong to it.

    ``draw`` makes a figure of a size from a table and its claims; it raises ``InputError`` where a table has nothing to draw.
    ``title`` says what is shown, ``caption`` what is found, the weightiest in its first sentence: it is made from table and
    claims, so that they cannot disagree. ``understanding`` explains to a newcomer how to read the plot. ``lines`` are the same
    for a terminal. ``slides`` are the lecture's that it follows (``lecture`` of reports), ``papers`` the papers. ``joined``
    makes one table of a study's several where the plot shows them together.
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


def plots(study: str) -> tuple[Plot, ...]:
    """The figures that a study's pages show.

    Args:
        study: a name in ``STUDIES``.

    Returns:
        ``PLOTS`` of its figures; empty for a study without figures.
    """
    figures = _figures(study)
    return figures.PLOTS if figures else ()


def passages(table: "pd.DataFrame") -> list[Passage]:
    """Texts that belong to a table, such as what the models wrote.

    Args:
        table: a study's table.

    Returns:
        The passages that the study's figures choose; empty for studies without any.
    """
    return _given(table, "passages", [])


def listings(table: "pd.DataFrame") -> list[Listing]:
    """Short tables that a page shows before the figures.

    Args:
        table: a study's table.

    Returns:
        The listings that have rows.
    """
    return [listing for listing in _given(table, "listings", []) if listing.rows]


def subject(table: "pd.DataFrame") -> str:
    """Name what a table measured, such as corpus, tokens and model.

    Args:
        table: a study's table.

    Returns:
        The subject that is stored in the table, else the one that the study's figures derive; empty if there is none.
    """
    return str(table.attrs.get("subject") or _given(table, "subject", ""))


def _given(table: "pd.DataFrame", function: str, otherwise: Any) -> Any:
    function_of_study = getattr(_figures(table.attrs["study"]), function, None)
    return function_of_study(table) if function_of_study else otherwise


def _figures(study: str) -> Any:
    """The module or folder ``figures`` of a study; None where it has none."""
    folder = f"recurrent_lm.studies.{study}"
    return import_module(f"{folder}.figures") if find_spec(folder) and find_spec(f"{folder}.figures") else None
