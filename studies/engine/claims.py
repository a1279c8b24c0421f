"""Claims: sentences that a table's measurements decide. Programs find them by key."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd

from recurrent_lm.studies.engine.catalogue import module_of
from recurrent_lm.studies.engine.statistics import NO_INTERVAL, UNDEFINED

NOT = "not measured"
OPEN = ("fails", "ambiguous")  # verdicts that need a reason


@dataclass(frozen=True)
class Claim:
    """One claim and its verdict in one setting. Programs find it by ``key``; people read ``text``.

    A key names the claim within its study and survives a rewording; dots lead from the general to the special (speed.triton).
    ``facts`` are the numbers and names in the texts, for captions: no program reads the texts themselves.

    Args:
        measured: empty if nothing was measured, ``UNDEFINED`` if a number does not exist; either decides the verdict.
        verdict: holds, fails, ambiguous or not measured; True, False and None are the first three.
        reason: the likely reason of a claim that fails or is ambiguous; empty if none is known.
    """

    key: str
    text: str
    source: str
    setting: str
    threshold: str
    measured: str = ""
    verdict: Any = None
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        measured, verdict, reason = self.measured or NOT, self.verdict, self.reason
        if not isinstance(verdict, str):
            verdict = {True: "holds", False: "fails", None: "ambiguous"}[verdict]
        if measured in (NOT, UNDEFINED):
            verdict = NOT if measured == NOT else "ambiguous"
        if verdict == "ambiguous" and UNDEFINED in measured:
            reason = "a ratio or mean does not exist where a value is 0, negative or not finite"
        elif verdict == "ambiguous" and NO_INTERVAL in measured and not reason:
            reason = "one seed, or equal values, show no spread, so the result for another seed is unknown"
        values = {"measured": measured, "verdict": verdict, "reason": reason if verdict in OPEN else ""}
        for name, value in values.items():
            object.__setattr__(self, name, value)


# of a table of claims; there the text is called claim
COLUMNS = tuple("claim" if field.name == "text" else field.name for field in fields(Claim))


def verdicts(table: "pd.DataFrame") -> "pd.DataFrame":
    """Decide a table's claims.

    Args:
        table: a study's table, from ``load`` or a study.

    Returns:
        One row for each claim, with the columns ``COLUMNS``.
    """
    return frame(module_of(table.attrs["study"]).claims(table))


def frame(claims: Iterable[Claim]) -> "pd.DataFrame":
    """Claims as a table with the columns ``COLUMNS``."""
    return pd.DataFrame([tuple(vars(claim).values()) for claim in claims], columns=list(COLUMNS))


def select(claims: "pd.DataFrame", key: str) -> "pd.DataFrame":
    """Choose claims by key: ``speed`` chooses speed and speed.triton.

    Args:
        claims: from ``verdicts``.
        key: a whole key, or its beginning up to a dot.

    Returns:
        The rows of ``claims`` with such a key.
    """
    return claims[(claims["key"] == key) | claims["key"].str.startswith(f"{key}.")]
