"""A study's figures and how they are found. matplotlib is imported by figures only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recurrent_lm.studies.engine.catalogue import part_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from recurrent_lm.studies.plotting.style import Size


@dataclass(frozen=True)
class Plot:
    """One figure of a study's tables, with its texts.

    ``draw`` draws a table and its claims in a given size, and raises ``InputError`` if the table has nothing to draw. ``title``
    names the subject. ``caption`` states the result, the most important part in its first sentence; it is computed from table
    and claims, so that they cannot disagree. ``understanding`` tells a newcomer how to read the plot. ``lines`` say the same in
    a terminal. ``slides`` are the lecture's that it follows (``lecture`` of reports), ``papers`` the papers. ``joined``
    combines several tables of the study where the plot shows them together.
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
    """A text in a study's table, such as what a model wrote, with a title that says where it comes from."""

    title: str
    text: str


@dataclass(frozen=True)
class Listing:
    """A short table for a quick answer: title, columns, and rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether all its values begin with a number; missing values do not count."""
        return [all(not v or v.lstrip("+-")[:1].isdigit() for v in values) for values in zip(*self.rows, strict=True)]


def plots(study: str) -> tuple[Plot, ...]:
    """The figures that a study's pages show.

    Args:
        study: a name in ``STUDIES``.

    Returns:
        ``PLOTS`` of its figures; empty for a study without figures.
    """
    figures = part_of(study, "figures")
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
    function_of_study = getattr(part_of(table.attrs["study"], "figures"), function, None)
    return function_of_study(table) if function_of_study else otherwise
