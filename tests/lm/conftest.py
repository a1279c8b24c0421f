"""A tiny corpus, tiny settings, tiny runs, and processes that start at once and can be killed."""

import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Child

TINY: dict[str, Any] = {
    "kind": "char",
    "cell": "gru",
    "hidden_size": 8,
    "rows": 4,
    "bptt": 8,
    "dropout": 0.0,
    "epochs": 2,
    "threads": 1,
    "precision": "float32",
    "device": "cpu",
}
FLAGS = {"kind": "--tokens"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before, random_state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.set_rng_state(random_state)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not survive a power failure anyway; test_checkpoint counts the calls."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Child]:
    """``spawn(arguments)`` starts ``lm`` in a process of its own.

    It has ``file_size`` bytes for a file, and kills itself at its ``kill_at``-th change of the disk, where that is not 0.
    """
    folder = tmp_path_factory.mktemp("spawned")
    number = itertools.count()

    def start(arguments: list[Any], file_size: int = 0, kill_at: int = 0) -> Child:
        files = folder / f"{next(number)}"
        first = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({file_size}, {file_size}))\n" if file_size else ""
        if kill_at:
            first += f"import faulty_disk; doom = faulty_disk.failing({kill_at}, faulty_disk.die); doom.__enter__()"
        return Child("lm", arguments, files.with_suffix(".out"), files.with_suffix(".err"), first=first, cwd=folder)

    return start


def speech(characters: int, seed: int = 0) -> str:
    """Sentences of a small grammar."""
    draw = random.Random(seed)
    words = {
        "who": ("we", "the people", "our workers", "they", "all of us"),
        "do": ("build", "want", "need", "love", "keep"),
        "what": ("jobs", "schools", "the country", "a wall", "peace", "good roads"),
    }
    text = ""
    while len(text) < characters:
        text += " ".join(draw.choice(options) for options in words.values()).capitalize() + draw.choice([".", "!", "?"]) + " "
    return text[: characters - 2] + ".\n"


@pytest.fixture(scope="session")
def make_text() -> Callable[..., str]:
    return speech


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One document of 2,000 characters."""
    path = tmp_path_factory.mktemp("corpus") / "speech.txt"
    path.write_text(speech(2000))
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One document of 800 characters."""
    path = tmp_path_factory.mktemp("small") / "speech.txt"
    path.write_text(speech(800))
    return path


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Any]:
    """``make_config(source, **settings)``: tiny settings and the given ones."""
    from recurrent_lm.lm.config import RunConfig

    def make(source: Path | str, **settings: Any) -> RunConfig:
        return RunConfig().replace(**{**TINY, "source": str(source), **settings})

    return make


@pytest.fixture(scope="session")
def flags() -> Callable[..., list[str]]:
    """The command line of tiny settings and the given ones."""
    from recurrent_lm.lm.base.settings import flag_of
    from recurrent_lm.lm.config import RunConfig

    names = {f.name: flag_of(f) for _, f in RunConfig.settings()}

    def make(**settings: Any) -> list[str]:
        arguments = []
        for name, value in {**TINY, **settings}.items():
            flag = names[name]
            arguments += [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [flag, str(value)]
        return arguments

    return make


@pytest.fixture(scope="session")
def fit(make_config: Callable[..., Any]) -> Callable[..., Any]:
    """``fit(path, source, **settings)`` trains to the end and gives the Training."""

    def train(path: Path, source: Path | str, **settings: Any) -> Any:
        from recurrent_lm.lm.training.start import new_training

        training = new_training(make_config(source, **settings), path)
        training.run(quiet=True)
        return training

    return train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path, fit: Callable[..., Any]) -> Path:
    """A finished run of a small char LSTM, to be read only."""
    path = tmp_path_factory.mktemp("trained") / "run"
    threads = torch.get_num_threads()
    fit(path, corpus, cell="lstm", hidden_size=16, epochs=6, lr=0.02)
    torch.set_num_threads(threads)
    return path


@pytest.fixture(scope="session")
def trained_words(tmp_path_factory: pytest.TempPathFactory, corpus: Path, fit: Callable[..., Any]) -> Path:
    """A finished run of a small word GRU, to be read only."""
    path = tmp_path_factory.mktemp("trained") / "run"
    threads = torch.get_num_threads()
    fit(path, corpus, kind="word", epochs=4, lr=0.03, rows=2)
    torch.set_num_threads(threads)
    return path


@pytest.fixture(scope="session")
def read_log() -> Callable[[Path], list[dict[str, Any]]]:
    def read(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


@pytest.fixture
def lm_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``lm_command(*arguments)`` runs ``lm`` in this process: (exit code, stdout, stderr). A traceback fails the test."""
    from recurrent_lm.lm.commands.cli import app, run_app

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_app(app, "lm", [str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def refused(lm_command: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """``refused(*arguments)``: the one sentence with which ``lm`` refuses them."""

    def run(*arguments: Any) -> str:
        code, out, err = lm_command(*arguments)
        assert code == 2, (code, out, err)
        assert "Traceback" not in err
        assert err.startswith("lm: ")
        assert err.count("\n") == 1, "one line"
        assert len(err) > len("lm: ") + 10, "a sentence"
        return err

    return run
