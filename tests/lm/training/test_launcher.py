"""Several processes of one training: refused before they start, started by torch's launcher or by torchrun, and ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher import api

import recurrent_lm
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.launched import follows, place
from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.training import launcher
from recurrent_lm.lm.training import process_group as processes
from recurrent_lm.lm.training import ranks as distributed

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_says_who_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert place() == (0, 1), "some clusters set it for all that runs there"
    monkeypatch.setenv("RANK", "3")
    assert place() == (3, 4)
    assert follows()
    with pytest.raises(InputError, match="torchrun"):
        processes.join()


def test_what_several_processes_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig().replace(rows=7, device="cuda:3")
    processes.check(config)
    monkeypatch.setattr(processes, "_current", distributed.Ranks(0, 7, None))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--device cuda:3"):
        processes.check(config)
    processes.check(config.replace(device="cuda"))
    with pytest.raises(InputError, match="8 rows cannot be divided over 7"):
        processes.check(config.replace(rows=8))
    undecided = SimpleNamespace(batches=config.batches, machine=RunConfig().machine)
    undecided.training = SimpleNamespace(on_divergence="rollback")
    with pytest.raises(InputError, match="--on-divergence rollback"):
        processes.check(undecided)  # type: ignore[arg-type]


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    config = RunConfig().replace(device="cuda", threads=1)
    for local in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local)
        processes._take_device(config)
    assert taken == [0, 1]
    processes._take_device(config.replace(device="cpu"))
    assert taken == [0, 1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="2 CUDA devices for 3 processes"):
        processes._take_device(config)


# -- before anything is started -------------------------------------------------------------------------------------


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """What would have been started; it ends with 3."""
    calls: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(launcher, "launch", lambda size, arguments: calls.append((size, arguments)) or 3)
    return calls


def test_each_process_has_the_command_line_that_was_typed(
    tmp_path: Path, corpus: Path, lm_command: Any, flags: Make, trained: Path, launched: Any
) -> None:
    typed = ["train", str(corpus), "--run", str(tmp_path / "run"), *flags(), "--processes", "2"]
    assert lm_command(*typed) == (3, "", ""), "its exit code is that of the processes"
    resume = ["resume", str(trained), "--epochs", "9", "--processes", "4", "--quiet"]
    assert lm_command(*resume)[0] == 3
    assert launched == [(2, typed), (4, resume)]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("how", "processes", "word"),
    [
        ({"rows": 3}, 2, "3 rows cannot be divided over 2"),
        ({}, 10**6, "4 rows cannot be divided"),
        ({}, 0, "--processes must be at least 1"),
        ({"device": "cuda:0"}, 2, "--device cuda:0"),
        ({"on_divergence": "rollback"}, 2, "--on-divergence rollback"),
        ({"ar": 2.0}, 2, "--ar and --tar"),
        ({"tar": 1.0}, 2, "--ar and --tar"),
    ],
)
def test_what_cannot_be_is_refused_before_a_process_is_started(
    tmp_path: Path, corpus: Path, refused: Make, flags: Make, launched: Any, how: dict[str, Any], processes: int, word: str
) -> None:
    assert word in refused("train", corpus, "--run", tmp_path / "run", *flags(**how), "--processes", processes)
    assert launched == []
    assert not (tmp_path / "run").exists()


def test_another_number_than_torchrun_has_started_is_refused(
    monkeypatch: pytest.MonkeyPatch, corpus: Path, refused: Make, flags: Make, launched: Any
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "torchrun has started 4" in refused("train", corpus, *flags(), "--processes", 2)
    assert launched == []


def test_a_run_that_is_not_there_starts_nothing(tmp_path: Path, refused: Make, launched: Any) -> None:
    assert str(tmp_path / "none") in refused("resume", tmp_path / "none", "--processes", 2)
    assert launched == []


# -- how they end ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], list[Any]]:
    """Let torch's launcher raise an error; what it was given."""
    for name in ("OMP_NUM_THREADS", "LOGLEVEL", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))

    def prepare(error: BaseException) -> list[Any]:
        given: list[Any] = []

        def run(config: Any, entrypoint: str) -> Callable[..., None]:
            def start(*arguments: str) -> None:
                given.extend([config, entrypoint, *arguments])
                raise error

            return start

        monkeypatch.setattr(api, "elastic_launch", run)
        return given

    return prepare


@pytest.mark.parametrize(
    ("codes", "expected", "said"),
    [((-9, 2), 2, ""), ((2, -15), 2, ""), ((3, 3), 3, ""), ((-9, -15), 137, "lm: signal 9 ended a process")],
)
def test_the_exit_code_is_the_programs(
    ending: Any, capsys: pytest.CaptureFixture[str], codes: tuple[int, ...], expected: int, said: str
) -> None:
    failures = {rank: ProcessFailure(rank, 1, code, "none") for rank, code in enumerate(codes)}
    for rank, failure in failures.items():
        failure.timestamp = rank
    given = ending(ChildFailedError("lm", failures))
    assert launcher.launch(2, ["train", "--run", "x"]) == expected
    config, *command = given
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node, config.max_restarts) == (1, 1, 2, 0)
    assert command == [sys.executable, "-P", "-m", "recurrent_lm.lm", "train", "--run", "x"]
    assert str(recurrent_lm.ROOT) in os.environ["PYTHONPATH"].split(os.pathsep)
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == bool(said)


def test_a_signal_ends_with_its_number_and_what_does_not_start_is_a_sentence(ending: Any) -> None:
    ending(SignalException("", signal.SIGTERM))
    assert launcher.launch(2, ["train"]) == 143
    ending(RuntimeError("address already in use\nand a stack"))
    with pytest.raises(InputError, match=r"address already in use\)"):
        launcher.launch(2, ["train"])


# -- in earnest -----------------------------------------------------------------------------------------------------


def lm(*arguments: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-m", "recurrent_lm.lm", *map(str, arguments)]
    environment = recurrent_lm.environment({k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"})
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_two_processes_train_and_a_signal_stops_both_saved(
    tmp_path: Path, corpus: Path, flags: Make, fit: Make, read_log: Make
) -> None:
    run, forever = tmp_path / "run", flags(epochs=10_000, patience=0)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        again = ["resume", run, "--processes", 2]
        start = ["train", corpus, "--run", run, *forever, "--processes", 2]
        with lm(*(again if run.exists() else start)) as stopped:
            assert stopped.stdout
            for line in stopped.stdout:
                if line.startswith("epoch "):
                    break
            stopped.send_signal(number)
            _, err = stopped.communicate(timeout=600)
        assert stopped.returncode == code, err
        assert err.startswith("lm: stopped after step ")
        assert err.count("\n") == 1
    losses = [r["loss"] for r in read_log(run / "steps.jsonl")]
    fit(tmp_path / "one", corpus, epochs=10_000, patience=0, max_steps=len(losses))
    assert losses == pytest.approx([r["loss"] for r in read_log(tmp_path / "one" / "steps.jsonl")], rel=1e-3)


@pytest.mark.slow
def test_plain_torchrun_trains_the_same(tmp_path: Path, corpus: Path, flags: Make, fit: Make, read_log: Make) -> None:
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", "--"]
    program = [sys.executable, "-P", "-m", "recurrent_lm.lm"]
    environment = recurrent_lm.environment(dict(os.environ))
    command = [*torchrun, *program, "train", str(corpus), "--run", str(run), *flags()]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert ended.returncode == 0, ended.stderr
    fit(tmp_path / "one", corpus)
    losses = [[r["loss"] for r in read_log(path / "steps.jsonl")] for path in (run, tmp_path / "one")]
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)
