"""A study that is stopped goes on where it was, and nothing is mixed in that was measured otherwise."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
from forked import ended

from recurrent_lm import lm
from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine import progress, store
from recurrent_lm.studies.engine.parameters import whole, wholes
from recurrent_lm.studies.engine.run import Run
from recurrent_lm.studies.engine.study import Sweep, label
from recurrent_lm.studies.engine.tables import save
from recurrent_lm.studies.executors import job
from recurrent_lm.studies.executors.job import identity_of
from recurrent_lm.studies.executors.sources import digest_of, sources


@dataclass(frozen=True)
class Squares(Sweep):
    """The squares of numbers; ``calls`` notes what was measured."""

    numbers: tuple[int, ...] = wholes(1, 2, 3, low=0, high=100)
    offset: int = whole(0, 0, 100)

    NAME: ClassVar = "squares"
    COLUMNS: ClassVar = {"number": int, "round": int, "square": float}
    calls: ClassVar = []
    broken: ClassVar = {}

    def cells(self):
        return [{"number": n} for n in self.numbers]

    def measure(self, cell):
        n = cell["number"]
        Squares.calls.append(n)
        if n in Squares.broken:
            raise Squares.broken[n]
        return [{"number": n, "round": r, "square": n * n + self.offset + r / 10} for r in range(2)]


@pytest.fixture(autouse=True)
def clean():
    Squares.calls.clear()
    Squares.broken.clear()


def run(base, study=None, **options):
    return Run(study or Squares(), "squares", "cpu", base, **options)


def test_a_run_gives_what_calling_the_study_gives(tmp_path):
    result = run(tmp_path / "s")()
    pd.testing.assert_frame_equal(result, Squares()())
    assert list(result["square"]) == [1.0, 1.1, 4.0, 4.1, 9.0, 9.1]
    assert sorted(p.name for p in (tmp_path / "s" / "cells").iterdir()) == ["0000.parquet", "0001.parquet", "0002.parquet"]
    assert json.loads((tmp_path / "s" / "study.json").read_text())["identity"]["parameters"] == {
        "numbers": [1, 2, 3],
        "offset": 0,
    }


def test_a_cell_that_fails_is_noted_and_the_others_go_on(tmp_path, capsys):
    Squares.broken[2] = ZeroDivisionError("two is\nbroken")
    first = run(tmp_path / "s")
    assert set(first()["number"]) == {1, 3}
    assert first.failed == [{"cell": {"number": 2}, "error": "ZeroDivisionError: two is broken"}]
    assert "number 2 failed: ZeroDivisionError: two is broken" in capsys.readouterr().out
    noted = json.loads((tmp_path / "s" / "cells" / "0001.error.json").read_text())
    assert noted["cell"] == {"number": 2} and "measure" in "".join(noted["traceback"])
    Squares.broken.clear()
    Squares.calls.clear()
    again = run(tmp_path / "s")
    assert list(again()["number"]) == [1, 1, 2, 2, 3, 3]
    assert Squares.calls == [2] and again.failed == []
    assert not (tmp_path / "s" / "cells" / "0001.error.json").exists()
    assert "2 of 3 cells are there" in capsys.readouterr().out


def test_what_was_measured_is_not_measured_again_unless_asked(tmp_path, capsys):
    run(tmp_path / "s")()
    Squares.calls.clear()
    run(tmp_path / "s")()
    assert Squares.calls == []
    assert f"all 3 cells are in {tmp_path / 's'} already; --fresh measures them again" in capsys.readouterr().out
    run(tmp_path / "s", fresh=True)()
    assert Squares.calls == [1, 2, 3]
    assert (tmp_path / "s-2" / "study.json").exists()


def test_of_two_folders_that_fit_the_newer_is_gone_on_with(tmp_path):
    run(tmp_path / "s")()
    Squares.broken[3] = ValueError("not now")
    run(tmp_path / "s", fresh=True)()
    Squares.broken.clear()
    Squares.calls.clear()
    run(tmp_path / "s")()
    assert Squares.calls == [3]


CHANGES = {
    "parameters": ("other parameters (offset)", lambda about: about),
    "sources": ("other sources (studies/engine/parameters.py)", lambda about: about),
    "machine": ("another machine (cpu)", lambda about: about | {"cpu": "another processor"}),
    "torch": ("another machine (torch)", lambda about: about | {"torch": "1.0"}),
    "triton": ("another machine (versions)", lambda about: about | {"versions": about["versions"] | {"triton": "1.0"}}),
    "threads": ("another machine (threads)", lambda about: about | {"threads": about["threads"] + 1}),
    "inputs": ("other inputs", lambda about: about),
}


@pytest.mark.parametrize("change", CHANGES)
def test_results_are_never_mixed(change, tmp_path, monkeypatch, capsys):
    """Another source, machine or parameter: the run begins anew beside the old one, and says why."""
    Squares.broken[3] = ValueError("stopped")
    run(tmp_path / "s")()
    before = {p: p.read_bytes() for p in (tmp_path / "s").rglob("*.parquet")}
    Squares.broken.clear()
    Squares.calls.clear()
    capsys.readouterr()
    words, changed = CHANGES[change]
    about = changed(lm.describe_machine())
    monkeypatch.setattr(lm, "describe_machine", lambda: about)
    monkeypatch.setattr(Squares, "inputs", lambda self: "else" if change == "inputs" else "")
    if change == "sources":
        files = sources(Squares) | {"studies/engine/parameters.py": "0" * 16}
        monkeypatch.setattr(job, "sources", lambda kind: files)
    run(tmp_path / "s", Squares(offset=7) if change == "parameters" else None)()
    assert Squares.calls == [1, 2, 3]
    output = capsys.readouterr().out
    assert (
        f"{tmp_path / 's'} was measured with {words}" in output
        and f"begins anew in {tmp_path / 's-2'} and measures all 3 cells" in output
    )
    assert before == {p: p.read_bytes() for p in (tmp_path / "s").rglob("*.parquet")}


def test_what_is_no_part_of_the_machine_does_not_matter():
    """The command line, the commit and the state of the working tree are recorded, not compared; the sources' digests are."""
    identity = identity_of(Squares(), "squares", lm.describe_machine())
    again = lm.describe_machine() | {"command": "another", "commit": "f" * 40, "dirty": None}
    assert identity == identity_of(Squares(), "squares", again)
    assert {"command", "commit", "dirty"}.isdisjoint(identity["machine"])
    assert identity["sources"] and identity["machine"]["cpu"] and identity["machine"]["threads"]


@pytest.mark.parametrize("fault", ["cut", "foreign", "empty"])
def test_a_damaged_cell_is_measured_again(fault, tmp_path, capsys):
    run(tmp_path / "s")()
    cell = tmp_path / "s" / "cells" / "0001.parquet"
    other = tmp_path / "s" / "cells" / "0002.parquet"
    cell.write_bytes({"cut": cell.read_bytes()[:-20], "foreign": other.read_bytes(), "empty": b""}[fault])
    Squares.calls.clear()
    assert list(run(tmp_path / "s")()["square"]) == [1.0, 1.1, 4.0, 4.1, 9.0, 9.1]
    assert Squares.calls == [2]
    assert f"{cell} is damaged or belongs to another run; its cell is measured again" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"identity": 3}', "[" * 100_000])
def test_a_folder_that_is_half_written_is_left_alone(content, tmp_path, capsys):
    folder = tmp_path / "s"
    folder.mkdir()
    if content is not None:
        (folder / "study.json").write_text(content)
    assert len(run(folder)()) == 6
    assert (tmp_path / "s-2").is_dir()
    assert f"{folder} was measured with settings that cannot be read" in capsys.readouterr().out


def test_two_processes_do_not_share_a_folder(tmp_path):
    Squares.broken[3] = ValueError("stopped")
    run(tmp_path / "s")()
    held = store.Store(tmp_path / "s", {})
    held.claim()
    with pytest.raises(InputError, match="in use by another process"):
        run(tmp_path / "s")()
    held.release()
    Squares.broken.clear()
    assert len(run(tmp_path / "s")()) == 6


def test_when_nothing_can_be_measured_the_reason_is_said_and_no_folder_stays(tmp_path):
    for n in (1, 2, 3):
        Squares.broken[n] = InputError("no such run")
    with pytest.raises(InputError, match=r"^no such run$"):
        run(tmp_path / "s")()
    assert not any(tmp_path.iterdir())
    for n in (1, 2, 3):
        Squares.broken[n] = RuntimeError("broken")
    with pytest.raises(InputError, match="no cell of squares could be measured; the last error: RuntimeError: broken"):
        run(tmp_path / "s")()
    assert (tmp_path / "s" / "cells" / "0002.error.json").exists()


def test_a_shortage_of_memory_in_one_cell_is_that_cells_failure(tmp_path):
    Squares.broken[1] = MemoryError()
    first = run(tmp_path / "s")
    assert set(first()["number"]) == {2, 3}
    assert "memory is not enough" in first.failed[0]["error"]


STOPPED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_runner
from pathlib import Path
from test_runner import Squares, run
from recurrent_lm.lm import ending_at_once
def measure(self, cell, known=Squares.measure):
    if cell["number"] == 3:
        os.kill(os.getpid(), {signum})
        raise SystemExit("the signal was lost")
    return known(self, cell)
Squares.measure = measure
going = run(Path({base!r}))
with ending_at_once(going.stopped):
    going()
"""


@pytest.mark.parametrize(("signum", "code"), [(2, 130), (15, 143)])
def test_a_signal_ends_the_run_with_a_sentence_and_keeps_what_was_measured(signum, code, tmp_path):
    base = tmp_path / "s"
    program = STOPPED.format(tests=str(Path(__file__).parent), signum=signum, base=str(base))
    output = f"lm: stopped with 2 of 3 cells in {base}; the same command goes on from there\n"
    assert ended(tmp_path / "ended", "", first=program)[::2] == (code, output)
    assert list(run(base)()["square"]) == [1.0, 1.1, 4.0, 4.1, 9.0, 9.1]
    assert Squares.calls == [3]


def test_what_a_killed_process_left_half_written_goes_away(tmp_path):
    run(tmp_path / "s")()
    left = tmp_path / "s" / "cells" / ".123.tmp"
    left.write_bytes(b"half")
    run(tmp_path / "s")()
    assert not left.exists()


@pytest.mark.parametrize(
    ("cell", "text"),
    [({"part": "loss", "cell": "", "batch": 3, "steps": 0}, "loss batch 3"), ({"window": 0}, "window 0"), ({}, ""), (3, "3")],
)
def test_a_cell_is_named_by_what_it_has(cell, text):
    assert label(cell) == text


def test_the_time_left_is_that_of_the_cells_measured_here(monkeypatch, capsys):
    """Two of ten cells were there; three more took 30 seconds, so the five that remain take 50."""
    now = iter([100.0, 110.0, 120.0, 130.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    display = progress.Display(10, 2)
    for i in range(3):
        display.end(f"number {i}")
    assert capsys.readouterr().out.splitlines()[-1] == "cell 5/10 number 2 0:50 left"


def test_a_run_tells_the_program_that_began_it(tmp_path, monkeypatch):
    """What is committed while it measures is not what measured."""
    about = lm.describe_machine()
    monkeypatch.setattr(lm, "describe_machine", lambda: about | {"commit": "begun"})
    going = run(tmp_path / "s")
    known = Squares.measure

    def measure(self, cell):
        monkeypatch.setattr(lm, "describe_machine", lambda: about | {"commit": "ended"})
        return known(self, cell)

    monkeypatch.setattr(Squares, "measure", measure)
    table = going()
    assert going.machine["commit"] == "begun" and going.machine["sources"] == digest_of(sources(Squares))
    save(table, tmp_path / "t.parquet", "squares", going.study, machine=going.machine)
    assert pd.read_parquet(tmp_path / "t.parquet").attrs["machine"]["commit"] == "begun"
