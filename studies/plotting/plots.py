"""What a study's ``figures`` give, and how they are found. matplotlib is imported with them, and by nothing else."""

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
class Answer:
    """A study's question answered in one sentence, and the name of the plot that proves it; empty where none does."""

    sentence: str
    plot: str = ""


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
    """The plots of a study, ``PLOTS`` of its figures; a study without figures has none."""
    figures = _figures(study)
    return figures.PLOTS if figures else ()


def passages(table: "pd.DataFrame") -> list[Passage]:
    """The texts of a table, where the study's figures have a function ``passages`` that picks them."""
    return _given(table, "passages", [])


def listings(table: "pd.DataFrame") -> list[Listing]:
    """The short tables of a table, where the study's figures have a function ``listings``."""
    return [listing for listing in _given(table, "listings", []) if listing.rows]


def subject(table: "pd.DataFrame") -> str:
    """What was measured, as the table says it or the study's figures make out; empty where neither does."""
    return str(table.attrs.get("subject") or _given(table, "subject", ""))


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """The study's answer, ``answer`` of its module ``answer``; None where it has none or the table does not decide it, as where
    one of its numbers is nan or infinite."""
    module = _module(table.attrs["study"], "answer")
    found: Answer | None = module.answer(table, claims) if module else None
    return None if found and NO_NUMBER.search(found.sentence) else found


def uncertain(claims: "pd.DataFrame") -> str:
    """Words behind an answer where claims that decide it are ambiguous and none holds or fails; empty otherwise."""
    verdicts = set(claims["verdict"]) - {"not measured"}
    return " (uncertain: too few seeds to decide)" if verdicts == {"ambiguous"} else ""


def finding(table: "pd.DataFrame", claims: "pd.DataFrame", plot: str) -> str:
    """What a plot proves, one short sentence with its number for a heading, as ``FINDINGS`` of the study's module ``answer``
    make it; empty where they have none or the number is missing."""
    found = getattr(_module(table.attrs["study"], "answer"), "FINDINGS", {}).get(plot)
    told = str(found(table, claims)) if found else ""
    return "" if NO_NUMBER.search(told) else told


def _given(table: "pd.DataFrame", function: str, otherwise: Any) -> Any:
    found = getattr(_figures(table.attrs["study"]), function, None)
    return found(table) if found else otherwise


def _figures(study: str) -> Any:
    """The module or folder ``figures`` of a study; None where it has none."""
    return _module(study, "figures")


def _module(study: str, name: str) -> Any:
    folder = f"recurrent_lm.studies.{study}"
    return import_module(f"{folder}.{name}") if find_spec(folder) and find_spec(f"{folder}.{name}") else None
