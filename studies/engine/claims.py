"""Claims: sentences that a table's measurements decide. Programs find them by key."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import pandas as pd

from recurrent_lm.studies.engine.catalogue import module_of
from recurrent_lm.studies.engine.statistics import NO_INTERVAL, UNDEFINED

NOT = "not measured"
OPEN = ("fails", "ambiguous")  # verdicts that need a reason


@dataclass(frozen=True)
class Claim:
    """One claim and its verdict in one setting. Programs find it by ``key``; people read ``text``.

    A key names the claim within its study and survives a rewording; dots lead from the general to the special (speed.triton).
    ``verdict`` is holds, fails, ambiguous or not measured. ``reason`` gives the likely reason of a claim that fails or is
    ambiguous, and is empty if none is known.
    """

    key: str
    text: str
    source: str
    setting: str
    threshold: str
    measured: str
    verdict: str
    reason: str = ""


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
    """Claims as a table with the columns ``COLUMNS``; only those that fail or are ambiguous keep a reason."""
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
    """The claim's own reason, or the reason that follows from the number: no value, or no interval."""
    if claim.verdict not in OPEN:
        return ""
    if claim.verdict == "ambiguous" and UNDEFINED in claim.measured:
        return "a ratio or mean does not exist where a value is 0, negative or not finite"
    if claim.verdict == "ambiguous" and NO_INTERVAL in claim.measured and not claim.reason:
        return "one seed, or equal values, show no spread, so the result for another seed is unknown"
    return claim.reason
