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


@pytest.mark.parametrize("study", CASES)
def test_a_page_is_built_whatever_words_claims_have(study, monkeypatch):
    table = table_of(study)
    before = verdicts(table)
    captions = {plot.name: caption(plot, table, before) for plot in page.plots(study)}
    frame = claims.frame
    monkeypatch.setattr(claims, "frame", lambda made: frame([replace(claim, text=f"q {claim.key} q") for claim in made]))
    monkeypatch.setattr(page, "inline", lambda *_: "")  # rendering takes its time
    monkeypatch.setattr(page, "headline", lambda *_: None)
    made = page.make(table, study, "t.parquet")
    after = verdicts(table)
    assert list(after["claim"]) == [f"q {key} q" for key in before["key"]]
    assert after.drop(columns="claim").equals(before.drop(columns="claim"))
    assert {shown.local for shown in made.figures} == set(captions)
    for shown in made.figures:
        words = captions[shown.local]
        told = shown.caption or shown.problem
        for key, text in zip(before["key"], before["claim"], strict=True):
            told = told.replace(f"q {key} q", text).replace(f"Q {key} q", text[0].upper() + text[1:])
        assert told == words
    html = render("page.html", page=made, figures="figures", formats=(".png",)).decode()
    assert all(f"q {key} q" in html for key in before["key"])


def test_keys_are_short_and_of_one_text_each_setting():
    for study in CASES:
        decided = verdicts(table_of(study))
        assert decided["key"].str.fullmatch(r"[\w.:\- ]{2,40}").all(), study
        assert not decided.duplicated(["key", "setting"]).any(), study
        assert (decided.groupby("key")["claim"].nunique() == 1).all(), study


def test_a_key_finds_its_own_and_those_below_it():
    rows = [claims.Claim(key, "text", "", "", "", "", "holds") for key in ("speed", "speed.a", "speed.a.b", "speedy")]
    assert list(claims.select(claims.frame(rows), "speed")["key"]) == ["speed", "speed.a", "speed.a.b"]
    assert list(claims.select(claims.frame(rows), "speed.a")["key"]) == ["speed.a", "speed.a.b"]
    assert claims.select(claims.frame([]), "speed").empty
