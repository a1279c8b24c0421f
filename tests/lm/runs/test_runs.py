"""The list of runs: whole ones, unfinished ones, and damaged ones beside them."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

Make = Callable[..., Any]
EPOCH = {"epoch": 1, "valid_loss": 2.0, "valid_perplexity": 7.4, "valid_bits_per_byte": 2.9, "seconds": 1.0}


def without(key: str) -> str:
    return json.dumps({k: v for k, v in EPOCH.items() if k != key}) + "\n"


def with_value(key: str, value: Any) -> str:
    return json.dumps({**EPOCH, key: value}) + "\n"


@pytest.fixture
def folder(tmp_path: Path, trained: Path) -> Path:
    """Two runs, of which the first is to be damaged."""
    for name in ("hurt", "whole"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    "file, content, state",
    [
        ("about.json", "[]", "about.json is no JSON object"),
        ("about.json", "{", "about.json is no JSON"),
        ("about.json", '{"corpus": "x"}', "about.json says nothing of a corpus"),
        ("about.json", "[" * 100_000, "about.json is no JSON"),
        ("about.json", b"\xff\xfe", "about.json is no JSON"),
        ("tokens.json", "{}", "tokens.json is not what was written"),
        ("config.toml", "[model", "cannot be read as TOML"),
        ("config.toml", "lr = " + "[" * 3000, "cannot be read as TOML"),
        ("config.toml", b"\xff", "cannot be read as TOML"),
        ("epochs.jsonl", without("valid_loss"), "valid_loss in epochs.jsonl is no number"),
        ("epochs.jsonl", without("valid_perplexity"), "valid_perplexity in epochs.jsonl is no number"),
        ("epochs.jsonl", without("seconds"), "seconds in epochs.jsonl is no number"),
        ("epochs.jsonl", with_value("valid_loss", "2.0"), "valid_loss in epochs.jsonl is no number"),
        ("epochs.jsonl", with_value("valid_loss", None), "valid_loss in epochs.jsonl is no number"),
        ("epochs.jsonl", with_value("valid_loss", True), "valid_loss in epochs.jsonl is no number"),
        ("epochs.jsonl", with_value("valid_bits_per_byte", [1]), "valid_bits_per_byte in epochs.jsonl is no number"),
        ("epochs.jsonl", with_value("seconds", 10**400), "seconds in epochs.jsonl is no number"),
        ("result.json", "[]", "result.json is no JSON object"),
        ("result.json", '{"test": []}', "perplexity in result.json is no number"),
        ("result.json", '{"test": {"perplexity": "3", "bits_per_byte": 2}}', "perplexity in result.json is no number"),
        ("result.json", '{"test": {"perplexity": 3, "bits_per_byte": "2"}}', "bits_per_byte in result.json is no number"),
    ],
)
def test_a_damaged_run_says_what_and_the_others_are_listed(
    folder: Path, lm_command: Any, file: str, content: str | bytes, state: str
) -> None:
    (folder / "hurt" / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = lm_command("runs", folder)
    assert (code, err) == (0, "")
    rows = {Path(line.split()[0]).name: line for line in out.splitlines()[1:] if line.strip()}
    assert "damaged: " in rows["hurt"]
    assert state in rows["hurt"]
    assert rows["whole"].split()[-1] == "done"
    code, out, err = lm_command("runs", folder, "--csv")
    assert (code, err) == (0, "")
    table = {Path(row["run"]).name: row for row in csv.DictReader(out.splitlines())}
    assert state in table["hurt"]["state"]
    assert table["whole"]["state"] == "done"


def test_a_file_where_a_folder_is_expected_and_the_reverse(folder: Path, lm_command: Any) -> None:
    for name in ("about.json", "result.json"):
        (folder / "hurt" / name).unlink()
        (folder / "hurt" / name).mkdir()
        code, out, err = lm_command("runs", folder)
        assert (code, err) == (0, "")
        assert out.count("damaged") == 1
        assert "done" in out


def test_a_tokenizer_that_cannot_be_read_is_not_called_damaged(folder: Path, refused: Any) -> None:
    file = folder / "hurt" / "tokens.json"
    file.unlink()
    file.mkdir()  # as root may read everything else
    assert refused("eval", folder / "hurt").startswith(f"lm: {file} cannot be read: Is a directory; ")


def test_a_run_without_its_result_is_unfinished(folder: Path, lm_command: Any) -> None:
    (folder / "hurt" / "result.json").unlink()
    out = lm_command("runs", folder)[1]
    assert out.count("unfinished") == 1
    assert "damaged" not in out


def test_the_table_is_readable_in_80_columns(
    folder: Path, lm_command: Any, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    (folder / "hurt").rename(folder / "obama-word-lstm")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("recurrent_lm.lm.commands.display._console", lambda: Console(width=80, highlight=False))
    code, out, _ = lm_command("runs")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    first, second, *rows = out.splitlines()
    assert first.split() == ["valid", "test"]
    assert second.split() == ["run", "tokens", "|V|", "model", "epochs", "ppl", "unk", "b/B", "b/B", "state"]
    assert len(rows) == 2, "no row is folded"
    best = min(map(json.loads, (trained / "epochs.jsonl").read_text().splitlines()), key=lambda r: r["valid_loss"])
    test = json.loads((trained / "result.json").read_text())["test"]
    cells = next(row for row in rows if "obama" in row).split()
    types = json.loads((trained / "about.json").read_text())["corpus"]["types"]
    assert cells[:6] == ["runs/obama-word-lstm", "char", f"{types}", "lstm", "1x16", "6"]
    assert cells[6:] == [
        f"{best['valid_perplexity']:.2f}", "0.0%", f"{best['valid_bits_per_byte']:.3f}", f"{test['bits_per_byte']:.3f}", "done"
    ]  # fmt: skip


def test_the_table_shows_what_is_unknown_beside_the_perplexity(trained_words: Path, lm_command: Any, tmp_path: Path) -> None:
    run = tmp_path / "words"
    shutil.copytree(trained_words, run)
    counts = json.loads((run / "about.json").read_text())["corpus"]
    share = counts["unknown_tokens"]["valid"] / counts["tokens"]["valid"]
    heading, row = lm_command("runs", run.parent)[1].splitlines()
    perplexity = heading.split().index("ppl")
    assert heading.split()[perplexity + 1] == "unk"
    assert f"{share:.1%}" in row.split()
    (result,) = csv.DictReader(lm_command("runs", run.parent, "--csv")[1].splitlines())
    assert float(result["unknown"]) == pytest.approx(share)


def test_a_wide_table_names_the_corpus_and_what_was_scored(folder: Path, lm_command: Any) -> None:
    heading = lm_command("runs", folder)[1].splitlines()[0]
    assert heading.split("  ")[1:] != []
    for name in ("corpus", "valid b/B", "test b/B"):
        assert name in heading
