import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from recurrent_lm.lm import run_app
from recurrent_lm.studies import load, save
from recurrent_lm.studies.cli import app
from recurrent_lm.studies.engine.study import make
from recurrent_lm.studies.training_step.study import VARIANTS, Study


@pytest.fixture
def table(tmp_path):
    rows = [{"variant": v, "round": 0, "seconds": 1.0, "peak_bytes": 10} for v in VARIANTS]
    save(pd.DataFrame(rows), tmp_path / "step.parquet", "training_step", make("training_step", {"rounds": "1"}))
    return tmp_path / "step.parquet"


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
        (["run", "training_step", "--out", "table.csv"], "ends in .parquet"),
        (["run", "gradient_lag"], "name a run"),
        (["run", "gradient_lag", "--set", "run=nowhere"], "no run nowhere"),
        (["show", "missing.parquet"], "no table"),
    ],
)
def test_bad_input_is_a_sentence_and_code_2(arguments, words, capsys):
    assert run_app(app, "studies", arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_claims_are_read_as_claim_measured_verdict(tmp_path, capsys):
    """A norm that is 0 at every lag but one has no factor: that is said, not a number that is none."""
    rows = [
        {"window": 0, "layer": 0, "lag": lag, "hidden_norm": 1.0, "weight_norm": float(lag == 0), "sum_error": 1e-15}
        for lag in range(3)
    ]
    table = pd.DataFrame(rows)
    table.attrs["subject"] = "a text, char tokens, gru 1 x 8"
    save(table, tmp_path / "t.parquet", "gradient_lag", make("gradient_lag", {"run": "r", "windows": "1", "lags": "3"}))
    assert run_app(app, "studies", ["show", str(tmp_path / "t.parquet")]) == 0
    assert capsys.readouterr().out == (
        "a text, char tokens, gru 1 x 8\n\n"
        "Claim      the parts of dL(t)/dW_h over steps sum to autograd's gradient\n"
        "Source     lecture, slide BPTT\n"
        "Setting    r\n"
        "Threshold  relative error <= 1e-12 in float64\n"
        "Measured   1.0e-15\n"
        "Verdict    holds\n\n"
        "Claim      the parts of far steps are smaller than those of near ones\n"
        "Source     lecture, slide Vanishing, exploding\n"
        "Setting    r, layer 0\n"
        "Threshold  log median norm falls with the lag\n"
        "Measured   undefined: a value is 0, negative or not finite\n"
        "Verdict    ambiguous\n"
        "Reason     likely: a ratio or mean does not exist where a value is 0, negative or not finite\n\n"
    )


def test_an_output_that_cannot_be_written_is_a_sentence():
    """What stands on standard error speaks of the output, not of a disk or a run; a closed output is no error."""
    command = [sys.executable, "-m", "recurrent_lm.studies", "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 2
    assert done.stderr == "studies: the output could not be written: No space left on device; send it elsewhere\n"
    closed = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=600, preexec_fn=lambda: os.close(1))
    assert (closed.returncode, closed.stderr) == (0, "")


class Full(io.StringIO):
    """A standard output on a full disk."""

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("command", ["show", "run"])
def test_every_command_names_an_output_that_cannot_be_written(command, table, monkeypatch, capsys):
    """And what was measured is stored by then."""
    monkeypatch.setattr(Study, "measure", lambda self, cell: load(table).to_dict("records"))
    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr("recurrent_lm.lm.commands.cli.silence", lambda: None)
    before = table.stat().st_mtime_ns
    rest = [str(table)] if command == "show" else ["training_step", "--out", str(table), "--set", "rounds=1"]
    assert run_app(app, "studies", [command, *rest]) == 2
    assert "studies: the output could not be written: No space left on device" in capsys.readouterr().err
    assert (table.stat().st_mtime_ns > before) is (command == "run")
