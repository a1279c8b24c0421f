"""The table of compiled kernels: what a run replaces, and what it keeps."""

import csv
from pathlib import Path

import pytest

from recurrent_lm.kernels.bench import compiled
from recurrent_lm.kernels.bench.compiled import Configuration
from recurrent_lm.kernels.bench.sweep import Table

GOOD = Configuration("sm_90", "lstm", 16, 256, "bfloat16", "resident", "forward")
BAD = Configuration("sm_90", "lstm", 16, 256, "bfloat16", "resident", "backward")


def rows(path: Path) -> list[tuple[str, str, str]]:
    with path.open(newline="") as file:
        return [(row["triton"], row["direction"], row["faults"]) for row in csv.DictReader(file)]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A row without a fault and one with, each of two versions."""
    monkeypatch.setattr(
        "recurrent_lm.kernels.bench.sweep.faults", lambda configuration, facts: [] if configuration == GOOD else [facts]
    )
    path = tmp_path / "scans.csv"
    for version in ("3.6.0", "3.9.0"):
        table = Table(path, version, compiled)
        table.add(GOOD, "crashed")
        table.add(BAD, "crashed")
    return path


def test_a_run_replaces_the_rows_of_its_own_version_only(path: Path) -> None:
    before = rows(path)
    assert before == [(v, d, f) for v in ("3.6.0", "3.9.0") for d, f in (("forward", ""), ("backward", "crashed"))]
    table = Table(path, "3.6.0", compiled)
    assert GOOD not in table
    assert rows(path) == before[2:]


def test_a_resumed_run_keeps_what_has_no_fault(path: Path) -> None:
    with path.open("a") as file:
        file.write("3.9.0,sm_90,lstm,20,2")  # cut off in the middle of a row
    table = Table(path, "3.9.0", compiled, resume=[GOOD, BAD])
    assert GOOD in table
    assert BAD not in table
    assert rows(path) == [("3.6.0", "forward", ""), ("3.6.0", "backward", "crashed"), ("3.9.0", "forward", "")]
    assert GOOD not in Table(path, "3.9.0", compiled, resume=[BAD])  # no plan returns the other any more
    assert rows(path) == [("3.6.0", "forward", ""), ("3.6.0", "backward", "crashed")]
