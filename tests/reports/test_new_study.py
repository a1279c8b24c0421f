"""A study is one folder and one line: a toy that lies elsewhere is run, shown, drawn and has its page."""

import sys
from pathlib import Path

import pytest
from forked import ended
from paths import ROOT
from small_tables import CASES

from recurrent_lm import reports, studies
from recurrent_lm.reports import images, site
from recurrent_lm.reports.cli import app as reports_app
from recurrent_lm.studies.cli import app as studies_app

TOY = {
    "__init__": "",
    "study": '''
from dataclasses import dataclass
from typing import ClassVar

from recurrent_lm.studies.engine.parameters import whole
from recurrent_lm.studies.engine.study import Sweep
from recurrent_lm.studies.toy.claims import claims


@dataclass(frozen=True)
class Study(Sweep):
    most: int = whole(4, 1, 100)
    NAME: ClassVar = "toy"
    COLUMNS: ClassVar = {"number": int, "square": float}

    def cells(self):
        return [{"number": n} for n in range(self.most)]

    def measure(self, cell):
        return [{"number": cell["number"], "square": float(cell["number"] ** 2)}]


PRESETS = {"smoke": Study(most=3), "cpu": Study()}


def grid(study, table):
    return {"number": range(study.most)}
''',
    "claims": '''
from recurrent_lm.studies.engine.claims import Claim


def claims(table):
    verdict = "holds" if (table["square"] == table["number"] ** 2).all() else "fails"
    return [Claim("squares", "squares are squares", "arithmetic", "all", "equal", f"{len(table)} are", verdict)]
''',
    "figures": '''
from recurrent_lm.studies.engine.claims import select
from recurrent_lm.studies.plotting.plots import Listing, Plot
from recurrent_lm.studies.plotting.style import canvas, legend


def draw(table, claims, size):
    figure, (axes,) = canvas(size)
    axes.plot(table["number"], table["square"], label="squares")
    axes.set_xlabel("number (1)")
    legend(figure)
    return figure


def caption(table, claims):
    return f"Squares: {select(claims, 'squares').iloc[0]['verdict']}."


def listings(table):
    return [Listing("The squares", ["n"], [[str(n)] for n in table["number"]])]


PLOTS = (Plot("curve", lambda table: "A parabola", draw, caption, "Higher is larger."),)
''',
}  # fmt: skip


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The folder and the line; both are gone afterwards."""
    (tmp_path / "more" / "toy").mkdir(parents=True)
    for name, text in TOY.items():
        (tmp_path / "more" / "toy" / f"{name}.py").write_text(text)
    monkeypatch.setattr(studies, "__path__", [*studies.__path__, str(tmp_path / "more")])
    monkeypatch.setitem(studies.STUDIES, "toy", "what squares are")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("recurrent_lm.studies.toy")]:
        del sys.modules[name]
    vars(studies).pop("toy", None)


def test_a_new_study_is_run_and_shown_and_has_its_page(toy, monkeypatch, capsys):
    monkeypatch.chdir(toy)
    table = toy / "tables" / "toy.parquet"
    assert studies.run_app(studies_app, "studies", ["run", "toy", "--preset", "smoke", "--out", str(table)]) == 0
    assert "squares are squares" in capsys.readouterr().out
    assert studies.run_app(studies_app, "studies", ["list"]) == 0
    assert "what squares are" in capsys.readouterr().out
    monkeypatch.setattr(site, "save", lambda drawing, path: images.save(drawing, path) if path.suffix == ".png" else None)
    assert studies.run_app(reports_app, "reports", ["build", str(table), "--out", str(toy / "pages")]) == 0
    html = (toy / "pages" / "toy.html").read_text()
    for words in ("What squares are", "squares are squares", "A parabola", "Squares: holds.", "The squares", "<svg"):
        assert words in html
    assert (toy / "pages" / "figures" / "toy-curve.png").stat().st_size > 1000


def test_nothing_outside_of_a_study_names_it():
    """But the catalogue's line, and the lists of packages; commands of a study's own are in cli.py."""
    studies_of = {*CASES} - {"exchange"}  # whose constants a command of studies writes
    for folder in (ROOT / "studies" / "engine", ROOT / "studies" / "plotting", ROOT / "reports"):
        for path in folder.rglob("*.py"):
            named = {name for name in studies_of if f"recurrent_lm.studies.{name}" in path.read_text()}
            assert not named, f"{path} imports {named}"


def test_claims_are_shown_without_matplotlib(tmp_path):
    published = Path(reports.__file__).parent / "published" / "cpu" / "weight_tying.parquet"
    program = f"""
import sys
from recurrent_lm.studies.cli import main
try: main(["show", {str(published)!r}])
except SystemExit as end: assert not end.code
from recurrent_lm.studies.engine.catalogue import STUDIES, module_of
from recurrent_lm.studies.engine import run
for name in STUDIES: module_of(name)
drawing = {{"matplotlib", "seaborn"}} & set(sys.modules)
assert not drawing, drawing
"""
    code, out, err = ended(tmp_path, "", first=program)
    assert code == 0, err
    assert "E and U hold most" in out
