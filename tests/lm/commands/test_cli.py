"""The command line: help, tables, and what a training says."""

import csv
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm import lm
from recurrent_lm.lm.parameter_counts import parameter_table

Make = Callable[..., Any]
PYTHON = [sys.executable, "-m", "recurrent_lm.lm"]


# -- help -----------------------------------------------------------------------------------------------------------


def test_help_answers_in_under_a_second() -> None:
    """Of processor time: what a loaded machine adds to the clock is not the program's."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*PYTHON, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 1.0, times
    for command in ("train", "resume", "generate", "runs", "params", "corpora"):
        assert command in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["--version"], ["corpora", "list"], ["train", "--cell", "x"]]
)
def test_light_commands_import_neither_torch_nor_pandas(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom recurrent_lm.lm.commands.cli import main\n"
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
    "command",
    [[], ["train"], ["resume"], ["generate"], ["runs"], ["params"], ["corpora"], ["corpora", "show"], ["corpora", "download"]],
)
def test_every_command_has_help(lm_command: Any, command: list[str]) -> None:
    code, out, err = lm_command(*command, "--help")
    assert (code, err) == (0, "")
    assert "Usage: lm" in out


def test_every_setting_has_a_flag_with_its_default(lm_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from recurrent_lm.lm.base.settings import flag_of
    from recurrent_lm.lm.config import RunConfig

    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = lm_command("train", "--help-all")
    for _, f in RunConfig.settings():
        assert f"{flag_of(f)} " in out.replace("[CORPUS]", "CORPUS ")


def test_the_help_of_train_shows_the_dozen_settings_that_matter(lm_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after --help-all, which shows the others."""
    from recurrent_lm.lm.base.settings import flag_of
    from recurrent_lm.lm.commands.cli import MATTER
    from recurrent_lm.lm.config import RunConfig

    monkeypatch.setenv("COLUMNS", "200")
    lm_command("train", "--help-all")
    code, out, _ = lm_command("train", "--help")
    assert (code, len(MATTER)) == (0, 12)
    flags = {flag_of(f) for _, f in RunConfig.settings() if f"{flag_of(f)} " in out} - {"CORPUS"}
    assert flags == {flag_of(f) for _, f in RunConfig.settings() if f.name in MATTER}
    assert "--help-all" in out


def test_no_command_shows_the_help_and_is_an_error(lm_command: Any) -> None:
    code, out, err = lm_command()
    assert code == 2
    assert "Usage: lm" in out + err
    assert "Traceback" not in err


# -- tables ---------------------------------------------------------------------------------------------------------


def test_corpora_are_listed_with_their_source(tmp_path: Path, lm_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LM_DATA", str(tmp_path / "data"))
    code, out, _ = lm_command("corpora", "list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert list(lines)[:6] == ["obama", "trump", "sotu", "robotrump", "obama-rnn", "PATH"]
    for name in ("robotrump", "obama-rnn"):
        assert f"not downloaded yet: lm corpora download {name}" in lines[name]
    assert "American Presidency Project" in out
    assert str(tmp_path / "data") in out
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "obama-rnn.txt").write_text("jobs")
    out = lm_command("corpora", "list")[1]
    assert "download robotrump" in out
    assert "download obama-rnn" not in out


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
    assert sum(int(row[4]) for row in rows.values()) == 230


def test_the_share_of_unknown_tokens_is_shown(tmp_path: Path, lm_command: Any) -> None:
    texts = {"train": "we want jobs and we want jobs " * 5, "valid": "we want peace and peace", "test": "we want jobs"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text.strip())
    files = [x for name in texts for x in (f"--{name}", tmp_path / name)]
    _, out, _ = lm_command("corpora", "show", *files)
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()[0] in texts}
    assert rows["train"][3:5] == ["0", "(0.00%)"]
    assert rows["valid"][1:5] == ["6", "5", "2", "(33.33%)"]  # <unk> twice, <eos> once
    assert rows["test"][3:5] == ["0", "(0.00%)"]


def test_frequent_words_may_be_left_out_but_not_fewer_than_none(corpus: Path, lm_command: Any, refused: Any) -> None:
    assert "most frequent" not in lm_command("corpora", "show", corpus, "--top", 0)[1]
    assert "--top must be at least 0, not '-3'" in refused("corpora", "show", corpus, "--top", -3)


@pytest.mark.parametrize("choice", [{}, {"kind": "word", "split": "spaces"}, {"kind": "word", "lower": True}])
def test_words_are_counted_alike_everywhere(tmp_path: Path, flags: Make, lm_command: Any, choice: dict[str, Any]) -> None:
    (tmp_path / "t.txt").write_text("Jobs -- jobs--and jobs; we don't ... want 3,000 words! " * 30)
    count = "240" if choice.get("split") == "spaces" else "270"
    how = flags(max_steps=1, **choice)
    assert f"{count} words of " in lm_command("corpora", "show", tmp_path / "t.txt", *how)[1]
    assert (
        f", {count} words, about 2 minutes of speech"
        in lm_command("train", tmp_path / "t.txt", "--run", tmp_path / "run", *how)[1]
    )


def test_an_embedded_corpus_is_shown_with_its_citation(lm_command: Any) -> None:
    code, out, _ = lm_command("corpora", "show", "trump")
    assert code == 0
    assert "4 documents" in out
    assert "American Presidency Project" in out


@pytest.mark.parametrize("cell, gates", [("rnn-tanh", 1), ("lstm", 4), ("gru", 3), ("mingru", 2)])
def test_the_lectures_table_of_parameters(lm_command: Any, cell: str, gates: int) -> None:
    how = ["--vocabulary", 1000, "--cell", cell, "--hidden-size", 20, "--embedding-size", 30, "--layers", 2]
    code, out, _ = lm_command("params", *how)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    expected = {
        "E": (30_000, 30_000),
        "W_i": (gates * (30 * 20 + 20 * 20),) * 2,
        "W_h": (0 if cell == "mingru" else gates * 2 * 20 * 20,) * 2,
        "biases": (gates * (1 if cell == "mingru" else 2) * 2 * 20,) * 2,
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
    from recurrent_lm.lm.training.start import new_training

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
        "382 words; below 5,000",
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


def test_runs_as_csv_hold_every_figure(trained: Path, lm_command: Any) -> None:
    code, out, _ = lm_command("runs", trained.parent, "--csv")
    assert code == 0
    (row,) = [r for r in csv.DictReader(out.splitlines()) if r["run"] == str(trained)]
    result = json.loads((trained / "result.json").read_text())
    assert float(row["test_bits_per_byte"]) == result["test"]["bits_per_byte"]
    assert float(row["perplexity"]) == result["valid"]["perplexity"]
    assert row["state"] == "done"
    assert int(row["best_epoch"]) == result["best_epoch"]
