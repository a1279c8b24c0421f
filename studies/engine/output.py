"""What leaves a command: files that are written as a whole or not at all, and lines."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from recurrent_lm.lm import InputError, handled


def check_writable(path: Path) -> None:
    """Refuse a place that cannot be written, before work is spent on what should go there."""
    with _refusal(path):
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        folder = next(p for p in path.absolute().parents if p.exists())
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path``, for the caller to write; it takes the place of ``path`` if nothing went wrong."""
    temporary = path.with_name(f".{os.getpid()}.tmp")
    try:
        with _refusal(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def say(text: str) -> None:
    """Print a line at once, so that an output that cannot be written is named here."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise  # whoever read has enough, which is no error
    except OSError as error:
        raise InputError(f"the standard output cannot be written: {error.strerror or error}") from None


@contextmanager
def _refusal(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; choose another --out") from None


@contextmanager
def ending_at_once(sentence: Callable[[], str]) -> Iterator[None]:
    """SIGINT and SIGTERM end the process in that moment, with a sentence and 128 + the signal's number.

    Every finished cell is on disk, so there is nothing to save. An exception could be lost in whatever it interrupts.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # nobody listens
            os.write(2, f"studies: {sentence()}\n".encode())
        os._exit(128 + signum)

    with handled(end):
        yield
