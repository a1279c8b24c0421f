"""Processes that measure are forked from one that has imported the program, but for tests about starting them."""

import multiprocessing
from collections.abc import Iterator

import dask
import distributed
import forked
import pytest

from recurrent_lm.studies.executors import cluster, own_process

METHOD = "distributed.worker.multiprocessing-method"


@pytest.fixture(scope="module", autouse=True)
def _forked() -> Iterator[None]:
    process = forked.context()
    with pytest.MonkeyPatch.context() as patch, dask.config.set({METHOD: "forkserver"}):
        patch.setattr(own_process, "get_context", lambda method: process)
        patch.setattr(distributed.utils, "_forkserver_preload_set", True)  # it would import more
        patch.setattr(cluster, "ANSWER", 300.0)  # on a busy machine
        yield


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes start as they do for users."""
    monkeypatch.setattr(own_process, "get_context", multiprocessing.get_context)
    with dask.config.set({METHOD: "spawn"}):
        yield
