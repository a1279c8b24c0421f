"""The guide from the lecture's slides, and what else a page says beside its claims and figures."""

import pytest
from report_cases import stored_clippings, stored_reaches

from recurrent_lm.reports import build
from recurrent_lm.reports.lecture import SLIDES, guide
from recurrent_lm.reports.values import first
from recurrent_lm.studies import STUDIES, Listing, load, plots

FOLLOW = ("gradient_flow", "gradient_lag", "clipping", "long_range", "weight_tying", "speeches")  # the lecture, in all figures


@pytest.mark.parametrize("study", STUDIES)
def test_every_figure_names_slides_that_there_are(study):
    for plot in plots(study):
        assert set(plot.slides) <= set(SLIDES), plot.name
        assert plot.slides or study not in FOLLOW, plot.name


def test_only_slides_that_a_command_shows_have_no_figure():
    shown = {slide for study in STUDIES for plot in plots(study) for slide in plot.slides}
    assert [slide for slide in SLIDES if slide not in shown and not SLIDES[slide]] == []


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Pages of two tables of long_range, of which the second has one T alone; their first figure only, which is not saved."""
    folder = tmp_path_factory.mktemp("two")
    stored_reaches(folder / "long_range.parquet")
    table = load(stored_reaches(folder / "long_range_50.parquet", seeds=5, solved={50: (0, 1, 5)}))
    assert set(table.loc[table["part"] == "clipping", "steps"]) == {50}
    with pytest.MonkeyPatch.context() as patch:
        for module in ("page", "site"):
            patch.setattr(f"recurrent_lm.reports.{module}.plots", lambda study: plots(study)[:1])
        patch.setattr("recurrent_lm.reports.site.save", lambda drawing, path: None)
        return build([folder], folder / "pages")


def test_figures_of_two_tables_stand_together_and_once_in_the_guide(two):
    lead, other = two.pages
    assert (lead.title, other.title) == ("Long range", f"Long range: {other.subject}")
    assert "T = 50" in other.subject and "T = 20, 30" in lead.subject
    whole, alone = (page.figures[0].caption for page in two.pages)
    assert "T = 20: " in whole and "T = 50: plain gradient 0 of 5, clipped 1 of 5" in whole and "T = 20: " not in alone
    rows = {row.slide: row for row in guide(two.pages)}
    names = [shown.name for _, shown in rows["Gradient clipping"].figures]
    assert names == ["long_range-clipping"]
    index = two.index.read_text()
    assert 'href="long_range.html#long_range-clipping"' in index and "lm next RUN" in index
    assert {row.slide for row in rows.values() if row.picture} == {"Gradient clipping", "Why it matters"}
    assert index.count('<img src="data:image/svg') == 2


def test_a_claim_that_another_table_decides_is_not_called_unmeasured(two):
    _, other = two.pages
    assert "of this study" in (two.index.parent / "long_range_50.html").read_text()
    assert not any(c.verdict == "not measured" and c.key == "clipping_raises" for c in other.claims)


def test_a_failing_claim_has_its_likely_reason_on_the_page(tmp_path, monkeypatch):
    for module in ("page", "site"):
        monkeypatch.setattr(f"recurrent_lm.reports.{module}.plots", lambda study: ())
    stored_clippings(tmp_path / "clipping.parquet")
    built = build([tmp_path / "clipping.parquet"], tmp_path / "pages")
    failing = [c for c in built.pages[0].claims if c.verdict == "fails"]
    assert failing and all(c.reason for c in failing if c.key == "temporal_uphill")
    assert not any(c.reason for c in built.pages[0].claims if c.verdict == "holds")
    for ending in (".html", ".md"):
        assert "those of a batch" in (tmp_path / "pages" / f"clipping{ending}").read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("At g = 1.2 it is 1.25. Then", "At g = 1.2 it is 1.25."),
        ("Pascanu et al. Found it. Then", "Pascanu et al. Found it."),
        ("alone", "alone"),
    ],
)
def test_the_first_sentence_of_a_caption(text, sentence):
    assert first(text) == sentence


def test_columns_of_numbers_are_known():
    listing = Listing("t", ["a", "b", "c", "d"], [["x", "1,000", "", "+0.1"], ["y", "", "95.9 (1.8)", "none"]])
    assert listing.numeric == [False, True, True, False]
