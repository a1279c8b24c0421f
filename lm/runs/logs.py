"""Step and epoch logs: JSON lines that can be cut back to a checkpoint."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.storage import digest, naming


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a log, without an incomplete last line from a crash."""
    for record, _ in _records(path):
        yield record


def _records(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Each complete record and the offset of its end."""
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


Mark = dict[str, Any]  # {"bytes", "sha256"} of a log as a checkpoint counts on it


def check(path: Path, mark: Mark) -> None:
    """Refuse a log whose beginning differs from its state at a checkpoint."""
    with path.open("rb") as file:
        known = file.read(mark["bytes"])
    if len(known) != mark["bytes"] or digest(known) != mark["sha256"]:
        raise InputError(
            f"{path} is damaged: its first {mark['bytes']:,} bytes are not those that were written; "
            "restore it from a copy, or remove it to go on without its record"
        )


class Log:
    """A log open for appending, cut back first to its ``mark``; without one to the records whose ``key`` is at most ``last``.

    Raises:
        InputError: when what the mark stands for is damaged.
    """

    def __init__(self, path: Path, key: str, last: int, mark: Mark | None = None) -> None:
        end = 0
        if mark:
            check(path, mark)
            end = mark["bytes"]
        for record, offset in () if mark else _records(path):
            number = record.get(key)
            if not isinstance(number, int) or number > last:
                break
            end = offset
        self.name, self._path, self._file = path.name, path, path.open("ab")
        try:
            with naming(path):
                self._file.truncate(end)
        except OSError:
            self._file.close()
            raise
        self._size, self._digest = end, hashlib.sha256(path.read_bytes())

    @property
    def mark(self) -> Mark:
        """Length and digest of the log's present content."""
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def write(self, record: dict[str, Any]) -> None:
        line = json.dumps(record).encode() + b"\n"
        with naming(self._path):
            self._file.write(line)
            self._file.flush()
        self._size += len(line)
        self._digest.update(line)

    def sync(self) -> None:
        """Flush the log to the disk before a checkpoint refers to it."""
        with naming(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with naming(self._path):
            self._file.close()
