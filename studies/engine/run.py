"""Runs a study cell by cell: stores each finished cell, skips stored cells, and records failures."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine import store
from recurrent_lm.studies.engine.memory import allocation_failures
from recurrent_lm.studies.engine.progress import Display
from recurrent_lm.studies.engine.study import Cell, Sweep, label, make, usual_preset
from recurrent_lm.studies.engine.tables import check_place, save
from recurrent_lm.studies.executors.choose import executor
from recurrent_lm.studies.executors.job import Executor, Job, Outcome, failed, identity_of
from recurrent_lm.studies.executors.sources import digest_of

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """One run of a study, with its folder and its progress.

    Args:
        study, name, preset: the study's parameters, its key in ``STUDIES``, and the preset they came from.
        base: the run's folder; if it belongs to another run, a folder beside it with a number is used.
        fresh: measure everything again, in a new folder.
        executor: measures the cells, in this process if left out. This process alone stores the results.
    """

    def __init__(
        self, study: Sweep, name: str, preset: str, base: Path, fresh: bool = False, executor: Executor | None = None
    ) -> None:
        self.study, self.name, self.preset, self.base, self.fresh = study, name, preset, base, fresh
        self.executor = executor or Executor()
        self.failed: list[dict[str, Any]] = []
        self.machine: dict[str, Any] = {}  # at the beginning: a commit made meanwhile is another program
        self.refusal = ""  # the last cell's error, if it was bad input
        self.done = self.total = 0
        self.place: store.Store | None = None
        self.display: Display | None = None

    def __call__(self) -> "pd.DataFrame":
        """Measure the missing cells.

        Returns:
            The table of all cells that could be measured; ``failed`` holds the others.

        Raises:
            InputError: if no cell could be measured; a folder that was created for this run is then removed.
        """
        self.machine = self.executor.machine(Job(self.study, self.name, {}))
        cells = self.study.cells()
        identity = identity_of(self.study, self.name, self.machine)
        self.machine |= {"sources": digest_of(identity["sources"])}
        notes: list[str] = []
        new = self.fresh
        if not self.fresh:
            self.place, notes = store.opened(self.base, identity)
            new = self.place is None
        if self.place is None:
            about = {"preset": self.preset, "cells": cells}
            self.place = store.begun(self.base, identity, about)
        place = self.place
        tables = [place.load(i, cell) for i, cell in enumerate(cells)]
        self.total, self.done = len(cells), sum(t is not None for t in tables)
        self.display = Display(self.total, self.done)
        try:
            for sentence in self._introduction(notes, new, place):
                self.display.line(sentence)
            missing = [(i, cell) for i, cell in enumerate(cells) if tables[i] is None]
            for outcome in self._outcomes(Job(self.study, self.name, identity), missing):
                tables[outcome.index] = self._kept(place, outcome, cells[outcome.index])
            measured = [t for t in tables if t is not None]
            if not measured and self.refusal:
                if new:
                    place.remove()
                raise InputError(self.refusal)
        finally:
            self.display.close()
            place.release()
        if not measured:
            last = self.failed[-1]["error"]
            raise InputError(
                f"no cell of {self.name} could be measured; the last error: {last} ({place.folder}/cells has more)"
            )
        rows: list[Any] = [row for t in measured for row in t.to_dict("records")]
        return self.study.table(rows)

    def write(self, path: Path) -> None:
        """Measure what is missing, and store the table.

        Raises:
            InputError: also where memory does not suffice.
        """
        with allocation_failures():
            table = self()
        save(table, path, self.name, self.study, preset=self.preset, failed=self.failed, machine=self.machine)

    def stopped(self) -> str:
        """The message for a run that ends now. Restores the terminal; workers end with this process."""
        if self.display:
            self.display.close()
        if self.place is None:
            return "stopped before the first cell; nothing was measured"
        return f"stopped with {self.done} of {self.total} cells in {self.place.folder}; the same command goes on from there"

    def _outcomes(self, job: Job, missing: list[tuple[int, Cell]]) -> Iterator[Outcome]:
        display, cells = self.display, dict(missing)
        assert display
        yield from self.executor.outcomes(job, missing, lambda i: display.begin(self._name(cells[i])), display.line)

    def _kept(self, place: store.Store, outcome: Outcome, cell: Cell) -> "pd.DataFrame | None":
        """Store an outcome's table and return it, or record the error and return None."""
        assert self.display
        name = self._name(cell)
        if outcome.table is not None:
            try:
                place.save(outcome.index, cell, outcome.table)
                self.done += 1
            except Exception as error:  # such as a full disk; other cells may fit
                outcome = failed(outcome.index, error)
        if outcome.table is None:
            self.refusal = outcome.error if outcome.refused else ""
            self.failed.append({"cell": cell, "error": " ".join(outcome.error.split())[:300]})
            place.fail(outcome.index, cell, self.failed[-1]["error"], outcome.trace)
            self.display.line(f"{name} failed: {self.failed[-1]['error']}")
        self.display.end(name)
        return outcome.table

    def _name(self, cell: Cell) -> str:
        return label(cell) or self.name

    def _introduction(self, notes: list[str], new: bool, place: store.Store) -> Iterator[str]:
        for sentence in notes:
            yield f"{sentence}; this run begins anew in {place.folder} and measures all {self.total} cells"
        for path in place.damaged:
            yield f"{path} is damaged or belongs to another run; its cell is measured again"
        if not new and self.done == self.total:
            yield f"all {self.total} cells are in {place.folder} already; --fresh measures them again"
        elif self.done:
            yield f"going on in {place.folder}: {self.done} of {self.total} cells are there"


def prepared(name: str, settings: dict[str, str], preset: str, path: Path, fresh: bool, where: str) -> Run:
    """The run of a study whose table is to be at ``path``; its folder stands beside it.

    Args:
        settings: parameters as text, in place of the preset's; a ``preset`` of "" is the usual one.
        where: the executor, as ``executors.choose`` reads it.

    Raises:
        InputError: before anything is measured.
    """
    preset = preset or usual_preset(name)
    study = make(name, settings, preset)
    check_place(path, name)
    base = path.with_name(f"{path.stem}-{preset}")
    return Run(study, name, preset, base, fresh, executor(where, name, study.TIMED))
