"""A disk on which the n-th change goes wrong, for every n, and runs to compare after that."""

import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync")
TIMINGS = ("seconds", "tokens_per_second")


@contextmanager
def failing(
    at: int, fault: Callable[[str, str | None], Any], lasting: bool = False, only: tuple[str, ...] = ()
) -> Iterator[list[str]]:
    """Call ``fault(what, path)`` instead of the ``at``-th change of the disk (0: never); if ``lasting``, of all later ones too.

    A write has left half of its bytes in the file by then. ``only`` names the kinds of changes that count, otherwise all do.
    Yields the changes as they are made.
    """
    calls: list[str] = []
    real_open, real = pathlib.Path.open, {name: getattr(os, name) for name in CALLS}

    def due(change: str) -> bool:
        if only and change.split()[0] not in only:
            return False
        calls.append(change)
        return len(calls) == at or (lasting and 0 < at < len(calls))

    def guarded(name: str) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            description = f"{name} {Path(str(args[0] if name in ('rename', 'replace') else path)).name}"
            file = None if isinstance(path, int) else str(path)  # an error tells no name where only a descriptor is known
            return fault(description, file) if due(description) else real[name](path, *args, **kwargs)

        return call

    class Guarded:
        def __init__(self, file: Any, path: Path) -> None:
            self._file, self._path = file, path

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> "Guarded":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, data: Any) -> Any:
            if not due(f"write {self._path.name}"):
                return self._file.write(data)
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            return fault(f"write {self._path.name}", None)

        def truncate(self, size: int) -> Any:
            description = f"truncate {self._path.name}"
            return fault(description, None) if due(description) else self._file.truncate(size)

    def open_file(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "r" in mode:
            return real_open(path, mode, *args, **kwargs)
        description = f"open {path.name}"
        return fault(description, str(path)) if due(description) else Guarded(real_open(path, mode, *args, **kwargs), path)

    try:
        for name in CALLS:
            setattr(os, name, guarded(name))
        pathlib.Path.open = open_file  # type: ignore[method-assign,assignment]
        yield calls
    finally:
        for name in CALLS:
            setattr(os, name, real[name])
        pathlib.Path.open = real_open  # type: ignore[method-assign]


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    """A disk of ``size`` bytes of its own at ``folder``; the test is skipped where this may not be mounted."""
    folder.mkdir()
    how = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(how, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file in ``folder`` that leaves so many bytes of its disk."""
    file = folder / "filler"
    space = os.statvfs(folder)
    file.write_bytes(b"x" * (space.f_bavail * space.f_frsize - leave))
    return file


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody, root included, may change what is on the disk that is mounted at ``folder``."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


def die(what: str, path: str | None) -> None:
    """What a power failure or the system's memory killer does: no handler, no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class Now(BaseException):
    """Ends a training where it stands, as no error does."""


def cut_off(training: Any, when: Callable[[], bool], save: bool = False) -> None:
    """Train until ``when`` holds before an update, and leave it there; with ``save`` after a checkpoint."""
    real = training.update

    def update(batch: Any) -> Any:
        if not when():
            return real(batch)
        if save:
            training.save()
        raise Now

    training.update = update
    with pytest.raises(Now):
        training.run(quiet=True)


def losses(run: Path) -> dict[str, Any]:
    """All that two equal runs have in common: the logs but for their timings, byte for byte, and the result."""
    epochs = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    rollbacks = run / "rollbacks.jsonl"
    return {
        "steps": (run / "steps.jsonl").read_bytes(),
        "epochs": [{k: v for k, v in record.items() if k not in TIMINGS} for record in epochs],
        "result": json.loads((run / "result.json").read_text()),
        "rollbacks": rollbacks.read_bytes() if rollbacks.exists() else b"",
    }
