"""Cells on the workers of a Dask cluster. Its scheduler gives the cell of a worker that dies to another one."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.study import Cell
from recurrent_lm.studies.executors.job import Executor, Job, Outcome, describe, difference, identity_of, measured, program

ANSWER = 10.0  # seconds in which a scheduler must answer
LOOK = 2.0  # seconds without news after which it is asked whether it is there
OWN = ("command", "dirty")  # of a description: what is of who asks, wherever cells are measured
ALONE = "takes {} cells at once, which would share random numbers; start it with --nthreads 1"

_job: Job | None = None  # of a worker: the last, with what its study keeps, and why it cannot be measured here
_complaint = ""


class Cluster(Executor):
    """The cluster of a scheduler: workers that measure one cell at a time with the same program on the same kind of machine.

    When this process ends, its cells that wait are forgotten; those that workers are at end without being kept.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise InputError("dask is not installed here; pip install 'recurrent-lm[cluster]' installs it") from None
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here, in a sentence
        self.address, self._dask = address, distributed
        self._client: Any = None

    def machine(self, job: Job) -> dict[str, Any]:
        """The workers' machine: all must describe themselves alike, and have this program and what is measured on."""
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
        workers, alone = 1, False
        try:
            while waiting or running:
                while waiting and len(running) < workers:  # not all at once: a scheduler blames a death on all that is near it
                    index, cell = waiting.popleft()
                    begin(index)
                    future = client.submit(_measure, job, index, cell, pure=False)
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
                index = running.pop(future)
                try:
                    outcome = future.result(timeout=ANSWER)
                except self._dask.KilledWorker:
                    outcome = Outcome(index, error="the worker that measured it died, as did others that tried it again")
                except Exception as error:
                    raise self._gone(error) from None
                workers = self._workers()
                yield outcome
        finally:
            client.close()

    def stop(self) -> None:
        """Nothing: the scheduler forgets what it was asked when the connection ends, which this process's end is."""

    def _connected(self) -> Any:
        # One that found no scheduler would wait for it when it is deleted, and say so with a traceback.
        kind = type("Client", (self._dask.Client,), {"__del__": lambda client: None})
        try:
            return kind(self.address, timeout=ANSWER, set_as_default=False)
        except Exception as error:  # of a name, a port or a protocol: each its own
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"no Dask scheduler answers at {self.address}: {said}") from None

    def _answer(self, worker: str, future: Any) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """What ``_look`` says on a worker, however long others keep it busy; None if it went away."""
        while True:
            try:
                return future.result(timeout=ANSWER)
            except TimeoutError:
                if worker not in self._client.nthreads():
                    return None
            except self._dask.KilledWorker:
                return None
            except Exception as error:  # of an import there, say
                said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                raise InputError(f"the worker {worker} cannot measure: {said}") from None

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


def _look(job: Job) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """On a worker: how many cells it takes at once, what it is, and the identity of what it would measure."""
    job.study.prepare()
    about = describe()
    return _threads(), about, identity_of(job.study, job.name, about)


def _measure(job: Job, index: int, cell: Cell) -> Outcome:
    """On a worker, which may have come after the others were looked at."""
    global _job, _complaint
    if _job is None or _job.identity != job.identity:
        _complaint = ALONE.format(_threads()) if _threads() != 1 else job.complaint()
        _job = job
    return Outcome(index, error=f"its worker {_complaint}") if _complaint else measured(_job.study, index, cell)


def _threads() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)
