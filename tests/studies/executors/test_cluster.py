"""Cells on a Dask cluster of real processes: the same table, whoever dies meanwhile."""

import gc
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from cluster_cases import Cases

import recurrent_lm.studies.executors.cluster
from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine import store
from recurrent_lm.studies.engine.run import Run
from recurrent_lm.studies.executors import job
from recurrent_lm.studies.executors.choose import executor
from recurrent_lm.studies.executors.cluster import Cluster
from recurrent_lm.studies.executors.own_process import OwnProcess
from recurrent_lm.studies.executors.sources import sources

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # what distributed and its parts say is theirs


@contextmanager
def cluster(**options):
    """Two worker processes that can import this folder's cases; the environment says how many threads each has."""
    paths = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None} | options
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", paths)
        with distributed.LocalCluster(processes=True, **options) as result:
            yield result


@pytest.fixture(scope="module")
def two():
    with cluster() as started:
        yield started


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    return str(folder)


def run(started, base, study):
    return Run(study, "cases", "cpu", base, executor=Cluster(started.scheduler_address))


def test_a_cluster_gives_the_table_of_one_process_bit_for_bit(two, tmp_path, notes, monkeypatch):
    study = Cases(numbers=(4, 1, 3, 2), notes=notes)
    result = run(two, tmp_path / "a", study)()
    assert set(result["threads"]) == {1}
    assert os.getpid() not in {process for _, process in study.measured()}
    pd.testing.assert_frame_equal(result.drop(columns="threads"), study().drop(columns="threads"), check_exact=True)
    assert len(list((tmp_path / "a" / "cells").iterdir())) == 4
    before = study.measured()
    run(two, tmp_path / "a", study)()  # all is there
    assert study.measured() == before


def test_a_cell_that_fails_on_a_worker_is_noted(two, tmp_path, notes):
    going = run(two, tmp_path / "s", Cases(notes=notes, broken=3))
    assert set(going()["number"]) == {1, 2, 4}
    assert going.failed == [{"cell": {"number": 3}, "error": "number 3 is broken"}]


def test_workers_with_another_program_are_refused(two, tmp_path, notes, monkeypatch):
    from recurrent_lm import lm

    about = lm.describe_machine()
    monkeypatch.setattr(lm, "describe_machine", lambda: about | {"torch": "1.0"})
    monkeypatch.setattr(job, "sources", lambda kind: sources(kind) | {"cluster_cases.py": "0" * 16})
    words = r"the worker tcp://\S+ has cluster_cases.py [0-9a-f]{16} instead of 0{16}, torch \S+ instead of 1.0$"
    with pytest.raises(InputError, match=words):
        run(two, tmp_path / "s", Cases(notes=notes))()
    assert not (tmp_path / "s").exists()


def test_the_table_tells_the_workers_machine_and_who_asked(two, tmp_path, notes, monkeypatch):
    """Threads are of the machine; the command is of the process that asked."""
    from recurrent_lm import lm

    about = lm.describe_machine()
    asked = {"cpu": "of the one who asks", "threads": 77, "command": "asked"}
    monkeypatch.setattr(lm, "describe_machine", lambda: about | asked)
    going = run(two, tmp_path / "s", Cases(notes=notes, numbers=(1,)))
    going()
    assert (going.machine["cpu"], going.machine["threads"], going.machine["command"]) == (about["cpu"], 1, "asked")


def test_a_worker_that_is_killed_loses_no_cell_and_stores_none_twice(two, tmp_path, notes, monkeypatch):
    study = Cases(notes=notes, deadly=2, after=3, base=str(tmp_path / "s"))
    saved = []
    known = store.Store.save
    monkeypatch.setattr(store.Store, "save", lambda self, i, *rest: (saved.append(i), known(self, i, *rest)))
    going = run(two, tmp_path / "s", study)
    assert set(going()["number"]) == {1, 2, 3, 4}
    assert sorted(saved) == [0, 1, 2, 3] and not going.failed
    assert [n for n, _ in study.measured()] == [1, 2, 2, 3, 4]


@pytest.mark.slow
def test_a_cell_that_kills_every_worker_is_noted_and_the_others_go_on(tmp_path, notes):
    with cluster() as started:
        going = run(started, tmp_path / "s", Cases(notes=notes, deadly=2, deaths=1_000))
        assert set(going()["number"]) == {1, 3, 4}
    assert going.failed == [
        {
            "cell": {"number": 2},
            "error": "the worker that measured it died, as did others that tried it again; it may need more memory",
        }
    ]


@pytest.mark.slow
def test_workers_that_take_several_cells_at_once_are_refused(tmp_path, notes):
    with (
        cluster(n_workers=1, threads_per_worker=2) as started,
        pytest.raises(InputError, match="takes 2 cells at once, which would share random numbers; start it with --nthreads 1"),
    ):
        run(started, tmp_path / "s", Cases(notes=notes))()


def test_a_cluster_without_workers_is_refused(tmp_path, notes, monkeypatch):
    connected = Cluster._connected

    def then_impatient(self):
        client = connected(self)
        monkeypatch.setattr(recurrent_lm.studies.executors.cluster, "ANSWER", 1.0)
        return client

    monkeypatch.setattr(Cluster, "_connected", then_impatient)
    with cluster(n_workers=0) as started, pytest.raises(InputError, match="has no workers; start some: dask worker"):
        run(started, tmp_path / "s", Cases(notes=notes))()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "x://y", "tcp://"])
def test_where_no_scheduler_answers_a_sentence_says_so(address, tmp_path, notes, monkeypatch):
    monkeypatch.setattr(recurrent_lm.studies.executors.cluster, "ANSWER", 1.0)
    with pytest.raises(InputError, match=r"^no Dask scheduler answers at "):
        Run(Cases(notes=notes), "cases", "cpu", tmp_path / "s", executor=Cluster(address))()


def test_an_address_that_is_none_is_told_without_a_traceback(capfd):
    with pytest.raises(InputError, match=r"^no Dask scheduler answers at nowhere: "):
        Cluster("nowhere")._connected()
    gc.collect()  # what was left of a client would say that it waits
    assert capfd.readouterr() == ("", "")


def test_where_dask_is_missing_a_sentence_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        InputError,
        match=r"dask, which --executor needs, is not installed here; pip install 'recurrent-lm\[cluster\]' installs it",
    ):
        Cluster("tcp://127.0.0.1:1")
    with pytest.raises(InputError, match=r"pip install 'recurrent-lm\[cluster\]' installs it"):
        executor("local:2", "speeches", False)
    assert isinstance(executor("local:1", "throughput", True), OwnProcess)  # which needs no dask


SCHEDULER = """
import distributed, time
if __name__ == "__main__":
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as made:
        print(made.scheduler_address, flush=True)
        time.sleep(600)
"""


@pytest.mark.slow
def test_a_cluster_that_goes_away_ends_the_run_with_a_sentence_and_keeps_what_was_measured(tmp_path, notes):
    (tmp_path / "scheduler.py").write_text(SCHEDULER)
    paths = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
    scheduler = subprocess.Popen(
        [sys.executable, str(tmp_path / "scheduler.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert scheduler.stdout
    address = scheduler.stdout.readline().strip()
    study = Cases(numbers=(1, 50), notes=notes, slow=50)
    from threading import Thread

    def kill():
        while 50 not in {n for n, _ in study.measured()}:
            time.sleep(0.1)
        scheduler.kill()

    Thread(target=kill).start()
    try:
        with pytest.raises(InputError, match=r"is gone .*; what was measured is kept"):
            Run(study, "cases", "cpu", tmp_path / "s", executor=Cluster(address))()
    finally:
        scheduler.kill()
        scheduler.communicate()
    assert [p.name for p in (tmp_path / "s" / "cells").iterdir()] == ["0000.parquet"]
