"""Killed at any instant, between and inside the writes of checkpoints, a training goes on to the very same losses."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_disk import Now, cut_off, failing, losses

from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.training import start as launch

Make = Callable[..., Any]

SHORT = {"rows": 8, "bptt": 16, "epochs": 2, "checkpoint_every": 3, "dropout": 0.2}
WILD = {"optimizer": "sgd", "lr": 200.0, "clip": "none", "cell": "rnn-relu", "on_divergence": "rollback"}
KINDS: dict[str, dict[str, Any]] = {
    "adam": {**SHORT, "cell": "lstm"},
    "rollback": {**SHORT, **WILD},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small: Path, fit: Any) -> Callable[[str], dict[str, Any]]:
    """What the uninterrupted run of a kind has written; each is trained once."""
    folder = tmp_path_factory.mktemp("whole")

    def get(kind: str) -> dict[str, Any]:
        if not (folder / kind).exists():
            fit(folder / kind, small, **KINDS[kind])
        return losses(folder / kind)

    return get


def test_the_uninterrupted_runs_are_worth_comparing(whole: Any) -> None:
    assert len(set(whole("adam")["steps"].splitlines())) == 10
    assert whole("rollback")["rollbacks"].count(b"\n") == whole("rollback")["result"]["rollbacks"] == 3


def begun(run: Path, kind: str, small: Path, make_config: Make) -> Path:
    """A run that stands one update before a checkpoint that is its first best one, or before its first rollback."""
    training = launch.new_training(make_config(small, **KINDS[kind]), run)
    if kind == "adam":
        cut_off(training, lambda: training.at.step == 4, save=True)
        return run

    def after(error: Any) -> None:
        raise Now

    training.rollback.after = after  # type: ignore[method-assign]
    with pytest.raises(Now):
        training.run(quiet=True)
    return run


def changes(run: Path, kind: str) -> list[str]:
    """The changes of the disk from the resume of such a run until that checkpoint, or that rollback, is done."""
    training = launch.resume(run)
    real, real_after = training.save, training.rollback.after

    def save(best: bool = False) -> None:
        real(best)
        if best and kind == "adam":
            raise Now

    def after(error: Any) -> None:
        real_after(error)
        raise Now

    training.save = save  # type: ignore[method-assign]
    training.rollback.after = after  # type: ignore[method-assign]
    with failing(0, lambda what, path: None) as calls, pytest.raises(Now):
        training.run(quiet=True)
    return list(calls)


def check_kills(kind: str, step: int, tmp_path: Path, small: Path, whole: Any, spawn: Any, make_config: Make) -> None:
    begun(tmp_path / "begun", kind, small, make_config)
    shutil.copytree(tmp_path / "begun", tmp_path / "counted")
    changed = changes(tmp_path / "counted", kind)
    assert "replace last.json" in changed
    assert ("replace best.json" in changed) is (kind == "adam")
    assert ("write rollbacks.jsonl" in changed) is (kind == "rollback")
    for n in range(1, len(changed) + 1, step):
        run = tmp_path / f"killed{n}"
        shutil.copytree(tmp_path / "begun", run)
        child = spawn(["resume", run, "--quiet"], kill_at=n)
        assert child.wait() == -signal.SIGKILL, child.err.read_text()
        checkpoint.load(run, "last")
        launch.resume(run).run(quiet=True)
        assert losses(run) == whole(kind), f"killed at {changed[n - 1]}, change {n}"
        shutil.rmtree(run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_every_change_of_the_disk_changes_no_loss(
    kind: str, tmp_path: Path, small: Path, whole: Any, spawn: Any, make_config: Make
) -> None:
    check_kills(kind, 1, tmp_path, small, whole, spawn, make_config)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_some_changes_of_the_disk_changes_no_loss(
    kind: str, tmp_path: Path, small: Path, whole: Any, spawn: Any, make_config: Make
) -> None:
    check_kills(kind, 7, tmp_path, small, whole, spawn, make_config)


def check_random_kills(kind: str, times: int, tmp_path: Path, small: Path, whole: Any, spawn: Any, flags: Make) -> None:
    def train(run: Path, **how: Any) -> Any:
        return spawn(["train", small, "--run", run, "--quiet", *flags(**KINDS[kind])], **how)

    begin = time.monotonic()
    assert train(tmp_path / "alone").wait() == 0
    duration = time.monotonic() - begin
    assert losses(tmp_path / "alone") == whole(kind)
    draw, killed, inside = random.Random(kind), 0, 0
    for i in range(times):
        run = tmp_path / str(i)
        if i % 2:  # at one of its changes of the disk, most of which are within a checkpoint
            child = train(run, kill_at=draw.randint(10, 80))
        else:
            child = train(run)
            end = time.monotonic() + draw.random() * duration
            while time.monotonic() < end and not (run / "result.json").exists():
                time.sleep(0.0005)
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself by now
                os.kill(child.pid, signal.SIGKILL)
        code = child.wait()
        inside += bool(list(run.glob("checkpoints/.*.tmp")))
        assert code in (-signal.SIGKILL, 0), child.err.read_text()
        killed += code != 0
        if not (run / "last.json").exists():  # before the first checkpoint: nothing to go on from
            shutil.rmtree(run, ignore_errors=True)
            assert train(run).wait() == 0
        elif not (run / "result.json").exists():
            child = spawn(["resume", run, "--quiet"])
            assert child.wait() == 0, child.err.read_text()
        assert losses(run) == whole(kind), f"kill {i}"
    assert killed >= times // 2
    assert inside >= times // 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_random_kills_give_twenty_identical_loss_curves(
    kind: str, tmp_path: Path, small: Path, whole: Any, spawn: Any, flags: Make
) -> None:
    check_random_kills(kind, 20, tmp_path, small, whole, spawn, flags)


def test_random_kills_give_identical_loss_curves(tmp_path: Path, small: Path, whole: Any, spawn: Any, flags: Make) -> None:
    check_random_kills("adam", 4, tmp_path, small, whole, spawn, flags)
