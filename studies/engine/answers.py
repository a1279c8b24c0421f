"""What a study answers: its question in one sentence, and what each of its plots proves, both made from its table.

They are in the study's module ``answer``: a function ``answer(table, claims)``, and ``FINDINGS``, functions by a plot's name.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recurrent_lm.studies.engine.catalogue import part_of

if TYPE_CHECKING:
    import pandas as pd

NO_NUMBER = re.compile(r"\b(?:nan|inf)\b")


@dataclass(frozen=True)
class Answer:
    """A study's question answered in one sentence, and the name of the plot that proves it; empty where none does."""

    sentence: str
    plot: str = ""


def answer(table: "pd.DataFrame", claims: "pd.DataFrame") -> Answer | None:
    """The study's answer to its question, from ``answer`` of its module ``answer``.

    Args:
        table: a study's table.
        claims: from ``verdicts``.

    Returns:
        A sentence and the figure that proves it; None if the study has none, or one of its numbers is nan or infinite.
    """
    module = part_of(table.attrs["study"], "answer")
    found: Answer | None = module.answer(table, claims) if module else None
    return None if found and NO_NUMBER.search(found.sentence) else found


def both(first: str, second: str) -> str:
    """Two sentences as one, with a semicolon between; the first alone where the second is empty."""
    return f"{first.removesuffix('.')}; {second[:1].lower()}{second[1:]}" if second else first


def uncertain(claims: "pd.DataFrame") -> str:
    """Words behind an answer where claims that decide it are ambiguous and none holds or fails; empty otherwise."""
    verdicts = set(claims["verdict"]) - {"not measured"}
    return " (uncertain: too few seeds to decide)" if verdicts == {"ambiguous"} else ""


def finding(table: "pd.DataFrame", claims: "pd.DataFrame", plot: str) -> str:
    """The result of one figure, from ``FINDINGS`` of the study's module ``answer``.

    Args:
        table: a study's table.
        claims: from ``verdicts``.
        plot: the figure's name.

    Returns:
        One short sentence with its number; empty if there is none or the number is missing.
    """
    found = getattr(part_of(table.attrs["study"], "answer"), "FINDINGS", {}).get(plot)
    told = str(found(table, claims)) if found else ""
    return "" if NO_NUMBER.search(told) else told
