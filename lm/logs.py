"""Step and epoch logs: JSON lines that can be cut back to a checkpoint."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log; a torn last line, as a crash leaves it, is passed over."""
    for record, _ in _records(path):
        yield record


def _records(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Each whole record and the offset of its end."""
    at = 0
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        at += len(line)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not line.endswith(b"\n") or not isinstance(record, dict):
            return
        yield record, at


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system names the file, as one in opening it does: a full disk is found in writing."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class Log:
    """A log open for appending, cut back first to the records whose ``key`` is at most ``last``."""

    def __init__(self, path: Path, key: str, last: int) -> None:
        end = 0
        for record, offset in _records(path):
            number = record.get(key)
            if not isinstance(number, int) or number > last:
                break
            end = offset
        self._path, self._file = path, path.open("ab")
        self._file.truncate(end)

    def write(self, record: dict[str, Any]) -> None:
        with naming(self._path):
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()

    def sync(self) -> None:
        """Onto the disk, before a checkpoint that counts on it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with naming(self._path):
            self._file.close()
