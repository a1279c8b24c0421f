"""A disk that is full or read-only ends a training with one sentence; what was saved is whole and can be gone on from."""

import errno
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_disk import cut_off, failing, fill, losses, mounted, read_only

from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.training import start as launch

Make = Callable[..., Any]

SHORT = {"rows": 8, "bptt": 16, "epochs": 2, "checkpoint_every": 3, "dropout": 0.2, "cell": "lstm"}
FULL = ("open", "write", "mkdir", "fsync")  # what needs space


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, small: Path, make_config: Make) -> Path:
    """A run that was cut off before the end of its first epoch."""
    run = tmp_path_factory.mktemp("begun") / "run"
    training = launch.new_training(make_config(small, **SHORT), run)
    cut_off(training, lambda: training.at.step == 4)
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small: Path, fit: Any) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("whole") / "run"
    fit(path, small, **SHORT)
    return losses(path)


def check_errors(code: int, lasting: bool, step: int, begun: Path, whole: Any, tmp_path: Path, lm_command: Any) -> None:
    """Resume on a disk whose n-th change fails, for n = 1, 1 + step, ...: and then again, on one that works."""

    def fault(description: str, path: str | None) -> None:
        raise OSError(code, os.strerror(code), path)

    only = FULL if code == errno.ENOSPC else ()
    n, refused = 1, 0
    for n in range(1, 1000, step):
        run = tmp_path / str(n)
        shutil.copytree(begun, run)
        with failing(n, fault, lasting, only) as changes:
            result, _, err = lm_command("resume", run, "--quiet")
        if len(changes) < n:
            assert result == 0, err
            assert losses(run) == whole
            break
        description = f"change {n}: {changes[n - 1]}"
        before = checkpoint.load(run, "last").meta["step"]
        assert before >= 3, description
        checkpoint.load(run, "best")
        if result:
            refused += 1
            assert result == 2, description
            assert err.count("\n") == 1, description
            assert ("the disk is full" if code == errno.ENOSPC else os.strerror(code)) in err, description
            assert str(run) in err, f"{description} names no file: {err}"
        else:  # what was to be removed stayed, what was to be made was there
            assert changes[n - 1].split()[0] in ("unlink", "rmdir", "mkdir"), description
        if not (run / "result.json").exists():
            result, _, err = lm_command("resume", run, "--quiet")
            assert (result, err) == (0, ""), description
        assert losses(run) == whole, description
        shutil.rmtree(run)
    assert n > 80, "the whole run was gone through"
    assert refused * step > 80


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.slow
def test_an_error_of_the_disk_at_any_change_loses_nothing(
    code: int, lasting: bool, begun: Path, whole: Any, tmp_path: Path, lm_command: Any
) -> None:
    check_errors(code, lasting, 1, begun, whole, tmp_path, lm_command)


@pytest.mark.parametrize("code, lasting", [(errno.ENOSPC, True), (errno.EROFS, False)])
def test_an_error_of_the_disk_at_some_changes_loses_nothing(
    code: int, lasting: bool, begun: Path, whole: Any, tmp_path: Path, lm_command: Any
) -> None:
    check_errors(code, lasting, 13, begun, whole, tmp_path, lm_command)


def test_a_disk_that_is_full_from_the_start_holds_no_run(
    tmp_path: Path, small: Path, flags: Make, lm_command: Any, fit: Any, whole: Any
) -> None:
    with mounted(tmp_path / "disk", 400_000) as disk:
        filler = fill(disk, 20_000)  # for the settings, and not for a checkpoint
        result, out, err = lm_command("train", small, "--run", disk / "run", "--quiet", *flags(**SHORT))
        assert (result, out, err.count("\n")) == (2, "", 1)
        assert f"the disk is full ({disk / 'run'}" in err
        assert not (disk / "run").exists()
        filler.unlink()
        fit(disk / "run", small, **SHORT)
        assert losses(disk / "run") == whole


def test_a_disk_that_fills_up_ends_a_training_that_goes_on_when_there_is_room(
    tmp_path: Path, small: Path, spawn: Any, flags: Make, fit: Any, lm_command: Any
) -> None:
    settings = {**SHORT, "epochs": 20, "patience": 0, "checkpoint_every": 7}
    with mounted(tmp_path / "disk", 800_000) as disk:
        run = disk / "run"
        child = spawn(["train", small, "--run", run, "--quiet", *flags(**settings)])
        while not (run / "best.json").exists():
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGSTOP)
        filler = fill(disk, 8_192)
        os.kill(child.pid, signal.SIGCONT)
        assert child.wait() == 2
        err = child.err.read_text()
        assert err.count("\n") == 1
        assert f"the disk is full ({run}" in err
        step = checkpoint.load(run, "last").meta["step"]
        assert 5 <= step < 100
        for command in (["generate", run, "--length", 5], ["next", run], ["runs", disk], ["eval", run]):
            assert lm_command(*command)[0] == 0
        result, _, err = lm_command("resume", run, "--quiet")
        assert (result, err.count("\n")) == (2, 1)
        assert "the disk is full" in err
        assert checkpoint.load(run, "last").meta["step"] >= step
        filler.unlink()
        result, _, err = lm_command("resume", run, "--quiet")
        assert (result, err) == (0, "")
        fit(tmp_path / "whole", small, **settings)
        assert losses(run) == losses(tmp_path / "whole")


def test_a_run_on_a_read_only_disk_can_be_used_and_not_gone_on_with(
    tmp_path: Path, small: Path, begun: Path, whole: Any, flags: Make, lm_command: Any
) -> None:
    with mounted(tmp_path / "disk", 400_000) as disk:
        run = disk / "run"
        shutil.copytree(begun, run)
        files = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        with read_only(disk):
            for arguments in (["resume", run, "--quiet"], ["train", small, "--run", disk / "new", *flags()]):
                result, out, err = lm_command(*arguments)
                assert (result, out, err.count("\n")) == (2, "", 1)
                assert "Read-only file system" in err
            reading = [["generate", run, "--length", 5], ["next", run], ["runs", disk], ["eval", run], ["score", run, "We"]]
            for command in reading:
                result, _, err = lm_command(*command)
                assert result == 0, err
        assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == files
        assert lm_command("resume", run, "--quiet")[0] == 0
        assert losses(run) == whole


def test_an_error_in_syncing_a_folder_names_it(
    tmp_path: Path, begun: Path, lm_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shutil.copytree(begun, tmp_path / "run")
    monkeypatch.setattr(os, "fsync", fsync)
    result, _, err = lm_command("resume", tmp_path / "run", "--quiet")
    assert result == 2
    assert f"the disk is full ({tmp_path / 'run' / 'checkpoints'}" in err
