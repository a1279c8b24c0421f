"""JSON lines that survive a crash."""

import json
from pathlib import Path

import pytest

from recurrent_lm.lm.runs.logs import Log, read

RECORDS = [{"step": n, "loss": 1 / n, "text": "“ü”\n"} for n in range(1, 6)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = Log(tmp_path / "steps.jsonl", "step", 0)
    for record in RECORDS:
        log.write(record)
    log.sync()
    log.close()
    return tmp_path / "steps.jsonl"


def test_what_is_written_is_read_back_exactly(path: Path) -> None:
    assert list(read(path)) == RECORDS
    assert len(path.read_text().splitlines()) == len(RECORDS), "one line a record"


def test_a_record_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", "step", 0)
    log.write({"step": 1})
    assert list(read(tmp_path / "log")) == [{"step": 1}]
    log.close()


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert list(read(tmp_path / "none")) == []


def test_a_crash_at_any_byte_loses_only_the_torn_line(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        complete = whole[:size].count(b"\n")
        assert list(read(path)) == RECORDS[:complete]
        log = Log(path, "step", 3)
        log.write({"step": "next"})
        log.close()
        assert list(read(path)) == [*RECORDS[: min(complete, 3)], {"step": "next"}]
        assert path.read_bytes().count(b"\n") == min(complete, 3) + 1


@pytest.mark.parametrize("last", range(7))
def test_opening_cuts_back_to_the_checkpoints_record(path: Path, last: int) -> None:
    Log(path, "step", last).close()
    assert list(read(path)) == RECORDS[:last]


def test_the_key_decides_what_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    path.write_text("".join(json.dumps({"epoch": n, "step": 100 * n}) + "\n" for n in (1, 2, 3)))
    Log(path, "epoch", 2).close()
    assert [r["epoch"] for r in read(path)] == [1, 2]


@pytest.mark.parametrize("garbage", [b"\x00" * 40, b"{not json}\n", b"\xff\xfe\n", b"[1, 2]\n", b"17\n", b'{"step": 6'])
def test_what_follows_a_damaged_line_is_not_believed(path: Path, garbage: bytes) -> None:
    path.write_bytes(path.read_bytes() + garbage + b'{"step": 7}\n')
    assert list(read(path)) == RECORDS
    log = Log(path, "step", 99)
    log.write({"step": 6})
    log.close()
    assert list(read(path)) == [*RECORDS, {"step": 6}]


def test_infinite_and_undefined_figures_survive(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", "step", 0)
    log.write({"step": 1, "perplexity": float("inf")})
    log.close()
    assert list(read(tmp_path / "log")) == [{"step": 1, "perplexity": float("inf")}]
