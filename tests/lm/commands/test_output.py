"""What is said, where it goes, and what happens where it cannot go anywhere."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import Child, ended

from recurrent_lm.lm import resources
from recurrent_lm.lm.text.data import prepare
from recurrent_lm.lm.training import start as launch

Make = Callable[..., Any]
PYTHON = [sys.executable, "-m", "recurrent_lm.lm"]
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only some systems have a device that is always full")


def shell(command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ | environment)


# -- nowhere to write to --------------------------------------------------------------------------------------------


@FULL
@pytest.mark.parametrize("arguments", ["corpora list", "--version", "params"])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_output_that_cannot_be_written_is_called_that(arguments: str, buffered: str) -> None:
    done = shell(f"{shlex.join(PYTHON)} {arguments} > /dev/full", PYTHONUNBUFFERED=buffered)
    assert done.returncode == 2
    assert done.stderr == "lm: the output could not be written: No space left on device; send it elsewhere\n"


@FULL
def test_a_training_goes_on_without_its_output(tmp_path: Path, corpus: Path, flags: Make) -> None:
    arguments = ["train", corpus, "--run", tmp_path / "run", *flags(max_steps=2)]
    done = Child("lm", arguments, Path("/dev/full"), tmp_path / "err")
    assert done.wait() == 0
    output = "lm: the output could not be written: No space left on device; going on without it\n"
    assert done.err.read_text() == output
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
@pytest.mark.parametrize("arguments", ["runs RUNS", "params", "corpora show TEXT", "corpora list"])
def test_a_closed_output_is_no_traceback(trained: Path, corpus: Path, arguments: str, closed: str) -> None:
    arguments = arguments.replace("RUNS", str(trained.parent)).replace("TEXT", str(corpus))
    done = shell(f"{shlex.join(PYTHON)} {arguments} {closed}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_output_does_not_end_in_the_files_of_a_run(tmp_path: Path, corpus: Path, flags: Make) -> None:
    run = tmp_path / "run"
    closed = "import os, sys; os.close(1); os.close(2); sys.stdout = sys.stderr = None"  # as Python begins without them
    code, *output = ended(tmp_path, "lm", ["train", corpus, "--run", run, *flags(max_steps=2)], first=closed)
    assert (code, output) == (0, ["", ""])
    assert (run / "steps.jsonl").read_text().count("\n") == 2
    assert all("document" not in p.read_text() for p in run.glob("*.jsonl"))


# -- a command line with the wrong kind of value --------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["train", "--rows", "abc"], "--rows must be a whole number, not 'abc'"),
        (["train", "--rows", "2.5"], "--rows must be a whole number, not '2.5'"),
        (["train", "--rows", ""], "--rows must be a whole number, not ''"),
        (["train", "--lr", "fast"], "--lr must be a number, not 'fast'"),
        (["train", "--lr", "x" * 500], f"--lr must be a number, not '{'x' * 49}..."),
        (["generate", "RUN", "--length", "many"], "--length must be a whole number, not 'many'"),
        (["corpora", "show", "--top", "1e3"], "--top must be a whole number, not '1e3'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_what_it_should_be(refused: Any, arguments: list[str], sentence: str) -> None:
    assert refused(*arguments) == f"lm: {sentence}\n"


def test_a_run_has_a_vocabulary_of_its_own(trained: Path, refused: Any) -> None:
    assert "either a RUN or --vocabulary, not both" in refused("params", trained, "--vocabulary", 5)
    assert "not both" in refused("params", trained, "--vocabulary", 10_000)


# -- what a training says -------------------------------------------------------------------------------------------


def test_the_introduction_gives_the_reason_for_the_precision(
    tmp_path: Path, corpus: Path, flags: Make, lm_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(**settings: Any) -> str:
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        return str(lm_command("train", corpus, "--run", run, *flags(max_steps=1, **settings))[1])

    assert "torch backend, float32 (as asked)" in say()
    assert "eager backend, float32 (the eager backend is the reference)" in say(backend="eager", precision="auto")
    monkeypatch.setattr(resources, "trial", lambda config, vocabulary: [(1.0, 2.0)])
    assert "float32 (a trial of the products ran 0.5 times as fast in bfloat16)" in say(precision="auto")


def test_a_resumed_training_keeps_its_precision_and_says_so(
    tmp_path: Path, corpus: Path, make_config: Make, lm_command: Any
) -> None:
    training = launch.new_training(make_config(corpus, max_steps=1), tmp_path / "run")
    assert training.lock
    training.lock.release()  # it would be only when the training is collected
    assert "float32 (as the run was begun)" in lm_command("resume", tmp_path / "run")[1]


@pytest.mark.parametrize(
    "text, kind, prompt",
    [
        ("We know the people. They know the people! ", "word", "We know"),
        ("Wir wollen Arbeit. Alle wollen Arbeit! ", "word", "Wir wollen"),
        ("Wir wollen Arbeit. Alle wollen Arbeit! ", "bpe", "Wir wollen"),
        ("жили были. жили мы! ", "char", "жили были"),
    ],
)
def test_the_prompt_to_try_is_known(
    tmp_path: Path, flags: Make, lm_command: Any, make_config: Make, text: str, kind: str, prompt: str
) -> None:
    file = tmp_path / "text.txt"
    file.write_text(text * 40)
    run = tmp_path / "my run"
    size = {"vocab_size": 300} if kind == "bpe" else {}
    code, out, err = lm_command("train", file, "--run", run, *flags(kind=kind, max_steps=1, rows=2, **size))
    assert code == 0, err
    command = out.splitlines()[-3].strip()
    assert command == f"lm generate '{run}' --prompt '{prompt}'"
    assert not prepare(make_config(file, kind=kind, **size)).tokenizer.unknown(prompt)
    code, out, err = lm_command(*shlex.split(command)[1:], "--length", 3, "--no-copied")
    assert (code, err) == (0, "")
    assert out.startswith(prompt)


def test_a_first_word_that_is_rare_is_not_proposed(tmp_path: Path, flags: Make, lm_command: Any) -> None:
    (tmp_path / "text.txt").write_text("Hapax legomenon. " + "Wir wollen Arbeit. Alle wollen Arbeit! " * 40)
    out = lm_command("train", tmp_path / "text.txt", "--run", tmp_path / "run", *flags(kind="word", max_steps=1, rows=2))[1]
    assert out.splitlines()[-3].endswith("--prompt 'Wir wollen'")


def test_advice_quotes_a_path_with_a_blank(tmp_path: Path, trained: Path, refused: Any) -> None:
    run = tmp_path / "my run"
    shutil.copytree(trained, run)
    assert f"lm train --init-from '{run}'" in refused("resume", run)
    assert f"lm resume '{run}'" in refused("train", "obama", "--run", run, "--hidden-size", 4)


# -- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [{}, {"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "passive"}, {"GOMP_SPINCOUNT": "7"}], ids=str
)
def test_how_threads_wait_is_set_unless_the_user_has(
    lm_command: Any, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    from recurrent_lm.lm.commands.cli import SPINS

    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    lm_command("--version")
    assert {name: os.environ[name] for name in names if name in os.environ} == (given or {"GOMP_SPINCOUNT": SPINS})
