"""Changes between two tables of one study: claims then and now, and other differences."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recurrent_lm.reports.ledger import ORDER, Entry
from recurrent_lm.reports.values import cell, joined
from recurrent_lm.studies import changes

if TYPE_CHECKING:
    import pandas as pd

PROGRAM = ("commit", "sources", "version", "dirty")  # the recorded fields that identify the program
TYPED = ("command",)
UNKNOWN = "not recorded"  # by an older program, so it may or may not have been the same
WORDS = {"fails": "fails", "ambiguous": "is ambiguous", "not measured": "is not measured", "holds": "holds"}
BEFORE = {"fails": "failed", "ambiguous": "was ambiguous", "not measured": "was not measured", "holds": "held"}
SPELT = 3  # changes in the summary sentence at most
SHORT = 80  # longer measured values are left out of the summary sentence
STEPS = ("changed", "gone", "new", "as before")  # in the order of the page


@dataclass(frozen=True)
class Change:
    """A claim ``then`` and ``now``; None where it was not made."""

    then: Entry | None
    now: Entry | None

    @property
    def claim(self) -> Entry:
        """The claim, as it is made now where it is."""
        claim = self.now or self.then
        assert claim
        return claim

    @property
    def kind(self) -> str:
        """One of ``STEPS``."""
        if self.then and self.now:
            return "as before" if self.then.verdict == self.now.verdict else "changed"
        return "new" if self.now else "gone"

    @property
    def rank(self) -> int:
        """Changed claims first, failing ones first within each kind."""
        return STEPS.index(self.kind) * len(ORDER) + self.claim.rank

    @property
    def words(self) -> str:
        """The change in words, such as "fails now"."""
        if self.kind != "changed":
            return self.kind
        return f"{WORDS[self.claim.verdict]} now"


@dataclass(frozen=True)
class Since:
    """A page's comparison with an older table of its study."""

    source: str  # the older table's file
    claims: list[Change]
    conditions: list[tuple[str, str, str]]  # what was not the same: its name, then and now
    remarks: list[str]
    columns: list[str] = field(default_factory=list)  # of what was measured again
    rows: list[list[str]] = field(default_factory=list)
    counts: str = ""  # what the rows come to

    @property
    def moved(self) -> list[Change]:
        """The claims that changed, appeared or disappeared."""
        return [c for c in self.claims if c.kind != "as before"]

    @property
    def answer(self) -> str:
        """One sentence on the changes."""
        count = Counter(c.kind for c in self.claims)
        if not self.claims:
            return "Neither table decides a claim."
        if not self.moved:
            return (
                f"No verdict changed: {count['as before']} {'claim is' if count['as before'] == 1 else 'claims are'} as before."
            )
        parts = [f"{count[kind]} {'are' if count[kind] > 1 else 'is'} {kind}" for kind in STEPS[1:] if count[kind]]
        if count["changed"]:
            parts.insert(0, f"{count['changed']} changed")
        told = list(_told([c for c in self.moved if c.kind == "changed"]))
        more = [f"and {len(told) - SPELT} more"] if len(told) > SPELT else []
        end = f": {'; '.join(told[:SPELT] + more)}" if told else ""
        return f"Of {len(self.claims)} claims {', '.join(parts[:-1]) + ' and ' if parts[1:] else ''}{parts[-1]}{end}."


def since(table: "pd.DataFrame", older: "pd.DataFrame", now: list[Entry], then: list[Entry], source: str) -> Since:
    """Compare a table and its claims ``now`` with an older one, from the file ``source``, and its claims ``then``."""
    claims = sorted(pairs(then, now), key=lambda change: change.rank)
    known = conditions(table, older)
    differ = {name for name, *sides in known if UNKNOWN not in sides}
    same_machine = not any(name.startswith("machine ") for name in differ)
    compared = changes(table, older)
    timed = compared.attrs["of"] == "seconds"
    remarks = list(_remarks(table, older, differ, same_machine, timed))
    if compared.empty or (timed and not same_machine):
        return Since(source, claims, known, remarks)
    counts = Counter(compared["change"])
    words = ", ".join(f"{count:,} {word}" for word, count in counts.most_common())
    subject = "Times" if timed else f"Values of {compared.attrs['of']}".replace("_", " ")
    rows = [[cell(value) for value in row] for row in compared.astype(object).itertuples(index=False)]
    counted = f"{subject} that both tables hold, {len(compared):,} in all, compared by medians: {words}."
    return Since(source, claims, known, remarks, [str(c) for c in compared.columns], rows, counted)


def pairs(then: list[Entry], now: list[Entry]) -> list[Change]:
    """Each claim of either side once: with its like in the same setting, else with the only one left of that key."""
    left, changes_ = list(then), list[Change]()
    rest: list[Entry] = []
    for claim in now:
        same = next((c for c in left if (c.key, c.setting) == (claim.key, claim.setting)), None)
        if same:
            left.remove(same)
            changes_.append(Change(same, claim))
        else:
            rest.append(claim)
    alone = Counter(c.key for c in rest), Counter(c.key for c in left)
    for claim in rest:
        same = next((c for c in left if c.key == claim.key and alone[0][c.key] == alone[1][c.key] == 1), None)
        if same:
            left.remove(same)
        changes_.append(Change(same, claim))
    return changes_ + [Change(claim, None) for claim in left]


def conditions(table: "pd.DataFrame", older: "pd.DataFrame") -> list[tuple[str, str, str]]:
    """Differences in how the tables were made: a name, and its value then and now."""
    then, now = (dict(_facts(t)) for t in (older, table))
    names = [*now, *(name for name in then if name not in now)]
    differing = [(name, then.get(name, UNKNOWN), now.get(name, UNKNOWN)) for name in names if then.get(name) != now.get(name)]
    return [known for known in differing if set(known[1:]) != {UNKNOWN, "none"}]


def _facts(table: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    about = table.attrs
    for name in ("subject", "preset"):
        yield name, joined(about.get(name))
    for name, value in about["parameters"].items():
        yield f"parameter {name}", joined(value)
    for name, value in about["machine"].items():
        if name in TYPED:
            continue
        if isinstance(value, dict):
            yield from ((f"version of {key}", joined(v)) for key, v in value.items())
        elif name in ("python", "torch"):
            yield f"version of {name}", joined(value)
        else:
            yield f"program {name}" if name in PROGRAM else f"machine {name}", joined(value)


def _remarks(table: "pd.DataFrame", older: "pd.DataFrame", names: set[str], same_machine: bool, timed: bool) -> Iterator[str]:
    if not names and table.equals(older):
        yield "Both tables hold the same."
        return
    if not same_machine:
        end = (
            "times of the two say nothing about the program, and are not compared" if timed else "that alone can change results"
        )
        yield f"Measured on another machine: {end}."
    if parameters := [name.removeprefix("parameter ") for name in names if name.startswith("parameter ")]:
        yield f"Measured with other parameters ({', '.join(sorted(parameters))}): what changed may be their doing."
    if any(name.startswith("version ") for name in names):
        yield "Measured with other versions of what the program rests on."
    if "program sources" not in names and "sources" in older.attrs["machine"]:
        if "program commit" in names:
            yield "Other commits measured the two, but the sources that measuring uses were the same."
        else:
            yield "The same program measured both."


def _told(moved: list[Change]) -> Iterator[str]:
    """The change of each claim, with its measured value where that is one setting's and short."""
    groups: dict[str, list[Change]] = {}
    for change in moved:
        assert change.then
        groups.setdefault(f"{change.claim.text} {change.words}, {BEFORE[change.then.verdict]}", []).append(change)
    for words, (first, *others) in groups.items():
        assert first.then
        measured = f" (measured {first.then.measured}, now {first.claim.measured})"
        yield words + (f" in {1 + len(others)} settings" if others else measured if len(measured) <= SHORT else "")
