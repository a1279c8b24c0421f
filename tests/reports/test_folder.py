"""Tables to a folder of pages: which are found, how they are named, what is refused, and what is left alone."""

import re
import webbrowser
from pathlib import Path

import pytest
from PIL import Image
from report_cases import stored_costs, stored_norms

from recurrent_lm.reports import build
from recurrent_lm.reports.cli import app
from recurrent_lm.reports.site import find, name_of
from recurrent_lm.studies import InputError, run_app


@pytest.fixture
def bare(monkeypatch):
    """Pages without figures, which take their time."""
    monkeypatch.setattr("recurrent_lm.reports.page.plots", lambda study: ())
    monkeypatch.setattr("recurrent_lm.reports.site.plots", lambda study: ())


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_page_a_table_with_figures_for_slides(tmp_path, capsys):
    table = stored_costs(tmp_path / "training_step.parquet")
    out = tmp_path / "pages"
    assert run_app(app, "reports", ["build", str(table), "--out", str(out)]) == 0
    pictures = [f"figures/training_step-cost{ending}" for ending in (".pdf", ".png", ".svg")]
    own = ["claims.html", "claims.md", *pictures, "gradients.html", "index.html", "index.md"]
    assert files(out) == [*own, "training_step.html", "training_step.md"]
    with Image.open(out / pictures[1]) as picture:
        assert picture.size == (1280, 720)
    assert (out / pictures[0]).read_bytes().startswith(b"%PDF")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("training_step: A training step costs less in part than a plain torch.nn loop's")
    assert printed[1] == f"report: {out}/index.html"


def test_built_again_is_the_same_to_the_byte(tmp_path):
    table, out = stored_norms(tmp_path / "t.parquet"), tmp_path / "pages"
    before, after = ({f: (out / f).read_bytes() for f in files(build([table], out).index.parent)} for _ in range(2))
    assert before == after


def test_a_folder_stands_for_its_tables_and_those_right_in_it(tmp_path):
    hidden = (".hidden.parquet", ".old/e.parquet")
    for name in ("b.parquet", "a.parquet", "demo/c.parquet", "demo/cells/d.parquet", "f.csv", *hidden):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find([tmp_path]) == [tmp_path / name for name in ("a.parquet", "b.parquet", "demo/c.parquet")]
    twice = [tmp_path / "demo" / ".." / "b.parquet", tmp_path]
    assert [path.name for path in find(twice)] == ["b.parquet", "a.parquet", "c.parquet"]


def test_names_are_safe_and_differ(tmp_path):
    named = {
        "a/gradient_lag": "gradient_lag",
        "b/gradient_lag": "b-gradient_lag",
        "c/b-gradient_lag": "c-b-gradient_lag",
        "a/index": "a-index",
        "a/claims": "a-claims",
        "a/gradients": "a-gradients",
        "a/<&>": "table",
        "a/Gradient_Lag": "a-Gradient_Lag",
        "a/.. x": "x",
        "a/" + "w" * 200: "w" * 60,
    }
    taken = {}
    for path in (*named, *["b/gradient_lag"] * 3):
        taken[name_of(tmp_path / f"{path}.parquet", taken)] = (Path(), None)
    assert list(taken) == [*named.values(), "gradient_lag-2", "gradient_lag-3", "gradient_lag-4"]


def test_two_tables_of_one_study_have_two_pages(bare, tmp_path):
    for run in ("one", "two"):
        stored_norms(tmp_path / run / "gradient_lag.parquet", run=run)
    built = build([tmp_path], tmp_path / "pages")
    assert [page.name for page in built.pages] == ["gradient_lag", "two-gradient_lag"]
    index = built.index.read_text()
    assert 'href="gradient_lag.html"' in index and 'href="two-gradient_lag.html"' in index


def test_a_table_that_cannot_be_read_is_named_and_the_others_are_made(bare, tmp_path, capsys):
    stored_norms(tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    out = tmp_path / "pages"
    assert run_app(app, "reports", ["build", str(tmp_path), str(tmp_path / "gone.parquet"), "--out", str(out)]) == 2
    output = capsys.readouterr()
    assert f"report: {out}/index.html" in output.out
    assert "bad.parquet is no table of a study, or damaged" in output.err and "there is no table" in output.err
    assert output.err.count("\n") == 1
    assert (out / "good.html").exists() and not (out / "bad.html").exists()
    assert "bad.parquet is no table of a study" in (out / "index.html").read_text()


def test_where_no_table_can_be_read_nothing_is_written(tmp_path, capsys):
    assert run_app(app, "reports", ["build", str(tmp_path / "gone"), "--out", str(tmp_path / "pages")]) == 2
    assert "there is no table" in capsys.readouterr().err
    assert files(tmp_path) == []


@pytest.mark.parametrize("exists", [True, False], ids=["an empty folder", "no folder"])
def test_a_report_of_nothing_says_so_with_the_command_to_run(exists, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if exists:
        Path("runs").mkdir()
    assert run_app(app, "reports", ["build"]) == 0
    output = capsys.readouterr().out
    assert "nothing was run yet" in output and "studies run training_step" in output
    for page in ("index.html", "index.md"):
        text = Path("runs", "reports", page).read_text()
        assert "Nothing was run yet" in text
        assert "studies run gradient_lag" in text and "studies run training_step" in text


def test_studies_that_were_not_run_are_on_the_index(bare, tmp_path):
    index = build([stored_norms(tmp_path / "t.parquet")], tmp_path / "pages").index.read_text()
    _, missing = index.split('<p id="missing">')
    assert "studies run training_step" in missing and "studies run gradient_lag" not in missing


@pytest.mark.parametrize(
    "name", ["index.html", "index.md", "claims.md", "gradients.html", "t.html", "t.md", "figures/t-norms.svg"]
)
def test_what_reports_did_not_make_is_never_written_over(name, tmp_path):
    table, out = stored_norms(tmp_path / "t.parquet"), tmp_path / "pages"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("my own notes on recurrent-lm reports")
    with pytest.raises(InputError, match=f"{name} exists and was not made by reports"):
        build([table], out)
    assert files(out) == [name]
    assert (out / name).read_text() == "my own notes on recurrent-lm reports"


def test_pages_of_earlier_builds_stay(bare, tmp_path):
    out = tmp_path / "pages"
    build([stored_norms(tmp_path / "one.parquet")], out)
    build([stored_norms(tmp_path / "two.parquet")], out)
    assert (out / "one.html").exists() and (out / "two.html").exists()
    assert "one.html" not in (out / "index.html").read_text()


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path, capsys):
    table = stored_norms(tmp_path / "t.parquet")
    (tmp_path / "file").write_text("in the way")
    assert run_app(app, "reports", ["build", str(table), "--out", str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "in the way"


def test_open_prints_the_index_and_hands_it_to_the_browser(bare, tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or False)  # False: there is no browser
    out = tmp_path / "my pages"
    build([stored_norms(tmp_path / "t.parquet")], out)
    assert run_app(app, "reports", ["open", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}/index.html\n"
    assert opened == [(out / "index.html").as_uri()]


def test_open_without_an_index_says_how_to_make_one(tmp_path, capsys):
    assert run_app(app, "reports", ["open", str(tmp_path)]) == 2
    assert f"reports build --out {tmp_path}" in capsys.readouterr().err


def test_figures_can_be_png_alone(tmp_path):
    """As they are kept in a repository: no page links to a file that is not there."""
    table = stored_costs(tmp_path / "table.parquet")
    code = run_app(app, "reports", ["build", str(table), "--png", "--out", str(tmp_path / "pages")])
    assert code == 0
    files = sorted((tmp_path / "pages" / "figures").iterdir())
    assert files and {file.suffix for file in files} == {".png"}
    links = re.findall(r'href="(figures/[^"]+)"', (tmp_path / "pages" / "table.html").read_text())
    assert sorted(links) == sorted(f"figures/{file.name}" for file in files)
