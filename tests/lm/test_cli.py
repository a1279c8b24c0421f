"""The command line: what it prints, and that bad input is one sentence, exit code 2, and nothing overwritten."""

import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lm
from lm import checkpoint
from lm.params import parameter_table

Make = Callable[..., Any]
PYTHON = [sys.executable, "-m", "lm"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- help -----------------------------------------------------------------------------------------------------------


def test_help_answers_in_under_a_second() -> None:
    times = []
    for _ in range(3):
        begin = time.monotonic()
        done = subprocess.run([*PYTHON, "--help"], capture_output=True, text=True, check=True)
        times.append(time.monotonic() - begin)
    assert min(times) < 1.0, times
    for command in ("train", "resume", "generate", "runs", "params", "corpora"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["--version"], ["corpora", "list"], ["train", "--cell", "x"]]
)
def test_light_commands_import_neither_torch_nor_pandas(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom lm.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'pandas', 'numpy', 'matplotlib', 'tokenizers') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert "Traceback" not in done.stderr


def test_version_names_program_and_number(lm_command: Any) -> None:
    from importlib.metadata import version

    assert lm_command("--version") == (0, f"lm {version('recurrent-lm')}\n", "")


@pytest.mark.parametrize(
    "command", [[], ["train"], ["resume"], ["generate"], ["runs"], ["params"], ["corpora"], ["corpora", "show"]]
)
def test_every_command_has_help(lm_command: Any, command: list[str]) -> None:
    code, out, err = lm_command(*command, "--help")
    assert (code, err) == (0, "")
    assert "Usage: lm" in out


def test_every_setting_has_a_flag_with_its_default(lm_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm.config import RunConfig, flag_of

    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = lm_command("train", "--help")
    for _, f in RunConfig.settings():
        assert f"{flag_of(f)} " in out.replace("[CORPUS]", "CORPUS ")


def test_no_command_shows_the_help_and_is_an_error(lm_command: Any) -> None:
    code, out, err = lm_command()
    assert code == 2
    assert "Usage: lm" in out + err
    assert "Traceback" not in err


# -- tables ---------------------------------------------------------------------------------------------------------


def test_corpora_are_listed_with_their_source(lm_command: Any) -> None:
    code, out, _ = lm_command("corpora", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["obama", "trump", "sotu", "PATH"]
    assert "American Presidency Project" in out


def test_a_corpus_is_counted(tmp_path: Path, lm_command: Any) -> None:
    folder = tmp_path / "speeches"
    folder.mkdir()
    for name, text in {"b.txt": "we want jobs. " * 10, "a.txt": "ü " * 30, "c.md": "no"}.items():
        (folder / name).write_text(text)
    code, out, _ = lm_command("corpora", "show", folder, "--tokens", "char", "--min-count", 1, "--top", 2)
    assert code == 0
    assert "speeches: 2 documents" in out
    assert "60 words of 4 types, 200 characters of 12 types, 230 bytes" in out
    assert "most frequent words: ü 30, we 10" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()[0] in ("train", "valid", "test")}
    assert sum(int(row[0]) for row in rows.values()) == 202, "a token a character and an <eos> a document"
    assert sum(int(row[3]) for row in rows.values()) == 230


def test_an_embedded_corpus_is_shown_with_its_citation(lm_command: Any) -> None:
    code, out, _ = lm_command("corpora", "show", "trump")
    assert code == 0
    assert "4 documents" in out
    assert "American Presidency Project" in out


@pytest.mark.parametrize("cell, gates", [("rnn-tanh", 1), ("lstm", 4), ("gru", 3)])
def test_the_lectures_table_of_parameters(lm_command: Any, cell: str, gates: int) -> None:
    how = ["--vocabulary", 1000, "--cell", cell, "--hidden-size", 20, "--embedding-size", 30, "--layers", 2]
    code, out, _ = lm_command("params", *how)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    expected = {
        "E": (30_000, 30_000),
        "W_i": (gates * (30 * 20 + 20 * 20),) * 2,
        "W_h": (gates * 2 * 20 * 20,) * 2,
        "biases": (gates * 2 * 2 * 20,) * 2,
        "projection": (0, 600),
        "U": (20_000, 0),
        "b": (1000, 1000),
    }
    for name, (free, tied) in expected.items():
        numbers = rows[name].replace(",", "").split()
        assert str(free) in numbers, name
        assert numbers[-1] == str(tied), name
    assert f"{sum(f for f, _ in expected.values()):,}" in rows["total"]
    assert f"{sum(t for _, t in expected.values()):,}" in rows["total"]


def test_the_parameters_of_a_run(trained: Path, lm_command: Any) -> None:
    run = lm.load(trained)
    table = parameter_table(run.tokenizer.size, run.config.model, tie=True)
    code, out, _ = lm_command("params", trained)
    assert code == 0
    assert f"{sum(n for _, n in table.values()):,}" in next(line for line in out.splitlines() if line.startswith("total"))
    assert json.loads((trained / "about.json").read_text())["parameters"] == sum(n for _, n in table.values())


def test_runs_are_listed_with_their_figures(
    tmp_path: Path, trained: Path, corpus: Path, make_config: Make, lm_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm.launch import new_training

    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "done")
    new_training(make_config(corpus), tmp_path / "begun")
    shutil.copytree(trained, tmp_path / "hurt")
    (tmp_path / "hurt" / "config.toml").write_text("[model\n")
    code, out, err = lm_command("runs", ".")
    assert (code, err) == (0, "")
    rows = {Path(line.split()[0]).name: line for line in out.splitlines()[1:] if line.strip()}
    epochs = [json.loads(line) for line in (trained / "epochs.jsonl").read_text().splitlines()]
    best = min(epochs, key=lambda r: r["valid_loss"])
    assert f"{best['valid_perplexity']:.2f}" in rows["done"]
    assert f"{best['valid_bits_per_byte']:.3f}" in rows["done"]
    assert "lstm 1x16" in rows["done"]
    assert rows["done"].split()[-1] == "done"
    assert rows["begun"].split()[-1] == "unfinished"
    assert "damaged" in rows["hurt"]


def test_no_runs_yet(tmp_path: Path, lm_command: Any, refused: Any) -> None:
    assert "no runs" in lm_command("runs", tmp_path)[1]
    assert "no folder" in refused("runs", tmp_path / "none")


# -- training -------------------------------------------------------------------------------------------------------


def test_training_tells_what_where_and_how_well(tmp_path: Path, corpus: Path, flags: Make, lm_command: Any) -> None:
    code, out, err = lm_command("train", corpus, "--run", tmp_path / "run", *flags())
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for part in (
        "That is little",
        "k = 4 rows by L = 8",
        f"run: {tmp_path / 'run'}",
        "epoch 1:",
        "epoch 2:",
        "bits/byte",
        "tok/s",
    ):
        assert part in out
    assert f"loss {result['valid']['loss']:.4f}" in out
    assert f"{result['test']['bits_per_byte']:.3f} bits per byte" in out
    assert f"lm generate {tmp_path / 'run'}" in out
    assert "\x1b" not in out, "plain lines where there is no terminal"


def test_lower_casing_is_said_with_the_figure(tmp_path: Path, corpus: Path, flags: Make, lm_command: Any) -> None:
    how = flags(kind="word", lower=True, max_steps=2)
    assert "bits per byte of the lower-cased text" in lm_command("train", corpus, "--run", tmp_path / "a", *how)[1]
    how = flags(kind="word", max_steps=2)
    assert "lower-cased" not in lm_command("train", corpus, "--run", tmp_path / "b", *how)[1]


def test_runs_get_names_of_their_own(tmp_path: Path, corpus: Path, flags: Make, lm_command: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("speech-char-gru", "speech-char-gru-2", "speech-char-gru-3"):
        assert lm_command("train", corpus, *flags(max_steps=1), "--quiet")[0] == 0
        assert (tmp_path / "runs" / name / "result.json").exists()


def test_presplit_files_are_trained_on(tmp_path: Path, make_text: Make, flags: Make, lm_command: Any) -> None:
    for seed, name in enumerate(("train", "valid", "test")):
        (tmp_path / name).write_text(make_text(600, seed=seed))
    files = [x for name in ("train", "valid", "test") for x in (f"--{name}", tmp_path / name)]
    assert lm_command("train", *files, "--run", tmp_path / "run", "--quiet", *flags(max_steps=2))[0] == 0
    again = ["train", "--config", tmp_path / "run" / "config.toml", "--run", tmp_path / "again", "--quiet"]
    assert lm_command(*again)[0] == 0
    assert (tmp_path / "again" / "steps.jsonl").read_bytes() == (tmp_path / "run" / "steps.jsonl").read_bytes()


def test_flags_override_the_file(tmp_path: Path, trained: Path, lm_command: Any) -> None:
    how = ["--config", trained / "config.toml", "--epochs", 1, "--max-steps", 2, "--no-tie", "--quiet"]
    assert lm_command("train", *how, "--run", tmp_path / "run")[0] == 0
    config = lm.load(tmp_path / "run").config
    assert (config.training.epochs, config.training.max_steps, config.model.tie) == (1, 2, False)
    assert config.model.hidden_size == 16


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
        (["--backend", "triton"], "triton"),
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
        if which in path.name and mode[0] in "wa":
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


def test_a_reader_who_has_enough_is_no_error(trained: Path) -> None:
    command = [*PYTHON, "generate", str(trained), "--length", "100000", "--temperature", "3", "--samples", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read().decode()
        process.wait(timeout=60)
    assert "Traceback" not in err
    assert "Exception" not in err
    assert process.returncode in (0, 141)


def test_a_terminal_without_unicode_gets_no_traceback(trained: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [*PYTHON, "generate", str(trained), "--prompt", "ж", "--length", "3"]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 2)


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

    monkeypatch.setattr("lm.data.open_corpus", interrupt)
    code, _, err = lm_command("train", "obama")
    assert code == 130
    assert "Traceback" not in err
