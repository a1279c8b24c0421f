"""Runs a study cell by cell: each is stored as it finishes, what was stored is not measured again, what fails is noted."""

import json
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lm import InputError, handled
from studies import store
from studies.memory import allocation_failures
from studies.progress import Display
from studies.study import Cell, Sweep, label

if TYPE_CHECKING:
    import pandas as pd

# What a machine is, of all that is recorded about it: what was typed, or what stood in the working tree, is not it.
MACHINE = ("python", "torch", "platform", "cpu", "cores", "gpu", "threads", "versions", "driver", "cuda", "cudnn")


class Run:
    """One study, its folder, and how far it is.

    Args:
        base: the run's folder; others stand beside it, with a number, where something else is there already.
        fresh: measure everything anew, in a folder of its own.
    """

    def __init__(self, study: Sweep, name: str, preset: str, base: Path, fresh: bool = False) -> None:
        self.study, self.name, self.preset, self.base, self.fresh = study, name, preset, base, fresh
        self.failed: list[dict[str, Any]] = []
        self.machine: dict[str, Any] = {}  # as it was when measuring began: a commit made meanwhile is another program
        self.error: Exception | None = None  # the last
        self.done = self.total = 0
        self.place: store.Store | None = None
        self.display: Display | None = None

    def __call__(self) -> "pd.DataFrame":
        """Measure what is missing; the table of all cells that could be measured. ``failed`` holds the others.

        Raises:
            InputError: when nothing can be measured; a folder that was made for it is gone then.
        """
        self.study.prepare()
        cells = self.study.cells()
        self.machine = describe()
        identity = identity_of(self.study, self.name, self.machine)
        said: list[str] = []
        new = self.fresh
        if not self.fresh:
            self.place, said = store.opened(self.base, identity)
            new = self.place is None
        if self.place is None:
            about = {"preset": self.preset, "cells": cells}
            self.place = store.begun(self.base, identity, about)
        place = self.place
        tables = [place.load(i, cell) for i, cell in enumerate(cells)]
        self.total, self.done = len(cells), sum(t is not None for t in tables)
        self.display = Display(self.total, self.done)
        try:
            for sentence in self._introduction(said, new, place):
                self.display.line(sentence)
            for i, cell in enumerate(cells):
                if tables[i] is None:
                    tables[i] = self._cell(place, i, cell)
            measured = [t for t in tables if t is not None]
            if not measured and isinstance(self.error, InputError):
                if new:
                    place.remove()
                raise self.error
        finally:
            self.display.close()
            place.release()
        if not measured:
            last = self.failed[-1]["error"]
            raise InputError(f"no cell of {self.name} could be measured; the last said: {last} ({place.folder}/cells has more)")
        rows: list[Any] = [row for t in measured for row in t.to_dict("records")]
        return self.study.table(rows)

    def stopped(self) -> str:
        """What to say when the run ends now; leaves the terminal as it was."""
        if self.display:
            self.display.close()
        if self.place is None:
            return "stopped before the first cell; nothing was measured"
        return f"stopped with {self.done} of {self.total} cells in {self.place.folder}; the same command goes on from there"

    def _cell(self, place: store.Store, index: int, cell: Cell) -> "pd.DataFrame | None":
        import pandas as pd

        assert self.display
        what = label(cell) or self.name
        self.display.begin(what)
        table = None
        try:
            with allocation_failures():
                table = pd.DataFrame(self.study.measure(cell), columns=list(self.study.COLUMNS)).astype(self.study.COLUMNS)
            place.save(index, cell, table)
            self.done += 1
        except Exception as error:  # the other cells are worth having
            self.error = error
            told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self.failed.append({"cell": cell, "error": " ".join(told.split())[:300]})
            place.fail(index, cell, self.failed[-1]["error"], traceback.format_exc())
            self.display.line(f"{what} failed: {self.failed[-1]['error']}")
        self.display.end(what)
        return table

    def _introduction(self, said: list[str], new: bool, place: store.Store) -> Iterator[str]:
        for sentence in said:
            yield f"{sentence}; this run begins anew in {place.folder}"
        for path in place.damaged:
            yield f"{path} is damaged or from elsewhere, and is measured again"
        if not new and self.done == self.total:
            yield f"all {self.total} cells are in {place.folder} already; --fresh measures them again"
        elif self.done:
            yield f"going on in {place.folder}: {self.done} of {self.total} cells are there"


def describe() -> dict[str, Any]:
    """``studies.machine.describe``, which needs torch."""
    from studies import machine

    return machine.describe()


def identity_of(study: Sweep, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for two cells to stand in one table, as JSON gives it back."""
    identity = {
        "study": name,
        "commit": about.get("commit", ""),
        "sources": about["sources"],
        "machine": {key: about.get(key) for key in MACHINE},
        "parameters": asdict(study),  # type: ignore[call-overload]
        "inputs": study.inputs(),
    }
    return json.loads(json.dumps(identity))


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
