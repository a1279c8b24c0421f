import pandas as pd
import pytest

from lm import InputError, run_app
from studies import load
from studies.cli import app
from studies.study import make


def test_run_stores_a_table_that_says_what_made_it(tmp_path, capsys):
    out = tmp_path / "deep" / "t.parquet"
    sets = ["vocabulary=20", "hidden=4", "rows=2", "bptt=3", "rounds=2", "layers=1"]
    code = run_app(app, "studies", ["run", "training_step", "--out", str(out), *(x for s in sets for x in ("--set", s))])
    assert code == 0
    table = load(out)
    assert table.attrs["study"] == "training_step"
    assert table.attrs["parameters"]["vocabulary"] == 20
    assert table.attrs["machine"]["torch"]
    printed = capsys.readouterr().out
    assert run_app(app, "studies", ["show", str(out)]) == 0
    assert capsys.readouterr().out in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing"], "no study 'nothing'"),
        (["run", "training_step", "--set", "hidden"], "NAME=VALUE"),
        (["run", "training_step", "--set", "hiden=3"], "no parameter 'hiden'"),
        (["run", "training_step", "--set", "hidden=x"], "whole number"),
        (["run", "training_step", "--set", "hidden=0"], "at least 1"),
        (["show", "missing.parquet"], "no table"),
    ],
)
def test_bad_input_is_a_sentence_and_code_2(arguments, words, capsys):
    assert run_app(app, "studies", arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_foreign_tables_are_refused(tmp_path):
    garbage, other = tmp_path / "g.parquet", tmp_path / "o.parquet"
    garbage.write_bytes(b"no parquet at all")
    pd.DataFrame({"a": [1]}).to_parquet(other)
    with pytest.raises(InputError, match="no table of a study"):
        load(garbage)
    with pytest.raises(InputError, match="does not say which study"):
        load(other)


def test_an_unwritable_place_is_a_sentence(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    out = blocked / "t.parquet"
    tiny = [x for s in ("vocabulary=9", "hidden=2", "rows=1", "bptt=2", "rounds=1", "layers=1") for x in ("--set", s)]
    assert run_app(app, "studies", ["run", "training_step", "--out", str(out), *tiny]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert blocked.read_text() == "in the way"


def test_make_reads_numbers_and_text():
    study = make("gradient_lag", {"run": "somewhere", "lags": "9"})
    assert (study.run, study.lags) == ("somewhere", 9)
