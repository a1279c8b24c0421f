"""torchrun's environment and torchrun itself, with the program's exit codes."""

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

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.training import process_group as processes
from recurrent_lm.lm.training import ranks as distributed
from recurrent_lm.lm.training import torchrun

Make = Callable[..., Any]


def test_the_environment_says_who_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert processes.place() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes.place() == (0, 1), "some clusters set it for all that runs there"
    monkeypatch.setenv("RANK", "3")
    assert processes.place() == (3, 4)
    assert processes.follows()
    monkeypatch.delenv("MASTER_ADDR", raising=False)
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


@pytest.mark.parametrize(
    ("codes", "expected", "said"),
    [((-9, 2), 2, ""), ((2, -15), 2, ""), ((3, 3), 3, ""), ((-9, -15), 137, "lm: signal 9 ended a process")],
)
def test_the_exit_code_is_the_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], codes: tuple[int, ...], expected: int, said: str
) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    got: list[list[str]] = []

    def main(arguments: list[str]) -> None:
        got.append(arguments)
        failures = {rank: ProcessFailure(rank, 1, code, "none") for rank, code in enumerate(codes)}
        for rank, failure in failures.items():
            failure.timestamp = rank
        raise ChildFailedError("lm", failures)

    monkeypatch.setattr(run, "main", main)
    for name in ("OMP_NUM_THREADS", "LOGLEVEL"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    assert torchrun.main(["--nproc-per-node", "2", "-m", "recurrent_lm.lm", "train", "--run", "x"]) == expected
    assert got == [["--nproc-per-node", "2", "-m", "--", "lm", "train", "--run", "x"]]
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--nproc-per-node", "0"], "a number is out of range"),
        (["--nproc-per-node", "many"], "many"),
        (["--nnodes", "2:1"], "nodes"),
        (["--nnodes", "few"], "few"),
        (["--rdzv-endpoint", "here:there"], "here:there"),
    ],
)
def test_torchrun_s_own_arguments_are_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    for name in ("LOGLEVEL", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1" if name == "OMP_NUM_THREADS" else "CRITICAL"))
    assert torchrun.main([*arguments, "-m", "recurrent_lm.lm", "runs"]) == 2
    said = capfd.readouterr().err
    assert said.startswith("lm: torchrun cannot take its arguments: ")
    assert word in said
    assert said.count("\n") == 1


def test_machines_that_do_not_meet_are_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from torch.distributed import run

    def main(arguments: list[str]) -> None:
        raise RuntimeError("address already in use\nand a stack")

    monkeypatch.setattr(run, "main", main)
    for name in ("OMP_NUM_THREADS", "LOGLEVEL"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    assert torchrun.main(["--nnodes", "2", "-m", "recurrent_lm.lm"]) == 1
    assert capsys.readouterr().err == "lm: the machines cannot reach each other: address already in use\n"


@pytest.mark.slow
def test_torchrun_itself(tmp_path: Path, corpus: Path, flags: Make, fit: Make, read_log: Make) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}

    def start(module: str, *arguments: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", module, "--nproc-per-node", "2", "-m", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    run = tmp_path / "run"
    with start("torch.distributed.run", "--", "lm", "train", corpus, "--run", run, *flags()) as ended:
        out, err = ended.communicate(timeout=900)
    assert ended.returncode == 0, err
    fit(tmp_path / "one", corpus)
    losses = [[r["loss"] for r in read_log(path / "steps.jsonl")] for path in (run, tmp_path / "one")]
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)

    with start("recurrent_lm.lm.training.torchrun", "lm", "train", corpus, "--run", tmp_path / "no", *flags(rows=3)) as refused:
        out, err = refused.communicate(timeout=900)
    assert refused.returncode == 2
    assert err.startswith("lm: 3 rows cannot be divided over 2 processes")
    assert (out, err.count("\n")) == ("", 1)

    with start(
        "recurrent_lm.lm.training.torchrun",
        "lm",
        "train",
        corpus,
        "--run",
        tmp_path / "long",
        *flags(epochs=10_000, patience=0),
    ) as stopped:
        assert stopped.stdout
        for line in stopped.stdout:
            if line.startswith("epoch 2:"):
                break
        stopped.send_signal(signal.SIGTERM)
        out, err = stopped.communicate(timeout=900)
    assert stopped.returncode == 143
    assert err.startswith("lm: stopped after step ")
    assert err.count("\n") == 1
