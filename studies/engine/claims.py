"""Claims: sentences that a table's measurements decide, found by their keys."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd

from recurrent_lm.studies.engine.catalogue import module_of
from recurrent_lm.studies.engine.statistics import NO_INTERVAL, UNDEFINED

NOT = "not measured"
OPEN = ("fails", "ambiguous")  # verdicts that ask why


@dataclass(frozen=True)
class Claim:
    """One sentence and its verdict in one setting. Programs find it by its key; the text is for people.

    A key names the claim within its study and stays when the text is reworded; dots go from the general to the special
    (speed.triton). ``facts`` are the numbers and names in the texts, for captions: no program reads the texts themselves.

    Args:
        measured: empty where nothing was, ``UNDEFINED`` where no number can be formed; that decides the verdict.
        verdict: holds, fails, ambiguous or not measured; True, False and None are the first three.
        reason: why it likely fails or is ambiguous; empty where nothing is known.
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
            reason = "a value that is 0, negative or not finite has no ratio, and no place in a mean"
        elif verdict == "ambiguous" and NO_INTERVAL in measured and not reason:
            reason = "one seed, or values that are all alike, show no spread, and so nothing says what another seed would give"
        values = {"measured": measured, "verdict": verdict, "reason": reason if verdict in OPEN else ""}
        for name, value in values.items():
            object.__setattr__(self, name, value)


# of a table of claims, where the text is called claim
COLUMNS = tuple("claim" if field.name == "text" else field.name for field in fields(Claim))


def verdicts(table: "pd.DataFrame") -> "pd.DataFrame":
    """The claims that a table decides: one row each, columns ``COLUMNS``."""
    return frame(module_of(table.attrs["study"]).claims(table))


def frame(claims: Iterable[Claim]) -> "pd.DataFrame":
    """Claims as a table."""
    return pd.DataFrame([tuple(vars(claim).values()) for claim in claims], columns=list(COLUMNS))


def select(claims: "pd.DataFrame", key: str) -> "pd.DataFrame":
    """The rows with this key or one that it begins: ``speed`` finds speed and speed.triton."""
    return claims[(claims["key"] == key) | claims["key"].str.startswith(f"{key}.")]
