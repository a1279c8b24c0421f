"""SIGINT and SIGTERM: end the process at once while there is nothing to save, otherwise take a note."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from recurrent_lm.lm.base import console

T = TypeVar("T")


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Send SIGINT and SIGTERM to a handler while the block runs. Outside of the main thread, which gets signals, nothing
    changes.

    Args:
        handler: called with the signal's number and the current frame.

    Yields:
        Nothing; the former handlers are restored at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, old in before.items():
            signal.signal(s, old)


@contextmanager
def ending_at_once(sentence: Callable[[], str]) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process at once with a sentence and exit code 128 + the signal's number.

    An exception would not do: an import that it interrupts could swallow it or raise another error.

    Args:
        sentence: called for the message.

    Yields:
        Nothing; the former handlers are restored at the end.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # standard error may be closed
            os.write(2, f"{console.program}: {sentence()}\n".encode())
        os._exit(128 + signum)

    with handled(end):
        yield


def in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in another thread and return its result, so that the main thread can handle signals meanwhile.

    ``work`` must release Python's lock. A signal that ends the waiting leaves the thread behind until the process ends.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
