"""All claims with their verdicts, failing ones first, and the sentence that sums them up."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recurrent_lm.studies import Claim

if TYPE_CHECKING:
    import pandas as pd

NOT = "not measured"
ORDER = ("fails", "ambiguous", NOT, "holds")
SIGNS = {"fails": "✗", "ambiguous": "?", "not measured": "–", "holds": "✓"}  # beside the colour
PLURAL = {"fails": "fail", "ambiguous": "are ambiguous", "not measured": "were not measured", "holds": "hold"}
SINGULAR = {"fails": "fails", "ambiguous": "is ambiguous", "not measured": "was not measured", "holds": "holds"}
SPELT = 3  # claims in the summary sentence; of further ones it gives the number


@dataclass(frozen=True)
class Entry(Claim):
    """A claim in the ledger; ``page`` is the page of the table that decides it."""

    page: str = ""

    @property
    def sign(self) -> str:
        """The verdict as one character."""
        return SIGNS[self.verdict]

    @property
    def rank(self) -> int:
        """The verdict's place in the order, failing first."""
        return ORDER.index(self.verdict)


def ledger(claims: "pd.DataFrame", page: str = "") -> list[Entry]:
    """The claims from ``verdicts``, failing ones first, otherwise in the study's order."""
    return ordered([Entry(*row) for row in claims.assign(page=page).itertuples(index=False)])


def ordered(claims: list[Entry]) -> list[Entry]:
    """Sort failing claims first, keeping the order among equals."""
    return sorted(claims, key=lambda claim: claim.rank)


def united(claims: list[tuple[str, Entry]]) -> list[Entry]:
    """The claims of several tables, each with its study. What a table leaves unmeasured is left out where another of its study
    decides it, in that setting or for a part that the first has not ("all"), and stands once where none does."""
    known = _decided(claims)
    kept = []
    for study, c in claims:
        if c.verdict == NOT:
            if (study, c.key, c.setting) in known:
                continue
            known.add((study, c.key, c.setting))
        kept.append(c)
    return ordered(kept)


def decided_elsewhere(claims: list[Entry], others: list[Entry]) -> list[Entry]:
    """Claims that this table leaves unmeasured and another table of the study decides."""
    known = _decided([("", c) for c in others])
    return [c for c in claims if c.verdict == NOT and ("", c.key, c.setting) in known]


def _decided(claims: list[tuple[str, Entry]]) -> set[tuple[str, str, str]]:
    return {(study, c.key, setting) for study, c in claims if c.verdict != NOT for setting in (c.setting, "all")}


def answer(claims: list[Entry]) -> str:
    """One sentence on the claims: counts, and the most important claims with their measured values."""
    if not claims:
        return "The table decides no claim."
    groups = [(verdict, [c for c in claims if c.verdict == verdict]) for verdict in ORDER]
    groups = [(verdict, group) for verdict, group in groups if group]
    if len(groups) == 1:
        verdict, group = groups[0]
        start = "The one claim" if len(group) == 1 else "Both claims" if len(group) == 2 else f"All {len(group)} claims"
        return f"{start} {_verb(verdict, len(group))}: {_spelt(group)}."
    counts = [f"{len(group)} {_verb(verdict, len(group))}" for verdict, group in reversed(groups)]
    return f"Of {len(claims)} claims {', '.join(counts[:-1])} and {counts[-1]}: {_spelt(groups[0][1])}."


def counted(claims: list[Entry]) -> str:
    """How many claims have which verdict, failing ones first: 1 fails, 36 hold."""
    groups = [(verdict, sum(c.verdict == verdict for c in claims)) for verdict in ORDER]
    return ", ".join(f"{count} {_verb(verdict, count)}" for verdict, count in groups if count) or "none"


def _verb(verdict: str, count: int) -> str:
    return (SINGULAR if count == 1 else PLURAL)[verdict]


def _spelt(group: list[Entry]) -> str:
    """The first claims with measured values; a claim in several settings is named once, with their number."""
    measured: dict[str, list[str]] = {}
    for c in group:
        measured.setdefault(c.text, []).append("" if c.verdict == NOT else f" (measured {c.measured})")
    sentences = [
        claim + (values[0] if len(values) == 1 else f" (in {len(values)} settings)") for claim, values in measured.items()
    ]
    more = len(sentences) - SPELT
    return "; ".join(sentences[:SPELT]) + (f"; and {more} more" if more > 0 else "")
