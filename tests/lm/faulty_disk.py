"""A disk on which the n-th change goes wrong, for every n, and runs to compare after that."""

import json
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync")
TIMINGS = ("seconds", "tokens_per_second")


@contextmanager
def failing(at: int, fault: Callable[[str], Any], below: Path | None = None) -> Iterator[list[str]]:
    """Call ``fault(what)`` instead of the ``at``-th change of the disk (0: never). Yields the changes, as they are made.

    A write has left half of its bytes in the file by then. With ``below`` only changes in that folder count; what a
    descriptor is of is not known, so fsync always does.
    """
    calls: list[str] = []
    real_open, real = pathlib.Path.open, {name: getattr(os, name) for name in CALLS}

    def due(what: str, path: Any) -> bool:
        if below and isinstance(path, (str, os.PathLike)) and not str(path).startswith((str(below), ".", "step-")):
            return False
        calls.append(what)
        return len(calls) == at

    def guarded(name: str) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            what = f"{name} {Path(str(args[0] if name in ('rename', 'replace') else path)).name}"
            return fault(what) if due(what, path) else real[name](path, *args, **kwargs)

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
            if not due(f"write {self._path.name}", self._path):
                return self._file.write(data)
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            return fault(f"write {self._path.name}")

        def truncate(self, size: int) -> Any:
            what = f"truncate {self._path.name}"
            return fault(what) if due(what, self._path) else self._file.truncate(size)

    def open_file(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "r" in mode:
            return real_open(path, mode, *args, **kwargs)
        what = f"open {path.name}"
        return fault(what) if due(what, path) else Guarded(real_open(path, mode, *args, **kwargs), path)

    try:
        for name in CALLS:
            setattr(os, name, guarded(name))
        pathlib.Path.open = open_file  # type: ignore[method-assign,assignment]
        yield calls
    finally:
        for name in CALLS:
            setattr(os, name, real[name])
        pathlib.Path.open = real_open  # type: ignore[method-assign]


def die(what: str) -> None:
    """What a power failure or the system's memory killer does: no handler, no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


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
