"""Claims: sentences that a table's measurements decide, found by their keys."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import pandas as pd

from recurrent_lm.studies.engine.catalogue import module_of
from recurrent_lm.studies.engine.statistics import NO_INTERVAL, UNDEFINED

NOT = "not measured"
OPEN = ("fails", "ambiguous")  # verdicts that ask why


@dataclass(frozen=True)
class Claim:
    """One sentence and its verdict in one setting. Programs find it by its key; the text is for people.

    A key names the claim within its study and stays when the text is reworded; dots go from the general to the special
    (speed.triton). ``verdict`` is holds, fails, ambiguous or not measured; ``reason`` says why one that fails or is ambiguous
    likely does, and is empty where nothing is known.
    """

    key: str
    text: str
    source: str
    setting: str
    threshold: str
    measured: str
    verdict: str
    reason: str = ""


# of a table of claims, where the text is called claim
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
    """Claims as a table; only those that fail or are ambiguous keep a reason."""
    rows = [tuple(vars(replace(claim, reason=_reason(claim))).values()) for claim in claims]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def select(claims: "pd.DataFrame", key: str) -> "pd.DataFrame":
    """Choose claims by key: ``speed`` chooses speed and speed.triton.

    Args:
        claims: from ``verdicts``.
        key: a whole key, or its beginning up to a dot.

    Returns:
        The rows of ``claims`` with such a key.
    """
    return claims[(claims["key"] == key) | claims["key"].str.startswith(f"{key}.")]


def _reason(claim: Claim) -> str:
    """The reason that the number itself gives, being none or without an interval, or the study's."""
    if claim.verdict not in OPEN:
        return ""
    if claim.verdict == "ambiguous" and UNDEFINED in claim.measured:
        return "a value that is 0, negative or not finite has no ratio, and no place in a mean"
    if claim.verdict == "ambiguous" and NO_INTERVAL in claim.measured and not claim.reason:
        return "one seed, or values that are all alike, show no spread, and so nothing says what another seed would give"
    return claim.reason
