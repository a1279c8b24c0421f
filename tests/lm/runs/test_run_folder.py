"""A run folder belongs to one training at a time, appears whole or not at all, and holds nothing that is not its own."""

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm.lm.base.errors import InputError, Stopped
from recurrent_lm.lm.base.signals import ending_at_once
from recurrent_lm.lm.base.storage import lock, write_atomic
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.training import start as launch
from recurrent_lm.lm.training.loop import Training

Make = Callable[..., Any]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def begun(run: Path) -> bool:
    return (run / "steps.jsonl").exists() and (run / "steps.jsonl").stat().st_size > 0


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# -- one at a time --------------------------------------------------------------------------------------------------


def test_resuming_a_run_that_still_trains_is_refused_and_harms_nothing(
    tmp_path: Path, corpus: Path, spawn: Any, refused: Any, flags: Make, fit: Any
) -> None:
    run, settings = tmp_path / "run", {"epochs": 4, "checkpoint_every": 5}
    child = spawn(["train", corpus, "--run", run, "--quiet", *flags(**settings)])
    wait_for(lambda: begun(run))
    os.kill(child.pid, signal.SIGSTOP)
    before = contents(run)
    assert "in use by another process" in refused("resume", run)
    assert "exists already" in refused("train", corpus, "--run", run, *flags())
    assert contents(run) == before
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait() == 0, child.err.read_text()
    fit(tmp_path / "alone", corpus, **settings)
    assert (run / "steps.jsonl").read_bytes() == (tmp_path / "alone" / "steps.jsonl").read_bytes()


def test_a_killed_training_leaves_no_lock(tmp_path: Path, corpus: Path, spawn: Any, flags: Make, lm_command: Any) -> None:
    run = tmp_path / "run"
    child = spawn(["train", corpus, "--run", run, "--quiet", *flags(epochs=1000, patience=0)])
    wait_for(lambda: begun(run))
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    config = run / "config.toml"
    config.write_text(config.read_text().replace("epochs = 1000", "epochs = 1"))
    code, _, err = lm_command("resume", run, "--quiet")
    assert code == 0, err


@pytest.fixture
def unfinished(tmp_path: Path, corpus: Path, make_config: Make) -> Path:
    """A run that stands at its first step, and that nobody trains."""
    training = launch.new_training(make_config(corpus, epochs=1), tmp_path / "unfinished")
    training.signum = signal.SIGTERM
    with pytest.raises(Stopped):
        training.run(quiet=True)
    return tmp_path / "unfinished"


def test_the_lock_is_held_from_the_beginning_to_the_end(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    training = launch.new_training(make_config(corpus, max_steps=1), tmp_path / "run")
    with pytest.raises(InputError, match="another process"):
        launch.resume(tmp_path / "run")
    training.run(quiet=True)
    lock(tmp_path / "run").release()


def test_a_resumed_training_holds_the_lock_until_it_ends(unfinished: Path) -> None:
    training = launch.resume(unfinished)
    with pytest.raises(InputError, match="another process"):
        launch.resume(unfinished)
    training.run(quiet=True)
    lock(unfinished).release()


def test_a_refused_resume_gives_the_lock_back(unfinished: Path) -> None:
    (unfinished / "last.json").write_text("{}")
    with pytest.raises(InputError, match="damaged") as caught:
        launch.resume(unfinished)
    assert caught.tb, "keeps whatever the failed call still held"
    lock(unfinished).release()


def test_a_file_system_without_locks_is_no_obstacle(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert launch.resume(unfinished).run(quiet=True)["test"].loss > 0


def test_a_run_that_may_not_be_written_to_gets_advice_that_resume_can_follow(
    unfinished: Path, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any, **how: Any) -> int:
        if str(path).startswith(str(unfinished)) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest, **how)

    monkeypatch.setattr(os, "open", read_only)
    message = refused("resume", unfinished)
    assert f"{unfinished} cannot be written to: Read-only file system" in message
    assert "resume a copy" in message
    assert "--run" not in message


# -- whole or not at all --------------------------------------------------------------------------------------------


class Trouble(BaseException):
    pass


@pytest.mark.parametrize("trouble", [Trouble(), OSError(errno.ENOSPC, "No space left on device"), RuntimeError("odd")])
@pytest.mark.parametrize("was_there", ["", "folder", "link to a folder"])
@pytest.mark.parametrize("where", ["tokens.json", "first checkpoint"])
def test_what_fails_before_the_first_checkpoint_takes_the_folder_away(
    tmp_path: Path,
    corpus: Path,
    make_config: Make,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    was_there: str,
    trouble: BaseException,
) -> None:
    run = tmp_path / "run"
    if was_there:
        (tmp_path / "target").mkdir()
        run.symlink_to(tmp_path / "target") if "link" in was_there else run.mkdir()

    def write(path: Path, data: bytes) -> None:
        if path.name == where:
            raise trouble
        write_atomic(path, data)

    def save(training: Training, best: bool = False) -> None:
        raise trouble

    monkeypatch.setattr(launch, "write_atomic", write)
    if where == "first checkpoint":
        monkeypatch.setattr(Training, "save", save)
    with pytest.raises(type(trouble)):
        launch.new_training(make_config(corpus), run)
    assert run.exists() is bool(was_there)
    assert not was_there or list(run.iterdir()) == []
    monkeypatch.undo()
    launch.new_training(make_config(corpus), run)


def test_a_training_that_is_beaten_to_its_folder_leaves_the_winners(
    tmp_path: Path, corpus: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr(runs, "create", lambda path, name: path)  # as if both had found it empty
    winner = launch.new_training(make_config(corpus, max_steps=1), run)
    before = contents(run)
    with pytest.raises(InputError, match="another process"):
        launch.new_training(make_config(corpus), run)
    assert contents(run) == before
    winner.run(quiet=True)


def test_a_signal_at_any_early_instant_leaves_no_folder_or_a_run_to_resume(
    tmp_path: Path, corpus: Path, spawn: Any, flags: Make, lm_command: Any
) -> None:
    run, draw = tmp_path / "run", random.Random(1)
    arguments = ["train", corpus, "--run", run, "--quiet", *flags(epochs=1000, patience=0)]
    ends = set()
    for attempt in range(24):
        number = draw.choice([signal.SIGINT, signal.SIGTERM])
        child = spawn(arguments)
        wait_for(run.exists if attempt % 2 else child.err.exists)  # Python drops signals in the instant after a fork
        time.sleep(draw.random() * 0.1)
        os.kill(child.pid, number)
        code, message = child.wait(), child.err.read_text()
        assert "Traceback" not in message
        assert message.count("\n") <= 1
        if not run.exists():
            assert code in (128 + number, -number)
            assert not message or "stopped before the first step; nothing was kept" in message
            ends.add("nothing")
            continue
        assert code == 128 + number
        assert f"all saved; go on with: lm resume {run}" in message
        assert launch.resume(run).at.step == checkpoint.load(run).meta["step"]
        ends.add("run")
        for path in sorted(run.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        run.rmdir()
    assert ends == {"nothing", "run"}


def test_who_begins_a_training_hears_of_the_folder_when_it_can_be_resumed(
    tmp_path: Path, corpus: Path, make_config: Make
) -> None:
    """A signal may end the process in the next instant, and its last sentence says what is there."""
    heard: list[tuple[Path, int, bool]] = []

    def begun(folder: Path) -> None:
        noted = signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
        heard.append((folder, checkpoint.load(folder).meta["step"], noted))

    launch.new_training(make_config(corpus), tmp_path / "run", begun)
    assert heard == [(tmp_path / "run", 0, True)]


def test_a_signal_that_comes_with_the_folder_stops_before_the_first_update(
    tmp_path: Path, corpus: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoint.save

    def save(*arguments: Any, **how: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        real(*arguments, **how)

    monkeypatch.setattr(checkpoint, "save", save)
    training = launch.new_training(make_config(corpus), tmp_path / "run")
    with pytest.raises(Stopped, match=r"stopped after step 0, all saved; go on with: lm resume"):
        training.run(quiet=True)
    assert checkpoint.load(tmp_path / "run").meta["step"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_with_nothing_to_save_a_signal_ends_the_process_at_once(number: int) -> None:
    program = (
        "import os\nfrom recurrent_lm.lm.base.signals import ending_at_once\nwith ending_at_once(lambda: 'so be it'):\n"
        f"    try:\n        os.kill(os.getpid(), {int(number)})\n        print('went on')\n"
        "    except BaseException:\n        print('an exception, which an import may swallow')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "lm: so be it\n")


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyError), ending_at_once(str):
        assert signal.getsignal(signal.SIGTERM) not in before
        raise KeyError
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


# -- what is there already ------------------------------------------------------------------------------------------


def test_advice_for_a_taken_place_depends_on_what_is_there(
    tmp_path: Path, corpus: Path, unfinished: Path, refused: Any, flags: Make
) -> None:
    message = refused("train", corpus, "--run", unfinished, *flags())
    assert f"exists already; choose another --run, or go on with it: lm resume {unfinished}" in message
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_text("")
    (tmp_path / "file").write_text("")
    for name in ("photos", "file"):
        message = refused("train", corpus, "--run", tmp_path / name, *flags())
        assert f"{name} exists already and is no run; choose another --run\n" in message
        assert "resume" not in message


def test_only_checkpoints_are_ever_removed(unfinished: Path) -> None:
    folder = unfinished / "checkpoints"
    foreign = ["keep-me", "step", "step-best", "step-1 (copy)", ".hidden", "my.step-1.tmp"]
    rows = ["step-00000001", "step-00000001.2", ".step-00000009.tmp", ".step-00000009.1.tmp"]
    for name in [*foreign, *rows]:
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    (folder / "notes.txt").write_text("mine")
    checkpoint.save(unfinished, checkpoint.load(unfinished))
    kept = json.loads((unfinished / "last.json").read_bytes())["folder"]
    assert {p.name for p in folder.iterdir()} == {*foreign, "notes.txt", kept}
    assert (folder / "keep-me" / "file").read_text() == "x"


def test_a_run_s_settings_name_a_downloaded_corpus_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_config: Make
) -> None:
    """A folder of the same name beside it is another corpus."""
    absolute = launch._absolute
    (tmp_path / "robotrump").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute(make_config("robotrump")).corpus.source == "robotrump"
    assert absolute(make_config("./robotrump")).corpus.source == str(tmp_path / "robotrump")
