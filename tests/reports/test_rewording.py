"""The words of a claim are for people: other words change no caption, no reason and no verdict."""

from dataclasses import replace

import pytest
from small_tables import CASES, table_of

from recurrent_lm.reports import page
from recurrent_lm.reports.render import render
from recurrent_lm.studies import InputError, verdicts
from recurrent_lm.studies.engine import claims


def caption(plot, table, decided):
    try:
        return plot.caption(table, decided)
    except InputError as error:
        return str(error)


WORDS = ("text", "setting", "threshold", "measured", "reason")


def told(claim, name):
    return getattr(claim, name) not in ("", claims.NOT)


def reworded(made):
    """The claims with other words in each of their texts; what was not measured stays so."""
    return [
        replace(claim, **{name: f"q {name} {claim.key if name == 'text' else i} q" for name in WORDS if told(claim, name)})
        for i, claim in enumerate(made)
    ]


@pytest.mark.parametrize("study", CASES)
def test_a_page_is_built_whatever_words_claims_have(study, monkeypatch):
    table = table_of(study)
    before = verdicts(table)
    captions = {plot.name: caption(plot, table, before) for plot in page.plots(study)}
    answered = page.answer(table, before)
    frame = claims.frame
    monkeypatch.setattr(claims, "frame", lambda result: frame(reworded(result)))
    monkeypatch.setattr(page, "inline", lambda *_: "")  # rendering takes its time
    monkeypatch.setattr(page, "headline", lambda *_: None)
    result = page.make(table, study, "t.parquet")
    after = verdicts(table)
    same = ["key", "source", "verdict"]
    assert after[same].equals(before[same])
    assert {shown.local for shown in result.figures} == set(captions)
    given = [(shown.caption or shown.problem, captions[shown.local]) for shown in result.figures]
    for said, words in [(result.answered, answered.sentence if answered else ""), *given]:
        for name in ("claim", *WORDS[1:]):
            for new, old in zip(after[name], before[name], strict=True):
                said = said.replace(new, old).replace(new[:1].upper() + new[1:], old[:1].upper() + old[1:])
        assert said == words
    html = render("page.html", page=result, figures="figures", formats=(".png",)).decode()
    assert all(text in html for text in after["claim"])


def test_keys_are_short_and_of_one_text_each_setting():
    for study in CASES:
        decided = verdicts(table_of(study))
        assert decided["key"].str.fullmatch(r"[\w.:\- ]{2,40}").all(), study
        assert not decided.duplicated(["key", "setting"]).any(), study
        assert (decided.groupby("key")["claim"].nunique() == 1).all(), study


def test_a_key_finds_its_own_and_those_below_it():
    rows = [claims.Claim(key, "text", "", "", "", "m", "holds") for key in ("speed", "speed.a", "speed.a.b", "speedy")]
    assert list(claims.select(claims.frame(rows), "speed")["key"]) == ["speed", "speed.a", "speed.a.b"]
    assert list(claims.select(claims.frame(rows), "speed.a")["key"]) == ["speed.a", "speed.a.b"]
    assert claims.select(claims.frame([]), "speed").empty
