"""The folder of one run of a study: ``study.json`` says what made it, ``cells/`` holds what was measured so far.

A cell is a Parquet file that is there as a whole or not at all, so a run may be stopped at any moment. A run goes on only
in a folder that was made by the same sources on the same machine with the same parameters and inputs, whatever was committed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import BaseFileLock

from recurrent_lm.lm import lock, replacing
from recurrent_lm.studies.engine.study import Cell
from recurrent_lm.studies.engine.tables import damaged, sealed

WORDS = {
    "study": "another study",
    "sources": "other sources",
    "machine": "another machine",
    "parameters": "other parameters",
    "inputs": "another content of what is measured on",
}
SPELT = 5  # files, parameters or parts of a machine that a sentence names


class Store:
    """The cells of one run. ``opened`` and ``begun`` make it."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder, self._made_by = folder, hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.damaged: list[Path] = []
        self._lock: BaseFileLock | None = None

    def claim(self) -> None:
        """Keep other processes out until this one ends.

        Raises:
            InputError: when another process is at work in the folder.
        """
        self._lock = lock(self.folder)

    def release(self) -> None:
        if self._lock:
            self._lock.release()

    def load(self, index: int, cell: Cell) -> "pd.DataFrame | None":
        """The rows of a cell, or None if it was not measured; a file that is damaged or foreign counts as none."""

        path = self._path(index, "parquet")
        if not path.exists():
            return None
        try:
            table = pd.read_parquet(path, engine="pyarrow", page_checksum_verification=True)
        except Exception:  # whatever a damaged file makes a parser say
            self.damaged.append(path)
            return None
        if table.attrs.get("cell") != cell or table.attrs.get("made_by") != self._made_by or damaged(table):
            self.damaged.append(path)
            return None
        return table

    def save(self, index: int, cell: Cell, table: "pd.DataFrame") -> None:
        """Keep the rows of a cell."""
        table.attrs = {"cell": cell, "made_by": self._made_by}
        with replacing(self._path(index, "parquet"), "--out") as temporary:
            sealed(table).to_parquet(temporary, engine="pyarrow", write_page_checksum=True)
        self._path(index, "error.json").unlink(missing_ok=True)

    def fail(self, index: int, cell: Cell, error: str, trace: str) -> None:
        """Keep why a cell could not be measured; it will be tried again."""
        with replacing(self._path(index, "error.json"), "--out") as temporary:
            temporary.write_text(json.dumps({"cell": cell, "error": error, "traceback": trace.splitlines()}, indent=1))

    def remove(self) -> None:
        """Take the folder away again."""
        self.release()
        shutil.rmtree(self.folder)

    @property
    def _cells(self) -> Path:
        return self.folder / "cells"

    def _path(self, index: int, ending: str) -> Path:
        return self._cells / f"{index:04d}.{ending}"


def opened(base: Path, identity: dict[str, Any]) -> tuple[Store | None, list[str]]:
    """The newest folder of that name with the same identity, claimed; and sentences on why the newest is another one."""
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
    """A new folder, claimed; its name ends in a number where others are there already."""
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
    """The identity that a folder tells; None if it does not."""
    try:
        content = json.loads((folder / "study.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content.get("identity") if isinstance(content, dict) else None


def _difference(stored: Any, here: dict[str, Any]) -> str:
    if not isinstance(stored, dict):
        return "something that it does not tell (it is half written, or no folder of a study)"
    if not isinstance(stored.get("sources"), dict):
        return "an older version of this program, which did not record its source files"
    words = [WORDS[key] + _names(stored.get(key), here[key]) for key in here if stored.get(key) != here[key]]
    return ", ".join(words)


def _names(stored: Any, here: Any) -> str:
    """Which files or parameters differ, in brackets."""
    if not isinstance(stored, dict) or not isinstance(here, dict):
        return ""
    changed = [name for name in here | stored if stored.get(name) != here.get(name)]
    more = f" and {len(changed) - SPELT} more" if len(changed) > SPELT else ""
    return f" ({', '.join(changed[:SPELT])}{more})"
