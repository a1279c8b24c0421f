"""A process that measures cells for another one, which holds the other end of a connection; it ends when that one does."""

import os
import pickle
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

import torch

from recurrent_lm.studies.executors.job import Job, measured


def main(descriptor: int, threads: str) -> None:
    """Say that it is ready (None) or why it cannot measure (text), then measure what comes."""
    connection = Connection(descriptor)
    came: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_receive, args=(connection, came), daemon=True).start()
    try:
        if threads:  # that many, which the environment's number is only the most of
            torch.set_num_threads(int(threads))
        job: Job = pickle.loads(came.get())
        complaint = job.complaint()
    except Exception as error:  # of an import, say
        complaint = f"says {type(error).__name__}: {error}"
    connection.send(complaint or None)
    while not complaint:
        index, cell = pickle.loads(came.get())
        connection.send(measured(job.study, index, cell))
    came.get()  # until the other end closes


def _receive(connection: Connection, came: "SimpleQueue[bytes]") -> None:
    while True:
        try:
            came.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
