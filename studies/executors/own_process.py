"""Cells in one separate process, one after the other: for studies that measure times.

A Python-bound call of 20 microseconds takes 5% longer in the thread of a Dask worker than in a plain process.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread

from recurrent_lm.studies.engine.study import Cell
from recurrent_lm.studies.executors.job import TRIES, Executor, Job, Outcome, measured_elsewhere, track_quietly


class OwnProcess(Executor):
    """One process. If it dies, a new one measures the cell again. It ends with this process, even if that is killed."""

    def outcomes(
        self, job: Job, cells: list[tuple[int, Cell]], begin: Callable[[int], None], tell: Callable[[str], None]
    ) -> Iterator[Outcome]:
        pool = _pool()
        try:
            for index, cell in cells:
                begin(index)
                outcome = Outcome(index, error=f"the process that measured it died, {TRIES} times; it may need more memory")
                for attempt in range(1, TRIES + 1):
                    try:
                        outcome = pool.submit(measured_elsewhere, job, index, cell).result()
                        break
                    except BrokenProcessPool:
                        pool = _pool()
                        if attempt < TRIES:
                            tell("the process that measured died; its cell is measured again")
                yield outcome
        finally:
            pool.shutdown()


def _pool() -> ProcessPoolExecutor:
    track_quietly()
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """In the process: ignore Ctrl-C, and end when the parent ends."""
    os.setpgid(0, 0)
    parent = parent_process()
    assert parent

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(0)

    Thread(target=follow, daemon=True).start()
