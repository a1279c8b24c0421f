"""What is published says all that it should: every claim about gradients is measured, and what does not hold has a reason."""

import html
import re
from collections import Counter
from pathlib import Path

import pytest
from published_verdicts import VERDICTS

from recurrent_lm import reports
from recurrent_lm.reports.lecture import SLIDES
from recurrent_lm.reports.ledger import ledger, united
from recurrent_lm.studies import load, verdicts

PUBLISHED = Path(reports.__file__).parent / "published" / "cpu"
# each claim about gradients: its study and key
WANTED = {
    "gradient_flow": ("sums", "linear", "lyapunov", "chi", "bound", "radius", "gates_decay", "memory"),
    "clipping": ("cliff", "forks", "range", "norm_keeps", "value_turns", "example"),
    "long_range": ("clipping_raises", "control.20", "control.50", "control.100", "omega"),
}


def claims_of(*names):
    """(study, claim) of published tables."""
    tables = [(name, load(PUBLISHED / f"{name}.parquet")) for name in names]
    results = [(table.attrs["study"], claim) for name, table in tables for claim in ledger(verdicts(table), name)]
    kept = {id(claim) for claim in united(results)}
    return [(study, claim) for study, claim in results if id(claim) in kept]


@pytest.fixture(scope="module")
def claims():
    """Of all tables but throughput's, whose intervals take their time."""
    return claims_of(*(path.stem for path in sorted(PUBLISHED.glob("*.parquet")) if path.stem != "throughput"))


@pytest.mark.parametrize(("study", "key"), [(study, key) for study, keys in WANTED.items() for key in keys])
def test_every_claim_about_gradients_is_a_row_with_a_measured_value(study, key, claims):
    rows = [claim for of, claim in claims if (of, claim.key) == (study, key)]
    assert any(claim.verdict != "not measured" and any(c.isdigit() for c in claim.measured) for claim in rows)


def explained(claims):
    asked = [claim for _, claim in claims if claim.verdict in ("fails", "ambiguous")]
    assert asked and [claim.key for claim in asked if not claim.reason] == []
    assert not any(claim.reason for _, claim in claims if claim.verdict not in ("fails", "ambiguous"))


def test_what_fails_or_is_ambiguous_has_a_likely_reason_and_nothing_else_has(claims):
    explained(claims)


@pytest.mark.slow
def test_so_have_the_claims_on_times():
    explained(claims_of("throughput"))


def verdicts_of(name):
    """{key: {verdict: in how many settings}} of a published table."""
    claims = verdicts(load(PUBLISHED / f"{name}.parquet"))
    return {key: dict(Counter(group["verdict"])) for key, group in claims.groupby("key", sort=False)}


@pytest.mark.parametrize("name", [name for name in VERDICTS if name != "throughput"])
def test_a_published_table_gives_the_verdicts_that_were_found_right(name):
    """A number of one seed, or of two whose interval reaches across, is ambiguous; all else is as when it was published."""
    assert verdicts_of(name) == VERDICTS[name]


@pytest.mark.slow
def test_so_does_the_one_of_times():
    assert verdicts_of("throughput") == VERDICTS["throughput"]


def test_every_published_table_is_held_to_its_verdicts():
    assert set(VERDICTS) == {path.stem for path in PUBLISHED.glob("*.parquet")}


def test_reasons_say_what_the_tables_hold(claims):
    def of(study, key, setting=""):
        rows = [claim for of, claim in claims if (of, claim.key) == (study, key) and setting in claim.setting]
        return [claim.reason for claim in rows if claim.reason]

    assert (
        "3 of 3 trainings diverge; thresholds up to 1 times the mean norm hold it"
        in of("clipping", "range", "obama, learning rate 4")[0]
    )
    assert "the lowest threshold shortens 90% of the steps" in of("clipping", "range", "trump, learning rate 2")[0]
    assert (
        "smallest spectral radius (0.70) is off by 0.004, that with the largest (0.73) by 0.035"
        in of("gradient_flow", "chi")[0]
    )
    assert of("long_range", "gates_learn", "copy, lstm")[0].endswith(
        "at T = 40 tanh 0, lstm 1, of 5 seeds with 4,000 updates each"
    )
    assert "Fisher p = 0.44" in of("long_range", "control.50")[0]
    assert "obama 0.968, trump 1.039" in of("weight_tying", "tied.projection")[0]


PAGES = PUBLISHED / "pages"
LARGEST, WORDS = 800_000, 1_200  # bytes of a page; words of the index


def words(page):
    """The text of a page without its head, scripts, styles and drawings, as words."""
    text = re.sub(r"<(script|style|svg|head)\b.*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    return re.sub(r"<[^>]*>", " ", text).split()


def test_published_pages_are_small_and_the_index_short():
    pages = sorted(PAGES.glob("*.html"))
    assert {page.stem for page in pages} >= {"index", "claims", "gradients", *VERDICTS}
    assert {page.name: size for page in pages if (size := page.stat().st_size) > LARGEST} == {}
    assert len(words(PAGES / "index.html")) <= WORDS


def test_the_published_index_has_a_picture_for_every_slide_in_the_lectures_order():
    text = (PAGES / "index.html").read_text()
    assert [html.unescape(slide) for slide in re.findall(r"<h2>(.*?)</h2>\n<a class=.picture.", text)] == list(SLIDES)
    pictures = re.findall(r'<a class="picture" href="([^"]*)"><img src="data:image/svg', text)
    assert len(pictures) == len(set(pictures)) == len(SLIDES)  # no figure stands for two slides


# What the published pages must answer, in a page's answer or a heading: its page and words with their number.
ANSWERED = [
    ("gradient_flow", "The last word brings the largest part of the gradient of"),
    ("gradient_flow", "step 4, “their”, brings 10 times what step 1, “the”, brings"),
    ("gradient_flow", "A spectral radius above 1 does not mean explosion: in a tanh network with radius 1.25"),
    ("clipping", "At the cliff a plain step is thrown to w = 7.0, b = 2.2"),
    ("long_range", "GRU remembers longest: over 40 steps these trainings succeed: GRU 10 of 10, LSTM 4 of 10, tanh 0 of 10"),
]


@pytest.mark.parametrize(("name", "sentence"), ANSWERED, ids=[f"{name}-{sentence[:20]}" for name, sentence in ANSWERED])
def test_the_published_pages_answer_the_lectures_questions(name, sentence):
    folded = re.sub(r"<details.*?</details>", " ", (PAGES / f"{name}.html").read_text(), flags=re.DOTALL)
    told = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", folded)))
    assert sentence in told
