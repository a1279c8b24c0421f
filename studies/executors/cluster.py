"""Cells on Dask workers, of this machine or of a cluster. Dask moves the cell of a dead worker to another one."""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

import torch

from recurrent_lm import lm
from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.study import Cell
from recurrent_lm.studies.executors.job import (
    TRIES,
    Executor,
    Job,
    Outcome,
    difference,
    identity_of,
    measured_elsewhere,
    program,
    track_quietly,
)

ANSWER = 10.0  # seconds in which a scheduler must answer
LOOK = 2.0  # seconds without news after which the scheduler is checked
OWN = ("command", "dirty")  # fields of a description that stay this process's
ALONE = "takes {} cells at once, which would share random numbers; start it with --nthreads 1"


class Cluster(Executor):
    """The workers of a Dask scheduler, each of which measures one cell at a time, with the same program on the same kind of
    machine.

    When this process ends, waiting cells are dropped; cells being measured end without being stored.
    """

    def __init__(self, address: str) -> None:
        self.address, self.threads, self._dask = address, 0, _distributed()
        self._client: Any = None

    def machine(self, job: Job) -> dict[str, Any]:
        """Describe the workers' machine.

        Raises:
            InputError: if workers differ from each other, or have another program or other inputs than this process.
        """
        own = super().machine(job)
        mine = identity_of(job.study, job.name, own)
        self._client = client = self._connected()
        try:
            client.wait_for_workers(1, timeout=ANSWER)
        except TimeoutError:
            raise InputError(
                f"the Dask cluster at {self.address} has no workers; start some: dask worker ADDRESS --nthreads 1"
            ) from None
        asked = {w: client.submit(_look, job, workers=[w], allow_other_workers=False, pure=False) for w in client.nthreads()}
        first: tuple[dict[str, Any], dict[str, Any]] | None = None
        for worker, future in asked.items():
            answer = self._answer(worker, future)
            if answer is None:
                continue
            threads, about, identity = answer
            first = first or (about, identity)
            wrong = ALONE.format(threads) if threads != 1 else difference(program(identity), program(mine))
            if wrong := wrong or difference(identity["machine"], first[1]["machine"]):
                raise InputError(f"the worker {worker} {wrong}")
        if first is None:
            raise InputError(f"all workers of the Dask cluster at {self.address} went away before they measured")
        return first[0] | {key: own[key] for key in OWN if key in own}

    def outcomes(
        self, job: Job, cells: list[tuple[int, Cell]], begin: Callable[[int], None], tell: Callable[[str], None]
    ) -> Iterator[Outcome]:
        client, waiting = self._client, deque(cells)
        running: dict[Any, int] = {}
        ended: SimpleQueue[Any] = SimpleQueue()
        alone = False
        try:
            workers = self._workers() or 1
            client.subscribe_topic("all", lambda event: ended.put(dict(event[1])))
            while waiting or running:
                while (
                    waiting and len(running) < workers
                ):  # not all at once: Dask blames a worker's death on every task it holds
                    index, cell = waiting.popleft()
                    begin(index)
                    future = client.submit(_measure, job, index, cell, self.threads, pure=False)
                    running[future] = index
                    future.add_done_callback(ended.put)
                try:
                    future = ended.get(timeout=LOOK)
                except Empty:
                    workers = self._workers()
                    if not workers and not alone:
                        tell(f"the Dask cluster at {self.address} has no workers; waiting for one")
                    alone = not workers
                    continue
                if isinstance(future, dict):  # an event of a worker
                    died = future.get("action") == "remove-worker" and not future.get("expected")
                    if died and {f.key for f in running} & set(future.get("processing-tasks", ())):
                        tell("a worker died while it measured; its cell is measured again, if not too many died at it")
                    continue
                index = running.pop(future)
                try:
                    outcome = future.result(timeout=ANSWER)
                except self._dask.KilledWorker:
                    error = "the worker that measured it died, as did others that tried it again; it may need more memory"
                    outcome = Outcome(index, error=error)
                except Exception as error:
                    raise self._gone(error) from None
                workers = self._workers()
                yield outcome
        finally:
            client.close()

    def _connected(self) -> Any:
        # A client without a scheduler would wait for it on deletion, and print a traceback.
        kind = type("Client", (self._dask.Client,), {"__del__": lambda client: None})
        try:
            return kind(self.address, timeout=ANSWER, set_as_default=False)
        except Exception as error:  # names, ports and protocols raise different types
            message = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"no Dask scheduler answers at {self.address}: {message}") from None

    def _answer(self, worker: str, future: Any) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """A worker's result of ``_look``, however long other work delays it; None if the worker is gone."""
        while True:
            try:
                return future.result(timeout=ANSWER)
            except TimeoutError:
                if worker not in self._client.nthreads():
                    return None
            except self._dask.KilledWorker:
                return None
            except Exception as error:  # such as a failed import there
                message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                raise InputError(f"the worker {worker} cannot measure: {message}") from None

    def _workers(self) -> int:
        try:
            return len(self._client.nthreads())
        except Exception as error:
            raise self._gone(error) from None

    def _gone(self, error: Exception) -> InputError:
        return InputError(
            f"the Dask cluster at {self.address} is gone ({type(error).__name__}); what was measured is kept, and the same "
            "command goes on from there"
        )


class Local(Cluster):
    """Dask workers on this machine, each with its share of the cores, or with OMP_NUM_THREADS threads.

    They end with this process, even if it is killed.
    """

    def __init__(self, count: int) -> None:
        super().__init__("this machine")
        self.count = count
        self.threads = 0 if os.environ.get("OMP_NUM_THREADS") else max(1, len(os.sched_getaffinity(0)) // count)

    def machine(self, job: Job) -> dict[str, Any]:
        """Describe this machine with the threads of one worker, on which results depend."""
        if self.threads:
            torch.set_num_threads(self.threads)
        return Executor.machine(self, job)

    def outcomes(
        self, job: Job, cells: list[tuple[int, Cell]], begin: Callable[[int], None], tell: Callable[[str], None]
    ) -> Iterator[Outcome]:
        if not cells:
            return
        with self._started(min(self.count, len(cells))) as cluster:
            self.address = cluster.scheduler_address
            self._client = self._connected()
            yield from super().outcomes(job, cells, begin, tell)

    @contextmanager
    def _started(self, count: int) -> Iterator[Any]:
        from dask import config

        track_quietly()
        threads = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        # Workers inherit this mask and so ignore Ctrl-C; they end with this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with config.set({"distributed.nanny.pre-spawn-environ": {}}):  # Dask would limit workers to one thread
                cluster = self._dask.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit=None,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    scheduler_kwargs={"allowed_failures": TRIES - 1},
                    env=threads,
                )
        except Exception as error:
            message = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"{count} workers cannot be started on this machine ({message}); take fewer of them") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with cluster:
            yield cluster


def _distributed() -> ModuleType:
    try:
        import distributed
    except ImportError:
        raise InputError(
            "dask, which --executor needs, is not installed here; pip install 'recurrent-lm[cluster]' installs it"
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # this module reports what matters
    return distributed


def _look(job: Job) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """On a worker: the number of cells it takes at once, its description, and the identity of what it would measure."""
    job.study.prepare()
    about = lm.describe_machine()
    return _threads(), about, identity_of(job.study, job.name, about)


def _measure(job: Job, index: int, cell: Cell, threads: int) -> Outcome:
    """On a worker, which may have joined after the check of the others."""
    if _threads() != 1:
        return Outcome(index, error=f"its worker {ALONE.format(_threads())}")
    if threads:
        torch.set_num_threads(threads)  # of the thread that measures
    return measured_elsewhere(job, index, cell)


def _threads() -> int:
    return int(_distributed().get_worker().state.nthreads)
