"""A run that is killed, torn or stopped anywhere goes on as if nothing had happened."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equal_runs import equal_runs

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.training import start as launch

Log = Callable[[Path], list[dict[str, Any]]]
Make = Callable[..., Any]

NOISE = {"dropout": 0.3, "embedding_dropout": 0.1, "weight_drop": 0.2, "checkpoint_every": 3}
KINDS: dict[str, dict[str, Any]] = {
    "adam": {"cell": "lstm", "optimizer": "adam", "lr": 0.02, "epochs": 3, **NOISE},
    "sgd-plateau": {"cell": "gru", "optimizer": "sgd", "lr": 40.0, "clip": "norm:0.5", "epochs": 5, "patience": 0, **NOISE},
    "adamw-never": {"cell": "rnn-tanh", "optimizer": "adamw", "state": "never", "locked": False, "layers": 2, **NOISE},
    "average": {"cell": "lstm", "average": 0.9, "schedule": "constant", "lr": 0.02, "epochs": 3, **NOISE},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, make_text: Callable[..., str]) -> Path:
    path = tmp_path_factory.mktemp("small") / "t.txt"
    path.write_text(make_text(800))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small: Path, fit: Any) -> Callable[[str], Path]:
    """The uninterrupted run of a kind, trained once."""
    folder = tmp_path_factory.mktemp("whole")

    def get(kind: str) -> Path:
        if not (folder / kind).exists():
            fit(folder / kind, small, **KINDS[kind])
        return folder / kind

    return get


def lines(run: Path) -> int:
    try:
        return (run / "steps.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def wait_for(condition: Callable[[], bool], child: Any) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.0005)


def test_the_uninterrupted_runs_are_worth_comparing(whole: Any, read_log: Log) -> None:
    assert len({r["lr"] for r in read_log(whole("sgd-plateau") / "steps.jsonl")}) > 1, "the plateau was met"
    for kind in KINDS:
        assert len({r["loss"] for r in read_log(whole(kind) / "steps.jsonl")}) > 30


@pytest.mark.parametrize("kind", ["adam", "sgd-plateau"])
def test_sigkill_at_random_instants(
    tmp_path: Path, small: Path, whole: Any, spawn: Any, flags: Make, read_log: Log, kind: str
) -> None:
    run, expected = tmp_path / "run", whole(kind)
    total = lines(expected)
    draw = random.Random(kind)
    arguments = ["train", small, "--run", run, "--quiet", *flags(**KINDS[kind])]
    killed = 0
    for _ in range(60):
        child = spawn(arguments)
        begin = checkpoint.load(run, "last").meta["step"] if (run / "last.json").exists() else 0
        wait_for(lambda: (run / "last.json").exists(), child)
        goal = begin + draw.randrange(total // 10, total // 2)
        delay = draw.random() * 0.02
        wait_for(lambda goal=goal: lines(run) >= goal or (run / "result.json").exists(), child)  # type: ignore[misc]
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself by now
            os.kill(child.pid, signal.SIGKILL)
        code = child.wait()
        assert code in (-signal.SIGKILL, 0), child.err.read_text()
        killed += code != 0
        if (run / "result.json").exists():
            break
        if draw.random() < 0.5:  # what a power failure may leave of a line
            with (run / "steps.jsonl").open("ab") as log:
                log.write(b'{"step": 1000, "loss": 2.')
        assert checkpoint.load(run, "last").meta["step"] <= lines(run)
        arguments = ["resume", run, "--quiet"]
    assert killed >= 2
    equal_runs(run, expected, read_log)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_at_every_change_of_the_disk(
    tmp_path: Path, small: Path, whole: Any, make_config: Make, read_log: Log, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The run is cut off at the n-th rename, n growing, so that every save of it is once interrupted midway."""

    class Crash(BaseException):
        pass

    run = tmp_path / "run"
    training = launch.new_training(make_config(small, **KINDS[kind]), run)
    crashes = 0
    for attempt in range(500):
        count = 0
        allowed = 3 + attempt % 5

        def counting(real: Callable[..., Any], allowed: int = allowed) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal count
                count += 1
                if count > allowed:
                    raise Crash
                return real(*arguments)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", counting(os.rename))
            patch.setattr(os, "replace", counting(os.replace))
            try:
                training.run(quiet=True)
                break
            except Crash:
                crashes += 1
        training = launch.resume(run)
    assert crashes > 5
    equal_runs(run, whole(kind), read_log)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("kind", ["adam"])
def test_signals_save_and_exit(
    tmp_path: Path, small: Path, whole: Any, spawn: Any, flags: Make, read_log: Log, kind: str, number: int, code: int
) -> None:
    run, expected = tmp_path / "run", whole(kind)
    how = {**KINDS[kind], "checkpoint_every": 10_000}
    arguments = ["train", small, "--run", run, "--quiet", *flags(**how)]
    stops = 0
    for goal in (5, 30):
        child = spawn(arguments)
        wait_for(lambda goal=goal: lines(run) >= goal, child)  # type: ignore[misc]
        os.kill(child.pid, number)
        result = child.wait()
        message = child.err.read_text()
        if result == 0:
            break
        assert result == code, message
        assert message.count("\n") == 1
        assert "Traceback" not in message
        assert f"lm resume {run}" in message
        stops += 1
        step = checkpoint.load(run, "last").meta["step"]
        assert step == lines(run), "all that was done is saved"
        assert f"step {step}" in message
        arguments = ["resume", run, "--quiet"]
    assert stops
    if not (run / "result.json").exists():
        assert spawn(arguments).wait() == 0
    equal_runs(run, expected, read_log)


class Now(BaseException):
    pass


@pytest.mark.parametrize("place", ["training", "validation", "conclusion"])
def test_a_signal_is_honoured_in_every_phase(
    tmp_path: Path, small: Path, whole: Any, make_config: Make, read_log: Log, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    from recurrent_lm.lm.base.errors import Stopped
    from recurrent_lm.lm.training import loop as train

    run = tmp_path / "run"
    training = launch.new_training(make_config(small, **KINDS["adam"]), run)
    real_update, real_evaluate = training.update, train.evaluate
    calls = 0

    def update(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if place == "training" and calls == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_update(batch)

    def evaluate(*arguments: Any, **how: Any) -> Any:
        if training.concluding == (place == "conclusion") and place != "training":
            os.kill(os.getpid(), signal.SIGTERM)
        return real_evaluate(*arguments, **how)

    monkeypatch.setattr(training, "update", update)
    monkeypatch.setattr(train, "evaluate", evaluate)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as caught:
        training.run(quiet=True)
    assert caught.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler, "the handlers are given back"
    assert not (run / "result.json").exists()
    if place == "training":
        assert training.at.step == 7
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    launch.resume(run).run(quiet=True)
    equal_runs(run, whole("adam"), read_log)


@pytest.fixture
def stopped(tmp_path: Path, small: Path, make_config: Make) -> Path:
    """A run cut off in its second epoch."""
    run = tmp_path / "stopped"
    training = launch.new_training(make_config(small, **KINDS["adam"]), run)
    real = training.update

    def update(batch: Any) -> Any:
        if training.at.step == 30:
            raise Now
        return real(batch)

    training.update = update  # type: ignore[method-assign]
    with pytest.raises(Now):
        training.run(quiet=True)
    assert training.at.epoch == 1
    return run


@pytest.mark.parametrize(
    "tail", [b'{"step": 31, "lo', b"\x00\x00\x00", b'{"step": 31}', b'{"step": 31, "loss": 9}\n{"step": 32}\n']
)
def test_the_step_log_is_cut_back_and_a_torn_line_borne(stopped: Path, whole: Any, read_log: Log, tail: bytes) -> None:
    for name in ("steps.jsonl", "epochs.jsonl"):
        with (stopped / name).open("ab") as log:
            log.write(tail.replace(b"step", b"epoch") if name == "epochs.jsonl" else tail)
    launch.resume(stopped).run(quiet=True)
    equal_runs(stopped, whole("adam"), read_log)


def test_a_restored_training_stands_where_it_stood(stopped: Path) -> None:
    saved = checkpoint.load(stopped, "last")
    training = launch.resume(stopped)
    assert training.at.step == saved.meta["step"] == 30
    assert 0 < training.at.batch < len(training.batches)
    assert torch.equal(torch.get_rng_state(), saved.groups["state"]["random.cpu"])
    assert any(t.any() for t in checkpoint.load(stopped).groups["state"].values() if t.is_floating_point())
    assert list(training.recent) == saved.meta["recent"]
    assert len(training.recent) == 8


def test_a_run_can_be_moved(stopped: Path, tmp_path: Path, whole: Any, read_log: Log) -> None:
    moved = tmp_path / "elsewhere" / "run"
    moved.parent.mkdir()
    shutil.move(stopped, moved)
    launch.resume(moved).run(quiet=True)
    equal_runs(moved, whole("adam"), read_log)


def test_a_finished_run_is_refused_and_untouched(trained: Path, refused: Any) -> None:
    before = {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()}
    message = refused("resume", trained)
    assert "finished" in message
    assert f"--init-from {trained}" in message
    assert {p: p.read_bytes() for p in trained.rglob("*") if p.is_file()} == before


def test_a_changed_corpus_is_refused(stopped: Path, small: Path, refused: Any, make_text: Callable[..., str]) -> None:
    text = small.read_text()
    steps = (stopped / "steps.jsonl").read_bytes()
    try:
        for changed in (text.replace("jobs", "sobj", 1), text + " We need more.", text[: len(text) // 2]):
            small.write_text(changed)
            assert "corpus" in refused("resume", stopped)
            assert (stopped / "steps.jsonl").read_bytes() == steps
        small.unlink()
        assert "--corpus PATH" in refused("resume", stopped)
    finally:
        small.write_text(text)


def test_a_run_of_a_gpu_goes_on_on_a_cpu_when_asked(
    stopped: Path, refused: Any, lm_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = stopped / "config.toml"
    config.write_text(config.read_text().replace('device = "cpu"', 'device = "cuda:1"'))
    folder = stopped / "checkpoints" / json.loads((stopped / "last.json").read_text())["folder"]
    saved = checkpoint.load(stopped)
    saved.groups["state"]["random.cuda"] = torch.zeros(16, dtype=torch.uint8)  # what a GPU's run stores
    checkpoint.save(stopped, saved)
    assert not folder.exists()
    message = refused("resume", stopped)
    assert "cuda:1" in message
    assert "--device cpu" in message
    code, _, err = lm_command("resume", stopped, "--device", "cpu", "--quiet")
    assert code == 0, err
    assert (stopped / "result.json").exists()
    assert runs.load(stopped).config.machine.device == "cuda:1"


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", "mps", ""])
def test_an_unknown_device_is_a_sentence(stopped: Path, refused: Any, lm_command: Any, device: str) -> None:
    if device:
        assert "--device" in refused("resume", stopped, "--device", device)
    else:
        assert lm_command("resume", stopped, "--device", "", "--quiet")[0] == 0


@pytest.mark.parametrize(
    "group, key", [("optimizer", ""), ("state", "random.cpu"), ("state", "carried.0"), ("model", "decoder.bias")]
)
def test_a_checkpoint_that_lacks_something_is_refused(stopped: Path, refused: Any, group: str, key: str) -> None:
    saved = checkpoint.load(stopped)
    if key:
        del saved.groups[group][key]
    else:
        del saved.groups[group]
    checkpoint.save(stopped, saved)
    message = refused("resume", stopped)
    assert re.search("checkpoint|weights", message)


def test_another_shape_of_the_carried_state_is_refused(stopped: Path, refused: Any) -> None:
    saved = checkpoint.load(stopped)
    saved.groups["state"]["carried.0"] = torch.zeros(1, 5, 8)
    checkpoint.save(stopped, saved)
    refused("resume", stopped)


def test_resuming_what_is_no_run(tmp_path: Path, refused: Any) -> None:
    assert "there is no run" in refused("resume", tmp_path / "none")
    assert "not a run folder" in refused("resume", tmp_path)


def test_a_run_without_its_first_checkpoint_says_so(tmp_path: Path, small: Path, make_config: Make) -> None:
    launch.new_training(make_config(small), tmp_path / "run").run(quiet=True)
    for name in ("last.json", "best.json", "result.json"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(InputError, match="no checkpoint"):
        launch.resume(tmp_path / "run")
