"""Cells in processes of this machine, Dask's or one of their own: the same table as without, whoever dies meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from cluster_cases import Cases
from paths import SUPPORT

from recurrent_lm.lm import InputError, run_app
from recurrent_lm.studies import load
from recurrent_lm.studies.cli import app
from recurrent_lm.studies.engine import store
from recurrent_lm.studies.engine.run import Run
from recurrent_lm.studies.executors import cluster, job
from recurrent_lm.studies.executors.choose import executor
from recurrent_lm.studies.executors.cluster import Local
from recurrent_lm.studies.executors.own_process import OwnProcess

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # what distributed and its parts say is theirs
BOTH = pytest.mark.parametrize("where", [lambda: Local(2), OwnProcess], ids=["dask", "own"])


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    return str(folder)


def run(base, study, where):
    return Run(study, "cases", "cpu", base, executor=where())


@BOTH
def test_processes_give_the_table_of_one_bit_for_bit(where, tmp_path, notes, monkeypatch, request):
    """A process of its own starts as it does for users; workers of Dask do so where a signal ends them."""
    if where is OwnProcess:
        request.getfixturevalue("spawned")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study = Cases(numbers=(4, 1, 3, 2), notes=notes)
    result = run(tmp_path / "a", study, where)()
    assert len({process for _, process in study.measured()} - {os.getpid()}) == (1 if where is OwnProcess else 2)
    alone = Run(study, "cases", "cpu", tmp_path / "b")()
    pd.testing.assert_frame_equal(result, alone, check_exact=True)
    assert list(result["number"]) == [4] * 3 + [1] * 3 + [3] * 3 + [2] * 3
    one, other = (json.loads((tmp_path / f / "study.json").read_text()) for f in "ab")
    assert one == other  # either goes on with what the other began


@pytest.mark.slow
def test_each_process_has_its_share_of_the_cores_and_the_folder_says_so(tmp_path, notes, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cluster.os, "sched_getaffinity", lambda _: set(range(6)))
    import torch

    before = torch.get_num_threads()
    try:
        result = run(tmp_path / "s", Cases(numbers=(1,), notes=notes), lambda: Local(2))()
    finally:
        torch.set_num_threads(before)
    assert set(result["threads"]) == {3}
    assert json.loads((tmp_path / "s" / "study.json").read_text())["identity"]["machine"]["threads"] == 3


@pytest.mark.slow
def test_the_table_of_a_real_study_is_the_same_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tables = []
    for where in ("", "local:2"):
        out = tmp_path / where / "gradient_flow.parquet"
        arguments = ["run", "gradient_flow", "--preset", "smoke", "--out", str(out), *(["--executor", where] if where else [])]
        assert run_app(app, "studies", arguments) == 0
        tables.append(load(out))
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@BOTH
@pytest.mark.parametrize(("deaths", "measured"), [(1, 2), pytest.param(job.TRIES, job.TRIES, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_loses_no_cell_and_stores_none_twice(
    where, deaths, measured, tmp_path, notes, capsys, monkeypatch
):
    others = 1 if where is OwnProcess else 3  # cells that are stored before: the results of a worker of Dask die with it
    study = Cases(notes=notes, deadly=2, deaths=deaths, after=others, base=str(tmp_path / "s"))
    saved = []
    known = store.Store.save
    monkeypatch.setattr(store.Store, "save", lambda self, i, *rest: (saved.append(i), known(self, i, *rest)))
    going = run(tmp_path / "s", study, where)
    table = going()
    assert [n for n, _ in study.measured()] == [1, *[2] * measured, 3, 4]
    output = capsys.readouterr().out
    assert output.count("its cell is measured again") >= measured - 1
    if deaths == 1:
        assert sorted(saved) == [0, 1, 2, 3] and set(table["number"]) == {1, 2, 3, 4} and not going.failed
        return
    assert sorted(saved) == [0, 2, 3] and set(table["number"]) == {1, 3, 4}
    assert [failure["cell"] for failure in going.failed] == [{"number": 2}]
    assert "died" in going.failed[0]["error"] and f"number 2 failed: {going.failed[0]['error']}" in output
    assert set(run(tmp_path / "s", study, where)()["number"]) == {1, 2, 3, 4}  # and later it is tried again
    assert [n for n, _ in study.measured()].count(2) == measured + 1


@BOTH
def test_a_cell_that_fails_in_a_process_is_noted_like_one_that_fails_here(where, tmp_path, notes):
    going = run(tmp_path / "s", Cases(notes=notes, broken=3), where)
    assert set(going()["number"]) == {1, 2, 4}
    assert going.failed == [{"cell": {"number": 3}, "error": "number 3 is broken"}]
    noted = json.loads((tmp_path / "s" / "cells" / "0002.error.json").read_text())
    assert "cluster_cases.py" in "".join(noted["traceback"])
    with pytest.raises(InputError, match=r"^number 3 is broken$"):
        run(tmp_path / "t", Cases(numbers=(3,), notes=notes, broken=3), where)()
    assert not (tmp_path / "t").exists()


@BOTH
def test_processes_that_cannot_measure_the_same_end_the_run_with_a_sentence(where, tmp_path, notes, monkeypatch):
    """Another program than the one that asks: as after a change of the sources while a run goes on."""
    monkeypatch.setattr(job, "sources", lambda kind: {"cluster_cases.py": "0" * 16})
    with pytest.raises(
        InputError, match=r"^a process that was to measure has cluster_cases.py [0-9a-f]{16} instead of 0{16}, "
    ):
        run(tmp_path / "s", Cases(notes=notes, numbers=(1,)), where)()
    assert not (tmp_path / "s").exists()


def test_workers_that_cannot_start_end_the_run(tmp_path, notes, monkeypatch):
    def refuse(**options):
        raise RuntimeError("Cluster failed\nto start")

    monkeypatch.setattr(distributed, "LocalCluster", refuse)
    with pytest.raises(
        InputError, match=r"^2 workers cannot be started on this machine \(Cluster failed to start\); take fewer"
    ):
        run(tmp_path / "s", Cases(notes=notes), lambda: Local(2))()


def test_nothing_is_started_where_all_is_measured(tmp_path, notes, monkeypatch):
    study = Cases(notes=notes)
    Run(study, "cases", "cpu", tmp_path / "s")()
    monkeypatch.setattr(distributed, "LocalCluster", lambda **options: pytest.fail("it was started"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert len(run(tmp_path / "s", study, lambda: Local(2))()) == 12


SLOW = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from cluster_cases import Cases
from recurrent_lm.studies.executors.{module} import {executor}
from recurrent_lm.lm import ending_at_once
from recurrent_lm.studies.engine.run import Run
going = Run(Cases(numbers=(1, 2, 50, 51), notes={notes!r}, slow=50), "cases", "cpu", Path({base!r}), executor={call})
with ending_at_once(going.stopped):
    going()
"""


@pytest.mark.parametrize(
    ("signum", "code", "where"),
    [
        (signal.SIGINT, 130, "cluster.Local(2)"),
        pytest.param(signal.SIGTERM, 143, "cluster.Local(2)", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, "cluster.Local(2)", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "own_process.OwnProcess()", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, "own_process.OwnProcess()", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_processes_too_and_keeps_what_was_measured(signum, code, where, tmp_path, notes):
    """Sent to the whole group, as by Ctrl-C in a terminal."""
    base = tmp_path / "s"
    module, _, call = where.partition(".")
    program = SLOW.format(
        tests=str(SUPPORT / "studies"), notes=notes, base=str(base), module=module, executor=call.partition("(")[0], call=call
    )
    going = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    begun = {1, 2, 50, 51} if module == "cluster" else {1, 2, 50}
    study = Cases(numbers=(1, 2, 50, 51), notes=notes)
    until(lambda: {n for n, _ in study.measured()} == begun and len(list(base.glob("cells/*.parquet"))) == 2)
    os.killpg(going.pid, signum) if signum != signal.SIGKILL else going.kill()
    message = going.communicate(timeout=600)[1]
    assert going.returncode == code, message
    if signum != signal.SIGKILL:
        assert message == f"lm: stopped with 2 of 4 cells in {base}; the same command goes on from there\n"
    until(lambda: not any(Path(f"/proc/{process}/task").exists() for _, process in study.measured()))
    assert sorted(path.name for path in base.glob("cells/*.parquet")) == ["0000.parquet", "0001.parquet"]


def until(done, seconds=300):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("local:0", "from 1 to 1,024, not '0'"),
        ("local:x", "from 1 to 1,024, not 'x'"),
        ("local:-1", "from 1 to 1,024, not '-1'"),
        ("local:²", "from 1 to 1,024"),
        ("local:1e3", "from 1 to 1,024"),
        ("local:99999999999", "from 1 to 1,024"),
        ("local:", "--executor must be local:N"),
        ("dask:", "--executor must be local:N"),
        ("threads:2", "not 'threads:2'"),
    ],
)
def test_an_executor_that_is_none_is_a_sentence(text, words, capsys, tmp_path):
    arguments = ["run", "weight_tying", "--preset", "smoke", "--executor", text, "--out", str(tmp_path / "t.parquet")]
    assert run_app(app, "studies", arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["throughput", "training_step", "exchange"])
@pytest.mark.parametrize("where", ["local:2", "dask:tcp://127.0.0.1:1"])
def test_times_share_their_device_with_nothing(name, where, capsys, tmp_path):
    assert run_app(app, "studies", ["run", name, "--executor", where, "--out", str(tmp_path / "t.parquet")]) == 2
    output = capsys.readouterr().err
    assert f"{name} measures times, which cells that share a machine would lengthen; leave out --executor" in output
    assert output.count("\n") == 1 and not any(tmp_path.iterdir())


def test_one_process_may_measure_times():
    assert isinstance(executor("local:1", "throughput", True), OwnProcess)


def test_a_study_that_names_seconds_says_that_it_is_timed():
    from recurrent_lm.studies.engine.catalogue import STUDIES, module_of

    named = {name for name in STUDIES if "seconds" in module_of(name).Study.COLUMNS}
    assert named == {name for name in STUDIES if module_of(name).Study.TIMED} != set()
