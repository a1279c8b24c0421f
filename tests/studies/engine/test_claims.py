"""What a claim makes of its number: the verdict of one that is missing or cannot be formed, and who keeps a reason."""

import numpy as np
import pytest

from recurrent_lm.studies.engine.claims import COLUMNS, NOT, Claim, frame
from recurrent_lm.studies.engine.statistics import NO_INTERVAL, UNDEFINED

ABOUT = ("key", "text", "source", "setting", "threshold")


@pytest.mark.parametrize(
    ("measured", "verdict", "expected"),
    [
        ("1", True, "holds"),
        ("1", np.True_, "holds"),
        ("1", False, "fails"),
        ("1", np.False_, "fails"),
        ("1", None, "ambiguous"),
        ("1", "holds", "holds"),
        ("1", NOT, NOT),
        ("", True, NOT),
        ("", None, NOT),
        (NOT, "holds", NOT),
        (UNDEFINED, True, "ambiguous"),
        (UNDEFINED, "fails", "ambiguous"),
        (f"3 against 4; ratio {UNDEFINED}", "ambiguous", "ambiguous"),
    ],
)
def test_the_verdict_follows_the_number(measured, verdict, expected):
    claim = Claim(*ABOUT, measured, verdict)
    assert (claim.verdict, claim.measured) == (expected, measured or NOT)


def test_only_what_fails_or_is_ambiguous_keeps_a_reason():
    kept = {verdict: Claim(*ABOUT, "1", verdict, "why").reason for verdict in ("holds", "fails", "ambiguous", NOT)}
    assert kept == {"holds": "", "fails": "why", "ambiguous": "why", NOT: ""}
    undefined, alone = Claim(*ABOUT, UNDEFINED, None, "why").reason, Claim(*ABOUT, f"1.00 {NO_INTERVAL}").reason
    assert undefined not in ("", "why") and alone not in ("", undefined)
    assert Claim(*ABOUT, f"1.00 {NO_INTERVAL}", None, "why").reason == "why"


def test_a_table_of_claims_has_their_facts_and_compares_without_them():
    first, second = (Claim(*ABOUT, "1", True, facts={"factor": factor}) for factor in (0.5, float("nan")))
    assert first == second and hash(first) == hash(second)
    table = frame([first, second])
    assert list(table.columns) == list(COLUMNS) and table["facts"].iloc[0] == {"factor": 0.5}
    assert list(frame([]).columns) == list(COLUMNS)
