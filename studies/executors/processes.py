"""Cells in several processes of this machine. One that dies takes no other with it, and its cell is measured again."""

import os
import pickle
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.study import Cell
from recurrent_lm.studies.executors.job import Executor, Job, Outcome

TRIES = 3  # of a cell whose process dies


class Processes(Executor):
    """So many processes at once, each with its share of the cores, or as many threads as OMP_NUM_THREADS says."""

    def __init__(self, count: int) -> None:
        self.count, self._workers = count, dict[Connection, _Worker]()
        self.threads = "" if os.environ.get("OMP_NUM_THREADS") else str(max(1, len(os.sched_getaffinity(0)) // count))

    def machine(self, job: Job) -> dict[str, Any]:
        """This machine, with the threads of one process: they are part of what a result depends on."""

        if self.threads:
            torch.set_num_threads(int(self.threads))
        return super().machine(job)

    def outcomes(
        self, job: Job, cells: list[tuple[int, Cell]], begin: Callable[[int], None], tell: Callable[[str], None]
    ) -> Iterator[Outcome]:
        waiting, deaths, unborn = deque(cells), Counter[int](), 0
        try:
            while open_ := len(waiting) + sum(w.at is not None for w in self._workers.values()):
                while len(self._workers) < min(self.count, open_):
                    self._start(job)
                self._assign(waiting, begin)
                for connection in wait(list(self._workers)):
                    assert isinstance(connection, Connection)
                    worker = self._workers[connection]
                    try:
                        said = connection.recv()
                    except (EOFError, OSError):  # whatever it said before was read
                        how = self._end(connection)
                        unborn += not worker.ready
                        if unborn >= TRIES:
                            raise InputError(f"the processes that were to measure ended ({how}); take fewer of them") from None
                        if worker.at:
                            deaths[worker.at[0]] += 1
                            if deaths[worker.at[0]] == TRIES:
                                error = f"the process that measured it was {how}, {TRIES} times; it may need more memory"
                                yield Outcome(worker.at[0], error=error)
                            else:
                                waiting.appendleft(worker.at)
                                tell(f"a process was {how} while it measured; its cell is measured again")
                        continue
                    if isinstance(said, str):
                        raise InputError(f"a process that was to measure {said}")
                    worker.ready, worker.at = True, None
                    self._assign(waiting, begin)
                    if said is not None:
                        yield said
        finally:
            self.stop()
            for connection in list(self._workers):
                self._end(connection)

    def stop(self) -> None:
        for worker in list(self._workers.values()):
            worker.process.kill()

    def _assign(self, waiting: "deque[tuple[int, Cell]]", begin: Callable[[int], None]) -> None:
        """Give what waits to processes that wait."""
        for connection, worker in self._workers.items():
            if waiting and worker.ready and not worker.at:
                worker.at = waiting.popleft()
                begin(worker.at[0])
                with suppress(OSError):  # it is dead, which will be seen
                    connection.send(worker.at)

    def _end(self, connection: Connection) -> str:
        """Forget a process that ends; how it ended, in words."""
        code = self._workers.pop(connection).process.wait()
        connection.close()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def _start(self, job: Job) -> None:
        here, there = Pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)}
        if self.threads:
            environment["OMP_NUM_THREADS"] = self.threads
        # of its own group: Ctrl-C is for this process, which ends the others
        command = [sys.executable, "-P", "-m", "recurrent_lm.studies.executors.worker", str(there.fileno()), self.threads]
        process = subprocess.Popen(
            command, pass_fds=[there.fileno()], env=environment, stdin=subprocess.DEVNULL, process_group=0
        )
        self._workers[here] = _Worker(process)
        there.close()
        with suppress(OSError):
            here.send_bytes(pickle.dumps(job))


class _Worker:
    """A process, whether it said that it is ready, and the cell that it is ``at``."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process, self.ready = process, False
        self.at: tuple[int, Cell] | None = None
