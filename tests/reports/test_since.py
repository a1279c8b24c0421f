"""What changed between two tables: claims, conditions, and which older table belongs to which page."""

import re
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_cases import EVIL, stored_costs, stored_norms, stored_reaches

from recurrent_lm.reports import build
from recurrent_lm.reports.cli import app
from recurrent_lm.reports.ledger import ORDER, Entry
from recurrent_lm.reports.since import Change, Since, conditions, pairs
from recurrent_lm.studies import load, run_app
from recurrent_lm.studies.engine.tables import sealed


def claim(name, verdict="holds", setting="s", measured="1"):
    return Entry(name, name, "slide", setting, ">= 1", measured, verdict)


def since(*changes):
    return Since("old/t.parquet", list(changes), [], [])


def test_claims_are_paired_by_key_and_setting_then_by_key_alone():
    then = [claim("a"), claim("b", setting="x"), claim("c", setting="1"), claim("c", setting="2"), claim("d")]
    now = [claim("a", "fails"), claim("b", setting="y"), claim("c", setting="3"), claim("c", setting="2"), claim("e")]
    values = {(c.then, c.now): c.kind for c in pairs(then, now)}
    assert values == {
        (then[0], now[0]): "changed",
        (then[1], now[1]): "as before",  # in another setting, which is shown
        (then[3], now[3]): "as before",
        (then[2], now[2]): "as before",  # the only ones of that key that are left
        (None, now[4]): "new",
        (then[4], None): "gone",
    }


def test_claims_of_one_key_in_several_other_settings_are_new_and_gone():
    then, now = ([claim("c", setting=s) for s in settings] for settings in ("12", "34"))
    assert sorted(c.kind for c in pairs(then, now)) == ["gone", "gone", "new", "new"]


@given(*[st.lists(st.builds(claim, st.sampled_from("ab"), st.sampled_from(ORDER), st.sampled_from("xyz")), max_size=6)] * 2)
def test_every_claim_of_either_side_is_there_once(then, now):
    matched = pairs(then, now)
    assert sorted(map(id, filter(None, (c.then for c in matched)))) == sorted(map(id, then))
    assert sorted(map(id, filter(None, (c.now for c in matched)))) == sorted(map(id, now))
    assert all(c.then.key == c.now.key for c in matched if c.then and c.now)


def test_what_changed_comes_first_and_failing_first_of_that():
    rows = [
        Change(claim("a"), claim("a")),
        Change(claim("b", "fails"), claim("b", "fails")),
        Change(None, claim("c")),
        Change(claim("d"), None),
        Change(claim("e", "fails"), claim("e")),
        Change(claim("f"), claim("f", "fails")),
    ]
    assert [c.claim.key for c in sorted(rows, key=lambda c: c.rank)] == ["f", "e", "d", "c", "b", "a"]
    assert [c.claim.key for c in since(*rows).moved] == ["c", "d", "e", "f"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([], "Neither table decides a claim."),
        ([Change(claim("a"), claim("a"))], "No verdict changed: 1 claim is as before."),
        (
            [Change(claim("a", measured="3"), claim("a", "fails", measured="4"))],
            "Of 1 claims 1 changed: a fails now, held (measured 3, now 4).",
        ),
        (
            [Change(claim("a", "ambiguous", str(i)), claim("a", "not measured", str(i))) for i in range(2)]
            + [Change(None, claim("b")), Change(claim("c"), claim("c")), Change(claim("d"), claim("d"))],
            "Of 5 claims 2 changed, 1 is new and 2 are as before: a is not measured now, was ambiguous in 2 settings.",
        ),
        ([Change(claim("a"), None)], "Of 1 claims 1 is gone."),
    ],
)
def test_the_sentence_says_what_changed(changes, sentence):
    assert since(*changes).answer == sentence


def edited(path, **machine):
    """A stored table as another machine or program would have made it."""
    table = load(path)
    table.attrs["machine"] |= machine
    sealed(table).to_parquet(path)
    return path


@pytest.fixture
def bare(monkeypatch):
    """Pages without figures, which take their time."""
    monkeypatch.setattr("recurrent_lm.reports.page.plots", lambda study: ())
    monkeypatch.setattr("recurrent_lm.reports.site.plots", lambda study: ())


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    return tmp_path / "new", tmp_path / "old"


def compared(folders, out):
    new, old = folders
    return build([new], out, against=old)


def test_a_page_tells_verdicts_then_and_now(bare, folders, tmp_path):
    stored_costs(folders[0] / "training_step.parquet", faster=(1.0, 2.3))
    stored_costs(folders[1] / "training_step.parquet", faster=(2.0, 0.5))
    (page,) = compared(folders, tmp_path / "pages").pages
    assert [(c.claim.key, c.then.verdict, c.now.verdict) for c in page.since.claims] == [
        ("speed.lm float32", "holds", "ambiguous"),
        ("speed.lm bf16", "fails", "holds"),
        ("memory.lm bf16", "fails", "fails"),
        ("memory.lm float32", "holds", "holds"),
    ]
    assert page.since.source == "old/training_step.parquet"
    assert page.since.counts.startswith("Times that both tables hold, 3 in all, compared by medians: ")
    assert [row[-1] for row in page.since.rows] == ["ambiguous", "slower", "faster"]
    html, markdown, index = (
        (tmp_path / "pages" / f).read_text() for f in ("training_step.html", "training_step.md", "index.md")
    )
    assert re.search(r"✗ fails</span><br>→ <span[^>]*>✓ holds", html)
    row = "lm bf16 is at least 2 times as fast as the torch.nn loop | ✗ fails | ✓ holds | 0.51"
    assert row in markdown and row in index and "2 claims as before." in index
    assert "The same program measured both." in markdown


def test_times_of_another_machine_are_not_compared_and_that_is_said(bare, folders, tmp_path):
    for folder in folders:
        stored_costs(folder / "training_step.parquet")
    edited(folders[0] / "training_step.parquet", commit="e" * 40)  # a tree without git has none
    edited(folders[1] / "training_step.parquet", cpu="another one", commit="f" * 40)
    (page,) = compared(folders, tmp_path / "pages").pages
    assert page.since.rows == [] and page.since.counts == ""
    words = "Measured on another machine: times of the two say nothing about the program, and are not compared."
    assert words in page.since.remarks and not any("same program" in remark for remark in page.since.remarks)
    assert ("machine cpu", "another one") in [c[:2] for c in page.since.conditions]
    assert ("program commit", "f" * 40) in [c[:2] for c in page.since.conditions]
    assert words in (tmp_path / "pages" / "training_step.html").read_text()


def test_conditions_are_what_differs(tmp_path):
    one, other = (load(stored_costs(tmp_path / f"{n}.parquet", rounds=n)) for n in (6, 7))
    assert conditions(one, one) == []
    assert conditions(other, one) == [("parameter rounds", "6", "7")]
    other.attrs["machine"] |= {"versions": other.attrs["machine"]["versions"] | {"numpy": "9.9"}, "command": "another"}
    assert conditions(one, other)[-1][:2] == ("version of numpy", "9.9")
    assert len(conditions(one, other)) == 2


def test_what_an_older_program_did_not_record_is_not_taken_for_another(bare, folders, tmp_path):
    for folder in folders:
        stored_costs(folder / "training_step.parquet")
    table = load(folders[1] / "training_step.parquet")
    for name in ("threads", "driver", "sources"):
        del table.attrs["machine"][name]
    sealed(table).to_parquet(folders[1] / "training_step.parquet")
    (page,) = compared(folders, tmp_path / "pages").pages
    assert sorted(c[:2] for c in page.since.conditions) == [
        ("machine threads", "not recorded"),
        ("program sources", "not recorded"),
    ]
    assert page.since.remarks == ["Both tables hold the same."] and page.since.rows


def test_what_an_older_table_says_is_text(bare, folders, tmp_path):
    stored_norms(folders[0] / "gradient_lag.parquet")
    stored_norms(folders[1] / "gradient_lag.parquet", run=EVIL, subject=EVIL)
    compared(folders, tmp_path / "pages")
    for name in ("index.html", "gradient_lag.html"):
        text = (tmp_path / "pages" / name).read_text()
        assert "&lt;script&gt;document.title" in text and "<script>document.title" not in text


def test_older_tables_are_found_by_study_and_name(bare, folders, tmp_path):
    new, old = folders
    numbers = count(1)
    for name in ("gradient_lag", "mine"):
        stored_norms(new / f"{name}.parquet")
        stored_norms(old / f"{name}.parquet", run=f"run {next(numbers)}")
    stored_costs(new / "fast.parquet")
    stored_costs(old / "slow.parquet")  # the only one of its study on either side
    stored_reaches(new / "long_range.parquet")
    stored_norms(old / "other.parquet")
    (old / "broken.parquet").write_text("x")
    built = compared(folders, tmp_path / "pages")
    values = {page.name: page.since and page.since.source for page in built.pages}
    assert values == {
        "gradient_lag": "old/gradient_lag.parquet",
        "mine": "old/mine.parquet",
        "fast": "old/slow.parquet",
        "long_range": None,
    }
    index = built.index.with_suffix(".md").read_text()
    assert "Long range (long\\_range.parquet): there is no older table of it." in index
    assert "old/other.parquet has no newer table here." in index
    assert len(built.problems) == 1 and "broken.parquet" in built.problems[0]


def test_the_same_table_is_said_to_be_the_same(bare, tmp_path):
    path = stored_costs(tmp_path / "training_step.parquet")
    (page,) = build([path], tmp_path / "pages", against=path).pages
    assert page.since.remarks == ["Both tables hold the same."]
    assert page.since.answer == "No verdict changed: 4 claims are as before."


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ("norms.parquet", "norms.parquet holds gradient_lag, and what it is to be compared with training_step"),
        ("nowhere", "there is no table "),
        ("empty", "there is no table in "),
        ("broken.parquet", "is no table of a study, or damaged"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence_and_nothing_is_made(against, words, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_text("x")
    stored_norms(tmp_path / "norms.parquet")
    table = stored_costs(tmp_path / "training_step.parquet")
    arguments = ["build", str(table), "--against", str(tmp_path / against), "--out", str(tmp_path / "pages")]
    assert run_app(app, "reports", arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "pages").exists()


def test_without_an_older_table_no_page_speaks_of_one(bare, tmp_path):
    stored_costs(tmp_path / "training_step.parquet")
    build([tmp_path / "training_step.parquet"], tmp_path / "pages")
    for path in (tmp_path / "pages").glob("*.*"):
        assert "What changed" not in path.read_text() and 'id="since"' not in path.read_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_what_changed_fits_a_desk_and_a_telephone(dark, bare, folders, tmp_path, look):
    stored_costs(folders[0] / "training_step.parquet", faster=(1.0, 2.3))
    stored_costs(folders[1] / "training_step.parquet", faster=(2.0, 0.5))
    stored_norms(folders[0] / "gradient_lag.parquet", run="a" * 300)
    stored_norms(folders[1] / "gradient_lag.parquet", run=EVIL, subject="W" * 300)
    built = compared(folders, tmp_path / "pages")
    seen, console = look(sorted(built.index.parent.glob("*.html")), (1280, 400), dark)
    assert console == []
    assert [view["found"] for view in seen] == [[]] * 10
