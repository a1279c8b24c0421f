"""Any bytes as a corpus: one sentence and no run, or a run on every byte of the text."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import hurt, run_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recurrent_lm.lm.commands.cli import app

Flags = Callable[..., list[str]]
FEW = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))

TEXT = st.text(st.characters(codec="utf-8"), max_size=300).map(str.encode)
WORDS = st.lists(st.sampled_from([b"jobs", b"We", b" ", b"\n", b"\r\n", b".", b"\xc3\xa9", b"\0", b"\xff", b"<unk>", b"<eos>"]))
LONG = st.tuples(st.sampled_from([b"a", b"ab", b"a b", b"\xf0\x9f\x98\x80", b" ", b"\n", b"(("]), st.integers(1, 20_000))
BYTES = st.binary(max_size=300) | TEXT | WORDS.map(b"".join) | LONG.map(lambda pair: pair[0] * pair[1])


def lm(*arguments: Any) -> tuple[int, str, str]:
    return run_command(app, "lm", *arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_text: Callable[..., str]) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "whole.txt").write_text(make_text(600) + "“Été”\n")
    return folder


def check(draw: Callable[..., Any], place: Path, flags: Flags) -> None:
    file, run = place / "t.txt", place / "run"
    for path in (file, run):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.copy(place / "whole.txt", file)
    if draw(st.booleans()):
        hurt(draw, file, [])
    else:
        file.write_bytes(draw(BYTES))
    raw = file.read_bytes() if file.is_file() else None
    kind = draw(st.sampled_from(["char", "word", "bpe"]))
    lower, lines = draw(st.booleans()) and kind == "word", draw(st.booleans())
    how = flags(kind=kind, rows=2, max_steps=1, epochs=1, lower=lower, eos_at_newline=lines)
    code, out, err = lm("train", file, "--run", run, "--quiet", *how)
    try:
        text = raw.decode() if raw is not None else None
    except UnicodeDecodeError:
        text = None
    if code == 0:
        assert text is not None and raw is not None and "\0" not in text
        counted = json.loads((run / "about.json").read_text())["corpus"]["bytes"]
        if not lower:
            text = text.removeprefix("\ufeff")
            # whatever a line ends with, its <eos> counts as one byte
            size = sum(len(line.encode()) + 1 for line in text.splitlines() or [""]) if lines else len(text.encode())
            assert sum(counted.values()) == size
        assert json.loads((run / "result.json").read_text())["test"]["loss"] > 0
        code, _, err = lm("eval", run, "--split", "all", "--ngram", 1)
        assert code == 0, err
    else:
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert not run.exists()
        assert file.is_dir() or not file.exists() or file.read_bytes() == raw
    again, _, err = lm("corpora", "show", file, "--top", 3)
    assert (again, err.count("\n")) in ((0, 0), (2, 1)), err


@FEW
@given(data=st.data())
def test_any_bytes_are_refused_or_trained_on(data: st.DataObject, place: Path, flags: Flags) -> None:
    check(data.draw, place, flags)


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_any_bytes_are_refused_or_trained_on_at_length(data: st.DataObject, place: Path, flags: Flags) -> None:
    check(data.draw, place, flags)
