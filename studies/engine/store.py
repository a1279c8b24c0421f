"""The folder of one run of a study: ``study.json`` identifies it, ``cells/`` holds the measured cells.

Cells are Parquet files that are written completely or not at all, so a run can be stopped at any moment. A run continues only
in a folder that was made with the same sources, machine, parameters and inputs; commits do not matter.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import BaseFileLock

from recurrent_lm.lm import digest, lock, replacing
from recurrent_lm.studies.engine.study import Cell
from recurrent_lm.studies.engine.tables import damaged, sealed

WORDS = {
    "study": "another study",
    "sources": "other sources",
    "machine": "another machine",
    "parameters": "other parameters",
    "inputs": "other inputs",
}
SPELT = 5  # names in a sentence at most


class Store:
    """The stored cells of one run, made by ``opened`` or ``begun``."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder, self._made_by = folder, digest(json.dumps(identity, sort_keys=True).encode())
        self.damaged: list[Path] = []
        self._lock: BaseFileLock | None = None

    def claim(self) -> None:
        """Lock the folder until this process ends.

        Raises:
            InputError: if another process holds the lock.
        """
        self._lock = lock(self.folder)

    def release(self) -> None:
        if self._lock:
            self._lock.release()

    def load(self, index: int, cell: Cell) -> "pd.DataFrame | None":
        """Read a cell's rows.

        Returns:
            The rows; None if the cell was not measured, or its file is damaged or belongs to another run.
        """

        path = self._path(index, "parquet")
        if not path.exists():
            return None
        try:
            table = pd.read_parquet(path, engine="pyarrow", page_checksum_verification=True)
        except Exception:  # a parser may raise anything on a damaged file
            self.damaged.append(path)
            return None
        if table.attrs.get("cell") != cell or table.attrs.get("made_by") != self._made_by or damaged(table):
            self.damaged.append(path)
            return None
        return table

    def save(self, index: int, cell: Cell, table: "pd.DataFrame") -> None:
        """Store a cell's rows."""
        table.attrs = {"cell": cell, "made_by": self._made_by}
        with replacing(self._path(index, "parquet"), "--out") as temporary:
            sealed(table).to_parquet(temporary, engine="pyarrow", write_page_checksum=True)
        self._path(index, "error.json").unlink(missing_ok=True)

    def fail(self, index: int, cell: Cell, error: str, trace: str) -> None:
        """Store a cell's error; the next run tries the cell again."""
        with replacing(self._path(index, "error.json"), "--out") as temporary:
            temporary.write_text(json.dumps({"cell": cell, "error": error, "traceback": trace.splitlines()}, indent=1))

    def remove(self) -> None:
        """Unlock and delete the folder."""
        self.release()
        shutil.rmtree(self.folder)

    @property
    def _cells(self) -> Path:
        return self.folder / "cells"

    def _path(self, index: int, ending: str) -> Path:
        return self._cells / f"{index:04d}.{ending}"


def opened(base: Path, identity: dict[str, Any]) -> tuple[Store | None, list[str]]:
    """Lock the newest folder with the same identity.

    Args:
        base: the folder of the first run; others are beside it with a number.
        identity: of sources, machine, parameters and inputs.

    Returns:
        The store, or None; then also a sentence on how the newest folder differs.
    """
    notes: list[str] = []
    for folder in reversed(list(_existing(base))):
        stored = _read(folder)
        if stored == identity:
            store = Store(folder, identity)
            store.claim()
            return store, []
        notes.append(f"{folder} was measured with {_difference(stored, identity)}")
    return None, notes[:1]


def begun(base: Path, identity: dict[str, Any], about: dict[str, Any]) -> Store:
    """Create and lock a new folder, with a number at the end of its name if others exist.

    Args:
        base, identity: as in ``opened``.
        about: further entries of ``study.json``.

    Returns:
        The empty store.
    """
    number, folder = 1, base
    while os.path.lexists(folder):
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    (folder / "cells").mkdir(parents=True)
    store = Store(folder, identity)
    store.claim()
    with replacing(folder / "study.json", "--out") as temporary:
        temporary.write_text(json.dumps({"identity": identity} | about, indent=1) + "\n")
    return store


def _existing(base: Path) -> Iterable[Path]:
    if base.is_dir():
        yield base
    number = 2
    while (folder := base.with_name(f"{base.name}-{number}")).is_dir():
        yield folder
        number += 1


def _read(folder: Path) -> Any:
    """The identity in a folder's ``study.json``; None if it cannot be read."""
    try:
        content = json.loads((folder / "study.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content.get("identity") if isinstance(content, dict) else None


def _difference(stored: Any, here: dict[str, Any]) -> str:
    if not isinstance(stored, dict):
        return "settings that cannot be read (study.json is missing, incomplete or foreign)"
    if not isinstance(stored.get("sources"), dict):
        return "an older version of this program, which did not record its source files"
    words = [WORDS[key] + _names(stored.get(key), here[key]) for key in here if stored.get(key) != here[key]]
    return ", ".join(words)


def _names(stored: Any, here: Any) -> str:
    """The differing files or parameters, in brackets."""
    if not isinstance(stored, dict) or not isinstance(here, dict):
        return ""
    changed = [name for name in here | stored if stored.get(name) != here.get(name)]
    more = f" and {len(changed) - SPELT} more" if len(changed) > SPELT else ""
    return f" ({', '.join(changed[:SPELT])}{more})"
