import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_lm.reports.ledger import ORDER, Entry, answer, decided_elsewhere, ledger, united
from recurrent_lm.studies.engine.claims import Claim, frame


def claims(*rows):
    """Claims from (key and text, measured, verdict)."""
    return ledger(frame([Claim(c, c, "slide", "run", ">= 1", m, v) for c, m, v in rows]), "page")


def test_failing_rows_come_first_and_equals_keep_their_order():
    rows = [("a", "1", "holds"), ("b", "1", "not measured"), ("c", "1", "ambiguous"), ("d", "1", "fails"), ("e", "1", "fails")]
    result = claims(*rows)
    assert [claim.key for claim in result] == ["d", "e", "c", "b", "a"]
    assert [claim.sign for claim in result] == ["✗", "✗", "?", "–", "✓"]
    assert (
        result[0].page == "page"
        and result[0].threshold == ">= 1"
        and result[0].source == "slide"
        and result[0].setting == "run"
    )


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "The table decides no claim."),
        ([("a", "3", "holds")], "The one claim holds: a (measured 3)."),
        ([("a", "3", "fails"), ("b", "4", "fails")], "Both claims fail: a (measured 3); b (measured 4)."),
        ([(c, "", "not measured") for c in "abc"], "All 3 claims were not measured: a; b; c."),
        ([("a", "1", "holds"), ("b", "2", "fails")], "Of 2 claims 1 holds and 1 fails: b (measured 2)."),
        (
            [("a", "1", "holds"), ("b", "2", "ambiguous"), ("c", "9", "not measured"), ("d", "3", "holds")],
            "Of 4 claims 2 hold, 1 was not measured and 1 is ambiguous: b (measured 2).",
        ),
        ([("a", "1", "holds"), ("a", "2", "holds")], "Both claims hold: a (in 2 settings)."),
        (
            [(c, "1", "holds") for c in "abcde"] + [("a", "2", "holds")] * 4,
            "All 9 claims hold: a (in 5 settings); b (measured 1); c (measured 1); and 2 more.",
        ),
    ],
)
def test_the_answer_counts_and_names_the_weightiest(rows, sentence):
    assert answer(claims(*rows)) == sentence


def test_what_one_table_leaves_unmeasured_and_another_decides_stands_once():
    def claim(name, setting, verdict, page):
        return Entry(name, "text", "slide", setting, ">= 1", "1", verdict, page=page)

    first = [claim("a", "T = 20", "holds", "one"), claim("a", "T = 50", "not measured", "one"), claim("c", "x", "fails", "one")]
    second = [claim("a", "T = 20", "not measured", "two"), claim("a", "all", "not measured", "two")]
    third = [
        claim("a", "T = 50", "not measured", "two"),
        claim("c", "x", "holds", "two"),
        claim("c", "y", "not measured", "two"),
    ]
    result = united([("s", c) for c in first + second + third])
    assert [(c.key, c.setting, c.verdict, c.page) for c in result] == [
        ("c", "x", "fails", "one"),
        ("a", "T = 50", "not measured", "one"),
        ("c", "y", "not measured", "two"),
        ("a", "T = 20", "holds", "one"),
        ("c", "x", "holds", "two"),
    ]
    assert len(united([("s", c) for c in first] + [("other", c) for c in second])) == 5


def test_a_reason_comes_with_a_claim_that_is_open_and_with_no_other():
    rows = [Claim("a", "a", "s", "x", "> 1", "2", verdict, "because") for verdict in ("fails", "ambiguous", "holds")]
    assert [c.reason for c in ledger(frame(rows))] == ["because", "because", ""]
    assert claims(("a", "1", "fails"))[0].reason == ""


def test_what_another_page_decides_is_not_called_unmeasured():
    here = claims(("a", "1", "holds"), ("b", "", "not measured"), ("c", "", "not measured"))
    present = claims(("a", "", "not measured"), ("b", "2", "fails"))
    assert [c.key for c in decided_elsewhere(here, present)] == ["b"]
    assert [c.key for c in decided_elsewhere(present, here)] == ["a"]


@given(st.lists(st.sampled_from(ORDER), min_size=1, max_size=12))
@settings(deadline=None, max_examples=40)
def test_the_answer_is_about_the_worst_verdict(verdicts):
    """Whatever holds, a claim that fails is in the sentence, and only claims of the worst verdict are named."""
    rows = [(f"<{i}>", "1", verdict) for i, verdict in enumerate(verdicts)]
    worst = min(verdicts, key=ORDER.index)
    named = [i for i in range(len(rows)) if f"<{i}>" in answer(claims(*rows))]
    assert named == [i for i, verdict in enumerate(verdicts) if verdict == worst][:3]
