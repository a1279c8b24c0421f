"""One training at a time in a run folder."""

import fcntl
import os
from pathlib import Path

from recurrent_lm.lm.base.errors import InputError


class Lock:
    """A claim on a run folder. It ends with ``release``, or with the process, however that ends: the system keeps it.

    The file ``.lock`` stays; only the lock on it says that somebody trains.

    Raises:
        InputError: when another training has claimed the folder. Nothing was changed then.
    """

    def __init__(self, run: Path) -> None:
        self._file = os.open(run / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise InputError(f"{run} is being trained by another process; wait for its end, or stop that one first") from None
        except OSError:
            pass  # a file system without locks cannot be asked

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.release()
