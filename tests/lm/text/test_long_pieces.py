"""Byte pairs on text without spaces: pieces are bounded, and signals end the work of the library."""

import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm.lm.base.signals import handled, in_thread
from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.text.tokens import LONGEST_PIECE, BpeTokenizer, build, long_pieces

BPE = TokensConfig(kind="bpe")


def dna(size: int) -> str:
    return random.Random(0).randbytes(size).translate(bytes(b"ACGT"[i % 4] for i in range(256))).decode()


def cuts(text: str) -> list[str]:
    tokenizer = build([text, "a b"], TokensConfig(kind="bpe", vocab_size=257))
    assert isinstance(tokenizer, BpeTokenizer)
    return [text[a:b] for _, (a, b) in tokenizer._library.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    "text", ["A" * 5000, "中" * 2000, "é" * 999 + "😀" * 300, "!" * 1500, "\n" * 1025, " " * 513, "x" * 512]
)
def test_long_pieces_are_cut_between_characters(text: str) -> None:
    parts = cuts(text)
    assert "".join(parts) == text, "no character is cut"
    assert max(len(part.encode()) for part in parts) <= LONGEST_PIECE
    assert min(len(part.encode()) for part in parts[:1]) > LONGEST_PIECE - 4


def test_short_pieces_stay_whole() -> None:
    assert cuts("We'll  build 3,000 roads\n") == ["We", "'ll", " ", " build", " 3", ",", "000", " roads", "\n"]


@pytest.mark.parametrize(
    "text", [dna(200_000), "a" * 400_000 + " b", "\n" * 400_000 + "b"], ids=["DNA", "one letter", "newlines"]
)
def test_unbroken_text_ends_soon_and_comes_back(text: str) -> None:
    begin = time.process_time()
    tokenizer = build([text], BPE)
    ids = tokenizer.encode(text)
    assert time.process_time() - begin < 20, "a tenth of a second to one idle; with its square it would be minutes"
    assert len(ids) < len(text) / 3
    assert tokenizer.decode(ids) == text


def test_long_pieces_are_counted_by_their_bytes() -> None:
    assert long_pieces("a" * 512 + " " + "b" * 511) == 0
    assert long_pieces("a" * 513 + " " + "b" * 512) == 2, "the space belongs to the second"
    assert long_pieces("中" * 171) == 1
    assert long_pieces("中" * 170) == 0
    assert long_pieces("word " * 1000) == 0


def test_a_sentence_tells_of_cut_pieces(tmp_path: Path, flags: Any, lm_command: Any) -> None:
    (tmp_path / "d.txt").write_text(dna(3000))
    how = flags(kind="bpe", vocab_size=300, max_steps=1)
    code, _, err = lm_command("train", tmp_path / "d.txt", *how, "--run", tmp_path / "run")
    assert code == 0
    assert "512 bytes" in err
    assert "512 bytes" in lm_command("corpora", "show", tmp_path / "d.txt", "--tokens", "bpe")[1]
    assert "512 bytes" not in lm_command("corpora", "show", tmp_path / "d.txt", "--tokens", "char")[1]


# --- signals --------------------------------------------------------------------------------------------------------


class Alarm(Exception):
    pass


def test_a_signal_is_handled_while_a_thread_works() -> None:
    free = threading.Event()

    def ring(signum: int, frame: object) -> None:
        raise Alarm

    with handled(ring):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Alarm):
            in_thread(free.wait)
    free.set()


def test_results_and_errors_come_back_from_the_thread() -> None:
    assert in_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("command", "signum", "code"),
    [("train", signal.SIGTERM, 143), ("corpora", signal.SIGINT, 130)],
)
def test_signals_end_the_counting_of_byte_pairs(
    tmp_path: Path, spawn: Callable[..., Any], command: str, signum: signal.Signals, code: int
) -> None:
    file = tmp_path / "d.txt"
    file.write_text(dna(4_000_000))  # ten seconds of counting
    arguments = ["train", file, "--run", tmp_path / "run"] if command == "train" else ["corpora", "show", file]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = spawn([*arguments, "--tokens", "bpe"])
    deadline = time.monotonic() + 600
    while len(list(Path(f"/proc/{child.pid}/task").iterdir())) == 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    spent = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # seconds of processor time, also on a busy machine
    os.kill(child.pid, signum)
    assert child.wait() == code
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - spent < 5
    assert not (tmp_path / "run").exists()
