"""Files that are written as a whole or not at all, seals that find damage, and one process at a time in a folder.

A seal is the SHA-256 of a JSON object, with its keys sorted, and of whatever bytes belong to it. It is kept in the object.
"""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from recurrent_lm.lm.base.errors import InputError

SEAL = "sha256"
SEALS = (SEAL, "digest")  # the second one is in tables of older versions
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # from a file system that has no locks


# -- writing --------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path, option: str = "", lasting: bool = False) -> Iterator[Path]:
    """A temporary file beside ``path``, for the caller to write; it takes the place of ``path`` if nothing went wrong.

    Args:
        option: the one that chose ``path``, for the sentence of an ``InputError``; its folders are then made.
        lasting: have it on the disk before the caller goes on, also for a power failure. This takes milliseconds.

    Raises:
        OSError: when it cannot be written, without an ``option``. What was there is unchanged.
    """
    temporary = path.with_name(f".{os.getpid()}.tmp")
    with _refusal(path, option):
        if option:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if lasting:
                sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        if lasting:
            sync(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file at once: readers see the old content or the new, also after a power failure."""
    with replacing(path, lasting=True) as temporary, naming(temporary):
        temporary.write_bytes(data)


def write_synced(path: Path, data: bytes) -> None:
    """A new file, on the disk when this returns."""
    with naming(path):
        path.write_bytes(data)
    sync(path)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: Path, option: str) -> None:
    """Refuse a place that cannot be written, before work is spent on what should go there."""
    with _refusal(path, option):
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        folder = next(p for p in path.absolute().parents if p.exists())
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system names the file, as one in opening it does: a full disk is found in writing."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def _refusal(path: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not option:
            raise
        raise InputError(f"{path} cannot be written: {error.strerror or error}; choose another {option}") from None


# -- damage ---------------------------------------------------------------------------------------------------------


def digest(*parts: bytes | memoryview) -> str:
    """SHA-256 of the parts, one after the other, in hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def sealed(content: dict[str, Any], *data: bytes) -> dict[str, Any]:
    """The object with the seal of itself and of the ``data`` that belong to it."""
    return content | {SEAL: _seal(content, data)}


def intact(content: dict[str, Any], *data: bytes) -> bool:
    """Whether an object and its data are what was sealed; one without a seal, as older versions wrote it, is believed."""
    given = [content[name] for name in SEALS if name in content]
    return not given or given[0] == _seal(content, data)


def unseal(raw: bytes) -> dict[str, Any]:
    """The object of a sealed JSON file.

    Raises:
        ValueError: for what is no JSON object, and for one whose content is not what was sealed.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    if not isinstance(content, dict):
        raise ValueError("is no JSON object")
    if not intact(content):
        raise ValueError("is not what was written")
    return {name: value for name, value in content.items() if name != SEAL}


def _seal(content: dict[str, Any], data: tuple[bytes, ...]) -> str:
    own = json.loads(json.dumps({name: value for name, value in content.items() if name not in SEALS}))
    return digest(json.dumps(own, sort_keys=True).encode(), *data)


# -- one at a time --------------------------------------------------------------------------------------------------


def lock(folder: Path) -> BaseFileLock:
    """Keep other processes out of a folder until ``release``, or the end of this process however it ends.

    The file ``.lock`` stays; only the system's lock on it says that somebody is at work. What a process that was killed
    left half written in the folder goes away.

    Raises:
        InputError: when another process is at work in the folder.
    """
    # Not at the first refusal: ``in_use`` holds the lock for an instant.
    held = FileLock(folder / ".lock", timeout=0.2, poll_interval=0.02, thread_local=False, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout:
        raise InputError(f"{folder} is in use by another process; wait for its end, or stop it first") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return held
    for left in folder.rglob(".*.tmp"):
        with suppress(OSError):
            left.unlink()
    return held


def in_use(folder: Path) -> bool:
    """Whether a process is at work in a folder, as far as its file system can tell; nothing is changed."""
    if not (folder / ".lock").exists():
        return False
    held = FileLock(folder / ".lock", blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout:
        return True
    except OSError:  # no locks there, or no permission to write
        return False
    held.release()
    return False
