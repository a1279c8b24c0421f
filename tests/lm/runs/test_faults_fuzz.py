"""Whatever is damaged in a run or a corpus: one sentence, or the output of the undamaged, or a word on what was changed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import hurt, run_command
from faulty_disk import cut_off, losses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recurrent_lm.lm.commands.cli import app
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.training import start as launch

Make = Callable[..., Any]
Run = Callable[..., tuple[int, str, str]]

SHORT = {"rows": 8, "bptt": 16, "epochs": 2, "checkpoint_every": 3, "dropout": 0.2, "cell": "lstm", "on_divergence": "rollback"}
WILD = {"cell": "rnn-relu", "optimizer": "sgd", "lr": 200.0, "clip": "none"}  # rolls back
KINDS: dict[str, dict[str, Any]] = {
    "char": {},
    "word": {"rows": 2, "kind": "word"},
    "bpe": {"vocab_size": 270, "kind": "bpe"},
    "wild": WILD,
}
COMMANDS: dict[str, list[str]] = {
    "generate": ["--length", "5", "--seed", "1", "--json"],
    "next": ["--json"],
    "eval": ["--json", "--ngram", "2"],
    "score": ["We want jobs", "--json"],
    "resume": ["--quiet"],
}
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))


def lm(*arguments: Any) -> tuple[int, str, str]:
    return run_command(app, "lm", *arguments)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, make_text: Callable[..., str], make_config: Make) -> Path:
    """For each kind of run a finished one and two that stand in their second epoch, in folders of their own."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "t.txt").write_text(make_text(900))
    for kind, how in KINDS.items():
        config = make_config(folder / "t.txt", **{**SHORT, **how})
        launch.new_training(config, folder / kind / "done").run(quiet=True)
        training = launch.new_training(config, folder / kind / "begun")
        cut_off(training, lambda at=training: at.at.epoch == 1 and at.at.batch == 4)  # type: ignore[misc]
        shutil.copytree(folder / kind / "begun", folder / kind / "old")
        # As older versions wrote them, which knew no digests of what is beside a checkpoint.
        for which, saved in [(which, checkpoint.load(folder / kind / "old", which)) for which in ("best", "last")]:
            del saved.meta["files"], saved.meta["logs"]
            checkpoint.save(folder / kind / "old", saved, best=which == "best")
        assert (folder / kind / "done" / "rollbacks.jsonl").exists() is (kind == "wild")
        assert (folder / kind / "begun" / "best.json").read_bytes() != (folder / kind / "begun" / "last.json").read_bytes()
    return folder


@pytest.fixture(scope="module")
def expected(runs: Path) -> dict[tuple[str, ...], Any]:
    """What the commands say of the undamaged runs."""
    values: dict[tuple[str, ...], Any] = {}
    place = runs / "place"
    for kind in KINDS:
        for state in ("done", "begun"):
            shutil.copytree(runs / kind / state, place)
            for command, more in COMMANDS.items():
                values[kind, state, command] = lm(command, place, *more)
            if state == "begun":
                values[kind, "losses"] = losses(place)
                shutil.rmtree(place)
                shutil.copytree(runs / kind / state, place)
            values[kind, state, "runs"] = lm("runs", place, "--csv")
            shutil.rmtree(place)
        assert losses(runs / kind / "done") == values[kind, "losses"]
    assert all(outcome[0] == 0 for key, outcome in values.items() if key[1] == "begun")
    return values


def files_of(run: Path) -> list[Path]:
    return sorted(p for p in run.rglob("*") if p.is_file() and p.name not in (".lock", ".damage"))


def others_of(file: Path, kind: str, runs: Path) -> list[Path]:
    """Whole files of the same kind from other places: another step, another run, another pointer."""
    same = [p for p in files_of(runs) if p.suffix == file.suffix and (p.name == file.name or p.suffix != ".jsonl")]
    return [p for p in same if p.parts[-3:] != file.parts[-3:]]


def check(draw: Callable[..., Any], runs: Path, expected: Any) -> None:
    kind, state = draw(st.sampled_from(sorted(KINDS))), draw(st.sampled_from(["begun", "done", "old"]))
    place = runs / "place"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(runs / kind / state, place)
    file = draw(st.sampled_from(files_of(place)))
    whole = file.read_bytes()
    command = draw(st.sampled_from([*COMMANDS, "runs", "runs", "resume"]))
    description = f"{hurt(draw, file, others_of(file, kind, runs / kind))}, {state}, {command}"
    same = file.is_file() and file.read_bytes() == whole
    arguments = [command, place, "--csv"] if command == "runs" else [command, place, *COMMANDS[command]]
    code, out, err = lm(*arguments)
    assert "Traceback" not in err, description
    if code:
        assert code == 2, (description, code, err)
        noted = "before the training ends without a better one" in err  # of the best checkpoint, which then was needed
        assert err.startswith("lm: ") and err.count("\n") == 1 + noted and len(err) > 20, (description, err)
        assert not same or state == "done", (description, err)
    if code or state == "old":
        return
    good_code, good_out, good_err = expected[kind, state, command]
    told = set(err.splitlines()) - set(good_err.splitlines())
    if command == "runs":
        assert sum(line.startswith(str(place)) for line in out.splitlines()) == 1, (description, out)
        assert "damaged" in out or "edited" in out or out == good_out or (description.startswith("result.json: gone")), (
            description,
            out,
        )
        return
    if good_code:
        assert description.startswith("result.json: gone"), (description, out, err)  # it is made again
    if any(file.name in line or "corpus" in line for line in told):
        return
    assert out == good_out or command == "resume", (description, out, err)
    if command == "resume":
        assert losses(place) == expected[kind, "losses"], (description, err)


@FEW
@given(data=st.data())
def test_a_damaged_run_is_refused_or_as_it_was(data: st.DataObject, runs: Path, expected: Any) -> None:
    check(data.draw, runs, expected)


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_a_damaged_run_is_refused_or_as_it_was_at_length(data: st.DataObject, runs: Path, expected: Any) -> None:
    check(data.draw, runs, expected)
