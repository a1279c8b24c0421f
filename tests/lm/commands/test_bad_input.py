"""What the command line says of bad input, and of asking for text."""

import errno
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Child, ended

from recurrent_lm.lm.runs import checkpoint

Make = Callable[..., Any]
PYTHON = [sys.executable, "-m", "recurrent_lm.lm"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--cell", "transformer"], "--cell"),
        (["--tokens", "syllable"], "--tokens"),
        (["--optimizer", "rmsprop"], "--optimizer"),
        (["--schedule", "cosine"], "--schedule"),
        (["--state", "sometimes"], "--state"),
        (["--precision", "fp4"], "--precision"),
        (["--backend", "cudnn"], "backend"),
        (["--backend", "eager", "--precision", "bf16"], "bf16"),
        (["--device", "tpu"], "--device"),
        (["--device", "cuda"], "--device"),
        (["--device", "cuda:7"], "--device"),
        (["--clip", "norm"], "--clip"),
        (["--clip", "norm:-1"], "--clip"),
        (["--lr", "0"], "--lr"),
        (["--lr", "nan"], "--lr"),
        (["--lr", "fast"], "--lr"),
        (["--rows", "0"], "--rows"),
        (["--bptt", "0"], "--bptt"),
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "2.5"], "--epochs"),
        (["--layers", "0"], "--layers"),
        (["--hidden-size", "-3"], "--hidden-size"),
        (["--dropout", "1"], "--dropout"),
        (["--dropout", "-0.1"], "--dropout"),
        (["--weight-drop", "nan"], "--weight-drop"),
        (["--init-width", "-1"], "--init-width"),
        (["--init-width", "inf"], "--init-width"),
        (["--lr", "inf"], "--lr"),
        (["--forget-bias", "nan"], "--forget-bias"),
        (["--weight-decay", "inf"], "--weight-decay"),
        (["--decay-factor", "1"], "--decay-factor"),
        (["--decay-factor", "inf"], "--decay-factor"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "99999999999999999999999"], "--seed"),
        (["--threads", "-1"], "--threads"),
        (["--valid-rows", "0"], "--valid-rows"),
        (["--checkpoint-every", "0"], "--checkpoint-every"),
        (["--patience", "-1"], "--patience"),
        (["--min-count", "0"], "--min-count"),
        (["--vocab-size", "-1"], "--vocab-size"),
        (["--tokens", "bpe", "--vocab-size", "200"], "--vocab-size"),
        (["--tokens", "char", "--vocab-size", "10"], "--vocab-size"),
        (["--lower", "--tokens", "char"], "--lower"),
        (["--encoding", "klingon"], "--encoding"),
        (["--encoding", "hex"], "--encoding"),
        (["--preset", "none-such"], "preset"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--train", "x"], "--train"),
        (["--rows", "100000"], "--rows"),
        (["--cell"], "--cell"),
        (["two", "corpora"], "argument"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_wrong_option_is_a_sentence_and_makes_no_run(
    tmp_path: Path, corpus: Path, refused: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    quick = [] if "--epochs" in arguments else ["--max-steps", "1", "--epochs", "1"]
    assert word in refused("train", corpus, "--run", tmp_path / "run", "--quiet", *quick, *arguments)
    assert not (tmp_path / "run").exists()


def test_the_backend_of_the_environment_is_checked_too(
    tmp_path: Path, corpus: Path, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELS_BACKEND", "magic")
    assert "magic" in refused("train", corpus, "--run", tmp_path / "run")


@pytest.mark.parametrize(
    "content, arguments, word",
    [
        (b"", [], "no text"),
        (b" \n\t ", [], "no text"),
        (b"ab", ["--tokens", "char"], "split"),
        (b"a" * 500, ["--tokens", "char"], "one symbol"),
        (b"a" * 500, ["--tokens", "word"], "one symbol"),
        (b"jobs " * 20, ["--tokens", "word", "--rows", "50"], "--rows"),
        (b"We want jobs. " * 20 + b"\xe9t\xe9\n", [], "offset 280"),
        (b"ab\n" * 7 + b"caf\xff\n", [], "line 8"),
        ("We want jobs. ".encode("utf-16") * 20, [], "--encoding"),
    ],
    ids=["empty", "blank", "two letters", "one symbol", "one word", "too short for k", "latin-1", "line", "utf-16"],
)
def test_a_bad_text_is_a_sentence_and_makes_no_run(
    tmp_path: Path, refused: Any, content: bytes, arguments: list[str], word: str
) -> None:
    file = tmp_path / "t.txt"
    file.write_bytes(content)
    message = refused("train", file, "--run", tmp_path / "run", *arguments)
    assert word in message
    assert not (tmp_path / "run").exists()
    assert file.read_bytes() == content


def test_the_right_encoding_mends_it(tmp_path: Path, flags: Make, lm_command: Any) -> None:
    (tmp_path / "t.txt").write_bytes("Nous voulons l'été. ".encode("latin-1") * 30)
    how = ["--run", tmp_path / "run", "--encoding", "latin-1", "--quiet", *flags(max_steps=1)]
    assert lm_command("train", tmp_path / "t.txt", *how)[0] == 0


def test_a_missing_corpus_is_named(tmp_path: Path, refused: Any) -> None:
    assert "lincoln" in refused("train", "lincoln", "--run", tmp_path / "run")
    assert "name a corpus" in refused("train", "--run", tmp_path / "run")
    assert "no .txt file" in refused("train", tmp_path, "--run", tmp_path / "run")
    assert "lincoln" in refused("corpora", "show", "lincoln")
    assert "not both" in refused("train", "obama", "--config", "a", "--preset", "b")


@pytest.mark.parametrize("command", [["generate"], ["resume"], ["params"]])
def test_a_missing_or_foreign_run_is_named(tmp_path: Path, refused: Any, command: list[str]) -> None:
    assert "there is no run" in refused(*command, tmp_path / "none")
    assert "not a run folder" in refused(*command, tmp_path)
    (tmp_path / "file").write_text("x")
    refused(*command, tmp_path / "file")


def test_an_existing_run_folder_is_never_overwritten(
    tmp_path: Path, trained: Path, corpus: Path, refused: Any, flags: Make, lm_command: Any
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = contents(run)
    message = refused("train", corpus, "--run", run, *flags(max_steps=1))
    assert "exists already" in message
    assert "--run" in message
    assert contents(run) == before
    (tmp_path / "file").write_text("mine")
    assert "exists already" in refused("train", corpus, "--run", tmp_path / "file", *flags(max_steps=1))
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert lm_command("train", corpus, "--run", tmp_path / "empty", "--quiet", *flags(max_steps=1))[0] == 0


def test_a_run_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path, corpus: Path, refused: Any, flags: Make) -> None:
    (tmp_path / "file").write_text("x")
    assert "cannot be made" in refused("train", corpus, "--run", tmp_path / "file" / "run", *flags(max_steps=1))
    refused("train", corpus, "--run", tmp_path / ("n" * 300), *flags(max_steps=1))


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("which", ["config.toml", "steps.jsonl", "state.json"])
def test_a_read_only_or_full_run_folder_is_a_sentence(
    tmp_path: Path, corpus: Path, refused: Any, flags: Make, monkeypatch: pytest.MonkeyPatch, which: str, code: int
) -> None:
    real = pathlib.Path.open

    def open_file(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        here = "config.toml" if path.suffix == ".tmp" else path.name  # the first file that is replaced as a whole
        if which in here and mode[0] in "wa":
            raise OSError(code, os.strerror(code), str(path))
        return real(path, mode, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "open", open_file)
    message = refused("train", corpus, "--run", tmp_path / "run", "--quiet", *flags(max_steps=4))
    assert ("disk is full" if code == errno.ENOSPC else os.strerror(code)) in message
    assert str(tmp_path / "run") in message


def test_a_disk_that_fills_up_in_training_leaves_a_checkpoint_to_resume(
    tmp_path: Path, corpus: Path, spawn: Any, flags: Make, fit: Any
) -> None:
    run = tmp_path / "run"
    settings = {"epochs": 3, "checkpoint_every": 10}
    child = spawn(["train", corpus, "--run", run, "--quiet", *flags(**settings)], file_size=12_000)
    code, message = child.wait(), child.err.read_text()
    assert code == 2, message
    assert message.count("\n") == 1
    assert "Traceback" not in message
    assert str(run) in message, "the file that could not be written"
    assert 0 < checkpoint.load(run, "last").meta["step"] < 150
    assert spawn(["resume", run, "--quiet"]).wait() == 0
    fit(tmp_path / "whole", corpus, **settings)
    assert (run / "steps.jsonl").read_bytes() == (tmp_path / "whole" / "steps.jsonl").read_bytes()


# -- generation -----------------------------------------------------------------------------------------------------


def test_samples_are_numbered_and_differ(trained: Path, lm_command: Any) -> None:
    code, out, _ = lm_command("generate", trained, "--prompt", "we", "--samples", 3, "--seed", 1, "--length", 30)
    assert code == 0
    texts = re.split(r"^--- (\d) of 3\n", out, flags=re.MULTILINE)
    assert texts[1::2] == ["1", "2", "3"]
    assert len(set(texts[2::2])) == 3
    assert all(t.startswith("we") for t in texts[2::2])
    assert lm_command("generate", trained, "--prompt", "we", "--samples", 3, "--seed", 1, "--length", 30)[1] == out


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--length", "0"], "--length"),
        (["--length", "many"], "--length"),
        (["--temperature", "-1"], "--temperature"),
        (["--temperature", "nan"], "--temperature"),
        (["--top-k", "-1"], "--top-k"),
        (["--top-p", "0"], "--top-p"),
        (["--top-p", "1.5"], "--top-p"),
        (["--samples", "0"], "--samples"),
        (["--seed", "99999999999999999999999"], "--seed"),
        (["--seed", "x"], "--seed"),
        (["--prompt", ""], "empty"),
        (["--prompt", b"Jobs\xff".decode("utf-8", "surrogateescape")], "UTF-8"),
        (["--device", "cuda"], "--device"),
        (["--device", "cuda:x"], "--device"),
        (["--device", "abacus"], "--device"),
        (["--device", "mps"], "--device"),
    ],
    ids=lambda v: ascii(" ".join(v)) if isinstance(v, list) else "",
)
def test_a_wrong_wish_for_text_is_a_sentence(
    trained: Path, refused: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], word: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert word in refused("generate", trained, *arguments)


def test_a_run_of_a_backend_that_cannot_run_here_gives_text_or_a_sentence(
    tmp_path: Path, trained: Path, lm_command: Any
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace('backend = "torch"', 'backend = "triton"'))
    code, _, err = lm_command("generate", tmp_path / "run", "--length", 3)
    assert code == 0 or (code == 2 and "backend" in err and err.count("\n") == 1)


def test_a_damaged_checkpoint_is_a_sentence(tmp_path: Path, trained: Path, refused: Any) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").rglob("model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert "damaged" in refused("generate", tmp_path / "run")


def test_a_reader_who_has_enough_is_no_error(tmp_path: Path, trained: Path) -> None:
    """Of more than a pipe holds."""
    out = tmp_path / "out"
    os.mkfifo(out)
    arguments = ["generate", trained, "--length", 2000, "--temperature", 3, "--samples", 50]
    process = Child("lm", arguments, out, tmp_path / "err")
    with out.open() as reader:
        reader.readline()
    assert process.wait() in (0, 141)
    err = process.err.read_text()
    assert "Traceback" not in err
    assert "Exception" not in err


def test_a_terminal_without_unicode_gets_no_traceback(tmp_path: Path, trained: Path) -> None:
    arguments = ["generate", trained, "--prompt", "ж", "--length", 3]
    code, _, err = ended(tmp_path, "lm", arguments, environment={"PYTHONIOENCODING": "ascii"})
    assert "Traceback" not in err
    assert code in (0, 2)


def test_markup_in_names_is_shown_as_it_is(tmp_path: Path, corpus: Path, flags: Make, lm_command: Any, refused: Any) -> None:
    odd = tmp_path / "[red]jobs [bold]"
    odd.mkdir()
    text = odd / "[link=x]speech[bold].txt"
    shutil.copy(corpus, text)
    run = odd / "[green]run[italic]"
    code, out, _ = lm_command("train", text, "--run", run, *flags(max_steps=1))
    assert code == 0
    assert f"run: {run}" in out
    assert "[link=x]speech[bold]: 1 document" in out
    _, out, _ = lm_command("runs", odd)
    assert "[green]run[italic]" in out.replace("\n", "")
    assert "[link=x]speech[bold]" in out.replace("\n", "")
    assert "[link=x]speech[bold]: 1 document" in lm_command("corpora", "show", text)[1]
    assert "'[blue]none'" in refused("train", "[blue]none")
    assert str(run) in refused("train", text, "--run", run)


def test_an_interrupt_before_the_training_is_no_traceback(lm_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(config: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("recurrent_lm.lm.text.data.open_corpus", interrupt)
    code, _, err = lm_command("train", "obama")
    assert code == 130
    assert "Traceback" not in err
