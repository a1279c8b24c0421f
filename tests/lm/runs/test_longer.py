"""A finished run that trains longer is the run that was long from the beginning."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from equal_runs import equal_runs

from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.training import start as launch

NOISE = {"dropout": 0.3, "embedding_dropout": 0.1, "weight_drop": 0.2, "patience": 0}
KINDS: dict[str, dict[str, Any]] = {
    "plateau": {"cell": "gru", "optimizer": "sgd", "lr": 40.0, "clip": "norm:0.5", **NOISE},
    "decay": {"cell": "lstm", "schedule": "decay", "decay_after": 1, "state": "never", **NOISE},
    "average": {"cell": "rnn-tanh", "optimizer": "adamw", "average": 0.9, "schedule": "constant", "lr": 0.02, **NOISE},
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_epochs_and_two_more_are_four(tmp_path: Path, small: Path, fit: Any, read_log: Any, kind: str) -> None:
    """No schedule depends on the length, so the rate too is that of the long training."""
    fit(tmp_path / "long", small, epochs=4, **KINDS[kind])
    fit(tmp_path / "run", small, epochs=2, **KINDS[kind])
    launch.resume(tmp_path / "run", epochs=4).run(quiet=True)
    equal_runs(tmp_path / "run", tmp_path / "long", read_log)
    assert runs.read_settings(tmp_path / "run")[0] == runs.read_settings(tmp_path / "long")[0]
    assert [row["state"] for row in runs.summaries(tmp_path)] == ["done", "done"]
    assert not runs.edited(tmp_path / "run", checkpoint.load(tmp_path / "run", "best").meta)


def test_a_best_checkpoint_from_before_knows_that_nobody_edited_the_settings(tmp_path: Path, small: Path, fit: Any) -> None:
    fit(tmp_path / "run", small, epochs=1, lr=0.02)
    launch.resume(tmp_path / "run", epochs=3).run(quiet=True)
    shutil.copy(tmp_path / "run" / "config.toml", tmp_path / "kept.toml")
    first = {"files": {"config.toml": "of the settings before"}}
    assert not runs.edited(tmp_path / "run", first)
    with (tmp_path / "run" / "config.toml").open("a") as file:
        file.write("# edited\n")
    assert runs.edited(tmp_path / "run", first)


def test_limits_that_leave_nothing_to_train_change_nothing(tmp_path: Path, small: Path, fit: Any, refused: Any) -> None:
    run = tmp_path / "run"
    fit(run, small, epochs=2)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for limits, option in (
        (["--epochs", 2], "--epochs"),
        (["--epochs", 1], "--epochs"),
        (["--epochs", 0], "--epochs"),
        (["--patience", 9], "--epochs"),
        (["--max-steps", 10**6], "--epochs"),
        (["--patience", -1], "--patience"),
        (["--epochs", 9, "--max-steps", 3], "--max-steps"),
        ([], "--epochs"),
    ):
        assert option in refused("resume", run, *limits)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_run_of_max_steps_goes_on_with_the_next_epoch(
    tmp_path: Path, small: Path, fit: Any, read_log: Any, refused: Any
) -> None:
    run = tmp_path / "run"
    training = fit(run, small, epochs=9, max_steps=5)
    whole = len(training.batches)
    assert whole > 5, "the first epoch was cut short"
    assert "--max-steps" in refused("resume", run)
    assert "--max-steps" in refused("resume", run, "--epochs", 12)
    launch.resume(run, max_steps=7).run(quiet=True)
    steps = read_log(run / "steps.jsonl")
    assert [(r["step"], r["epoch"]) for r in steps] == [(i, 1) for i in range(1, 6)] + [(6, 2), (7, 2)]
    launch.resume(run, max_steps=0, epochs=3).run(quiet=True)
    assert json.loads((run / "result.json").read_text())["steps"] == 7 + whole


def test_a_patience_that_has_run_out_begins_anew(tmp_path: Path, small: Path, fit: Any, read_log: Any) -> None:
    run = tmp_path / "run"
    settings = {"optimizer": "sgd", "lr": 1e-7, "schedule": "constant", "clip": "norm:1", "patience": 1, "valid_rows": 1}
    training = fit(run, small, epochs=30, **settings, dropout=0.5)
    done = training.at.epoch
    assert done < 30, "patience ended it"
    longer = launch.resume(run, epochs=31)
    assert longer.at.stalled == 0
    assert checkpoint.load(run, "last").meta["position"]["stalled"] == 0
    assert any("patience" in note for note in longer.notes)
    longer.run(quiet=True)
    assert len(read_log(run / "epochs.jsonl")) > done


def test_an_interrupted_run_takes_new_limits(tmp_path: Path, small: Path, make_config: Any, fit: Any, read_log: Any) -> None:
    fit(tmp_path / "long", small, epochs=3)
    run = tmp_path / "run"
    launch.new_training(make_config(small, epochs=9), run).lock.release()  # type: ignore[union-attr]
    launch.resume(run, epochs=3).run(quiet=True)
    equal_runs(run, tmp_path / "long", read_log)


def test_a_crash_while_the_new_limits_are_stored_loses_nothing(
    tmp_path: Path, small: Path, fit: Any, spawn: Any, lm_command: Any, read_log: Any
) -> None:
    fit(tmp_path / "long", small, epochs=2)
    fit(tmp_path / "done", small, epochs=1)
    wish = ["--quiet", "--epochs", 2]
    for number in (1, 3, 5, 7):
        run = tmp_path / f"run{number}"
        shutil.copytree(tmp_path / "done", run)
        assert spawn(["resume", run, *wish], kill_at=number).wait() < 0
        assert next(runs.summaries(run))["state"].partition(",")[0] in ("done", "unfinished")
        assert lm_command("resume", run, *wish)[0] == 0
        equal_runs(run, tmp_path / "long", read_log)
