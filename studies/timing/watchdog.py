"""An end to what would never end: a kernel that waits for ever cannot be interrupted, only left behind with its process."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CODE = 3  # of a process that was ended so


@contextmanager
def watchdog(seconds: float, sentence: str) -> Iterator[None]:
    """End the process with a sentence if the block has not ended after so many seconds. What is on disk stays."""

    def bite() -> None:
        with suppress(OSError):  # nobody listens
            os.write(2, f"studies: {sentence}; what was measured before is kept, and the same command goes on\n".encode())
        os._exit(CODE)

    timer = threading.Timer(seconds, bite)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
