"""Prompts from a file and from standard input."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

COMMANDS = [("generate", "--temperature", "0", "--length", "5", "--no-copied", "--json"), ("next", "--json")]


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("command", COMMANDS, ids=["generate", "next"])
@pytest.mark.parametrize("ends", [b"", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n"])
def test_a_prompt_is_the_same_from_everywhere(
    trained: Path, tmp_path: Path, lm_command: Any, monkeypatch: pytest.MonkeyPatch, command: Any, ends: bytes
) -> None:
    name, *how = command
    want = lm_command(name, trained, "--prompt", "we want\nthe", *how)
    assert want[0] == 0
    (tmp_path / "p.txt").write_bytes(b"we want\nthe" + ends)
    assert lm_command(name, trained, "--prompt-file", tmp_path / "p.txt", *how) == want
    give(monkeypatch, b"we want\nthe" + ends)
    assert lm_command(name, trained, "--prompt", "-", *how) == want
    give(monkeypatch, b"we want\nthe" + ends)
    assert lm_command(name, trained, "--prompt-file", "-", *how) == want


def test_spaces_at_the_end_are_the_prompts_own(trained: Path, lm_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, b"we want \n")
    assert json.loads(lm_command("next", trained, "--prompt", "-", "--json")[1])["prompt"] == "we want "


def test_a_prompt_in_another_encoding(trained: Path, tmp_path: Path, lm_command: Any, refused: Any) -> None:
    (tmp_path / "p.txt").write_bytes("Würde".encode("latin-1"))
    assert "--encoding" in refused("next", trained, "--prompt-file", tmp_path / "p.txt")
    out = lm_command("next", trained, "--prompt-file", tmp_path / "p.txt", "--encoding", "latin-1", "--json")[1]
    assert json.loads(out)["prompt"] == "Würde"
    assert "--encoding" in refused("next", trained, "--prompt-file", tmp_path / "p.txt", "--encoding", "klingon")


def test_a_pipe_is_read_once(trained: Path, tmp_path: Path, spawn: Any) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    child = spawn(["next", trained, "--prompt-file", pipe, "--json"])
    pipe.write_text("we want\n")
    assert child.wait() == 0
    assert json.loads(child.out.read_text())["prompt"] == "we want"


@pytest.mark.parametrize("command", ["generate", "next"])
def test_what_is_no_prompt_is_a_sentence(
    trained: Path, tmp_path: Path, refused: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "p.txt").write_text("we")
    assert "--prompt-file" in refused(command, trained, "--prompt", "we", "--prompt-file", tmp_path / "p.txt")
    for content, word in ((b"", "empty.txt"), (b"\n\r\n", "empty.txt"), (b"\x00\x01we", "NUL"), (b"%PDF-1.7", "PDF")):
        (tmp_path / "empty.txt").write_bytes(content)
        assert word in refused(command, trained, "--prompt-file", tmp_path / "empty.txt")
        give(monkeypatch, content)
        assert word.replace("empty.txt", "standard input") in refused(command, trained, "--prompt", "-")
    assert "none.txt" in refused(command, trained, "--prompt-file", tmp_path / "none.txt")
    assert str(tmp_path) in refused(command, trained, "--prompt-file", tmp_path)
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input" in refused(command, trained, "--prompt", "-")


def test_score_reads_standard_input(trained: Path, lm_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    want = lm_command("score", trained, "we want\n", "--json")
    give(monkeypatch, b"we want\n")
    assert lm_command("score", trained, "-", "--json") == want
