"""Which source files measuring a study uses: a stored run goes on after any other change, begins anew after one of these."""

import json
import shutil

import pytest
from paths import ROOT

import recurrent_lm
from recurrent_lm.studies import STUDIES
from recurrent_lm.studies.engine.catalogue import module_of
from recurrent_lm.studies.engine.run import Run
from recurrent_lm.studies.executors.sources import digest_of, sources
from recurrent_lm.studies.gradient_flow.study import Study

TINY = {"parts": ("certificate",), "cell": ("rnn-tanh", "gru"), "units": 8, "others": 8, "lags": 8}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the source tree, which is read in place of the tree itself."""
    for room in ("kernels", "lm", "studies", "reports", "recurrent_lm"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "published"))
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.setattr(recurrent_lm, "__path__", [str(tmp_path)])
    return tmp_path


def change(path):
    path.write_text(path.read_text() + "\nADDED = 1\n")


def changed(tree, file, study=Study):
    before = sources(study)
    change(tree / file)
    after = sources(study)
    assert (digest_of(before) == digest_of(after)) == (before == after)
    return {name for name in before | after if before.get(name) != after.get(name)}


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "studies/gradient_flow/claims.py",
        "studies/gradient_flow/theory.py",  # which claims alone use
        "studies/gradient_flow/figures/slopes.py",
        "studies/plotting/plots.py",
        "reports/page.py",
        "studies/engine/catalogue.py",
        "studies/engine/run.py",
        "studies/speeches/study.py",
        "studies/__init__.py",
        "kernels/__init__.py",
        "kernels/bench/sweep.py",
        "lm/commands/ask.py",
    ],
)
def test_what_measuring_does_not_use_does_not_count(file, tree):
    assert changed(tree, file) == set()


@pytest.mark.parametrize(
    "file",
    [
        "studies/gradient_flow/study.py",
        "studies/gradient_flow/textbook.py",
        "studies/engine/parameters.py",
        "studies/timing/work.py",
        "kernels/rnn/host.py",  # behind the front door of kernels
        "kernels/rnn/scan.py",
        "lm/training/loop.py",  # behind a training's start, behind the front door of lm
    ],
)
def test_what_measuring_uses_counts_and_is_named(file, tree):
    assert changed(tree, file) == {file}


def test_constants_that_were_measured_count(tree):
    before = sources(Study)
    (tree / "kernels" / "rnn" / "measured.json").write_text("{}")
    assert sources(Study).keys() - before.keys() == {"kernels/rnn/measured.json"}


def test_comments_and_layout_do_not_count(tree):
    before = sources(Study)
    file = tree / "kernels" / "nn.py"
    file.write_text("# a remark\n\n" + file.read_text().replace("    return ", "    return  ", 1))
    assert sources(Study) == before


def test_what_types_alone_need_is_not_followed_and_what_functions_import_is(tree):
    file = tree / "studies" / "exchange" / "study.py"
    study = module_of("exchange").Study
    before = sources(study).keys()
    add = "if TYPE_CHECKING:\n    from recurrent_lm.studies.scale import markdown\n"
    file.write_text(file.read_text() + add)
    assert sources(study).keys() == before
    file.write_text(file.read_text() + "def late():\n    from recurrent_lm.studies.scale import markdown\n")
    assert sources(study).keys() - before >= {"studies/scale/markdown.py", "studies/scale/arithmetic.py"}


def test_a_front_door_that_is_passed_on_stands_for_all_behind_it(tree):
    file = tree / "studies" / "exchange" / "study.py"
    study = module_of("exchange").Study
    assert "kernels/nn.py" not in sources(study)
    file.write_text(file.read_text() + "\nEVERYTHING = [kernels]\n")
    assert "kernels/nn.py" in sources(study)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_its_module_and_leaves_claims_figures_and_reports_out(name):
    files = sources(module_of(name).Study)
    assert f"studies/{name}/study.py" in files
    assert not [file for file in files if "claims" in file or "figures" in file or file.startswith("reports")]
    assert all((ROOT / file).is_file() for file in files)


def test_a_run_goes_on_after_a_commit_and_names_the_files_that_make_it_begin_anew(tree, capsys):
    study, base = Study(**TINY), tree / "runs" / "g"
    Run(study, "gradient_flow", "smoke", base)()
    for file in ("README.md", "studies/gradient_flow/claims.py", "studies/gradient_flow/figures/slopes.py"):
        change(tree / file)
    capsys.readouterr()
    Run(study, "gradient_flow", "smoke", base)()
    assert "cells are in" in capsys.readouterr().out and not base.with_name("g-2").exists()
    change(tree / "kernels" / "rnn" / "host.py")
    change(tree / "studies" / "gradient_flow" / "parts.py")
    Run(study, "gradient_flow", "smoke", base)()
    output = capsys.readouterr().out
    cells = len(study.cells())
    assert f"{base} was measured with other sources (kernels/rnn/host.py, studies/gradient_flow/parts.py); this run" in output
    assert f"begins anew in {base}-2 and measures all {cells} cells" in output
    assert len(list((tree / "runs" / "g-2" / "cells").glob("*.parquet"))) == cells


def test_a_folder_of_an_older_program_begins_anew_with_a_sentence(tree, capsys):
    study, base = Study(**TINY), tree / "runs" / "g"
    Run(study, "gradient_flow", "smoke", base)()
    about = json.loads((base / "study.json").read_text())
    about["identity"] |= {"commit": "f" * 40, "sources": "0" * 16}
    (base / "study.json").write_text(json.dumps(about))
    capsys.readouterr()
    Run(study, "gradient_flow", "smoke", base)()
    output = capsys.readouterr().out
    assert f"{base} was measured with an older version of this program, which did not record its source files" in output
    assert base.with_name("g-2").is_dir()
