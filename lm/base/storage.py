"""Files that are written completely or not at all, seals that detect damage, and locks on folders.

A seal is the SHA-256 of a JSON object with sorted keys and of the bytes that belong to it. It is stored in the object.
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
    """Give the caller a temporary file that replaces ``path`` at the end, unless an error occurs.

    Args:
        path: the file to replace; on an error its old content stays.
        option: the option that chose ``path``, for the sentence of an ``InputError``; missing folders are then created.
        lasting: flush file and folder to the disk, so that the content survives a power failure. This takes milliseconds.

    Yields:
        The temporary file's path, beside ``path``.

    Raises:
        InputError: if it cannot be written and ``option`` is given.
        OSError: if it cannot be written and no ``option`` is given.
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
    """Replace a file atomically: readers see the old content or the new one, also after a power failure."""
    with replacing(path, lasting=True) as temporary, naming(temporary):
        temporary.write_bytes(data)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk."""
    with naming(path):
        path.write_bytes(data)
    sync(path)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: Path, option: str) -> None:
    """Refuse a path that cannot be written, before work is spent on its content.

    Args:
        path: the file to be written later.
        option: the option that chose it, for the sentence of the error.

    Raises:
        InputError: for a folder, and where the nearest existing folder takes no file.
    """
    with _refusal(path, option):
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        folder = next(p for p in path.absolute().parents if p.exists())
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to an operating system's error in the block, since a full disk is noticed in writing, not in
    opening.
    """
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
    """SHA-256 of the concatenated parts.

    Args:
        parts: bytes, hashed one after the other.

    Returns:
        The hash in hexadecimal digits.
    """
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def sealed(content: dict[str, Any], *data: bytes) -> dict[str, Any]:
    """Add a seal, the SHA-256 of the object and its data.

    Args:
        content: a JSON object.
        data: bytes that belong to it and are stored elsewhere.

    Returns:
        A copy of ``content`` with the key ``sha256``.
    """
    return content | {SEAL: _seal(content, data)}


def intact(content: dict[str, Any], *data: bytes) -> bool:
    """Check the seal of an object and its data.

    Args:
        content: an object from ``sealed``.
        data: the bytes it was sealed with.

    Returns:
        False if anything differs from what was sealed; True for an object without a seal, as older versions wrote it.
    """
    given = [content[name] for name in SEALS if name in content]
    return not given or given[0] == _seal(content, data)


def unseal(raw: bytes) -> dict[str, Any]:
    """Read a sealed JSON object.

    Raises:
        ValueError: for anything that is no JSON object, and for a wrong seal.
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
    """Lock a folder against other processes, until ``release`` or the end of this process.

    The file ``.lock`` stays in the folder; only the operating system's lock on it counts. Temporary files that a killed
    process left behind are removed.

    Args:
        folder: an existing folder.

    Returns:
        The lock, which is held.

    Raises:
        InputError: if another process holds the lock.
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
