"""A study's figures and how they are found. matplotlib is imported by figures only."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from recurrent_lm.studies.plotting.style import Size

NO_NUMBER = re.compile(r"\b(?:nan|inf)\b")


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
class Answer:
    """A study's question answered in one sentence, and the name of the plot that proves it; empty where none does."""

    sentence: str
    plot: str = ""


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


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """The study's answer, ``answer`` of its module ``answer``; None where it has none or the table does not decide it, as where
    one of its numbers is nan or infinite."""
    module = _module(table.attrs["study"], "answer")
    answered: Answer | None = module.answer(table, claims) if module else None
    return None if answered and NO_NUMBER.search(answered.sentence) else answered


def uncertain(claims: "pd.DataFrame") -> str:
    """Words behind an answer where claims that decide it are ambiguous and none holds or fails; empty otherwise."""
    verdicts = set(claims["verdict"]) - {"not measured"}
    return " (uncertain: too few seeds to decide)" if verdicts == {"ambiguous"} else ""


def finding(table: "pd.DataFrame", claims: "pd.DataFrame", plot: str) -> str:
    """What a plot proves, one short sentence with its number for a heading, as ``FINDINGS`` of the study's module ``answer``
    make it; empty where they have none or the number is missing."""
    function = getattr(_module(table.attrs["study"], "answer"), "FINDINGS", {}).get(plot)
    told = str(function(table, claims)) if function else ""
    return "" if NO_NUMBER.search(told) else told


def _given(table: "pd.DataFrame", function: str, otherwise: Any) -> Any:
    function_of_study = getattr(_figures(table.attrs["study"]), function, None)
    return function_of_study(table) if function_of_study else otherwise


def _figures(study: str) -> Any:
    """The module or folder ``figures`` of a study; None where it has none."""
    return _module(study, "figures")


def _module(study: str, name: str) -> Any:
    folder = f"recurrent_lm.studies.{study}"
    return import_module(f"{folder}.{name}") if find_spec(folder) and find_spec(f"{folder}.{name}") else None
