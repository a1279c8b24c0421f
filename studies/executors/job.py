"""A study as work for any process: the identity of its measurements, and the measuring of a cell.

Cells may be combined in one table if sources, machine, parameters and inputs are equal: the identity. A process that measures
for another one compares its own identity first.
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import resource_tracker
from typing import Any

import pandas as pd

from recurrent_lm import lm
from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.memory import allocation_failures
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.executors.sources import sources

# Fields that identify a machine; command and dirty are excluded.
MACHINE = ("python", "torch", "platform", "cpu", "cores", "gpu", "threads", "versions", "driver", "cuda", "cudnn")
PROGRAM = ("python", "torch", "versions")  # those of them that a cluster's workers must share with this process
WORTH = 3  # differences in a sentence at most
TRIES = 3  # attempts at a cell whose process dies


@dataclass(frozen=True)
class Outcome:
    """The result of a cell: its ``table``, or the ``error`` with its ``trace``, and whether the error was bad input."""

    index: int
    table: "pd.DataFrame | None" = None
    error: str = ""
    trace: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Job:
    """A study, its name, and the identity that its cells need. Results cached on the study are not sent to other processes."""

    study: Sweep
    name: str
    identity: dict[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self.study), asdict(self.study), self.name, self.identity)

    def complaint(self) -> str:
        """Why this process must not measure the cells; empty if it may."""
        try:
            self.study.prepare()
            here = identity_of(self.study, self.name, lm.describe_machine())
        except InputError as error:
            return f"says: {error}"
        return difference(here, self.identity)


class Executor:
    """Measures cells in this process, one after the other; base class of the other executors."""

    def machine(self, job: Job) -> dict[str, Any]:
        """Prepare the study, and describe the machine that measures.

        Raises:
            InputError: if the study cannot be measured there.
        """
        job.study.prepare()
        return lm.describe_machine()

    def outcomes(
        self, job: Job, cells: list[tuple[int, Cell]], begin: Callable[[int], None], tell: Callable[[str], None]
    ) -> Iterator[Outcome]:
        """Measure cells.

        Args:
            job: the study and its identity.
            cells: (index, cell) of each.
            begin: called with the index of each cell that begins.
            tell: called with a sentence on other events.

        Yields:
            Each cell's outcome, when it is finished.

        Raises:
            InputError: if no more cells can be measured.
        """
        for index, cell in cells:
            begin(index)
            yield measured(job.study, index, cell)


def measured(study: Sweep, index: int, cell: Cell) -> Outcome:
    """Measure a cell; an error becomes part of the outcome."""

    try:
        with allocation_failures():
            return Outcome(index, pd.DataFrame(study.measure(cell), columns=list(study.COLUMNS)).astype(study.COLUMNS))
    except Exception as error:  # the other cells are still measured
        return failed(index, error)


_job: Job | None = None  # the last job that this process measured for another one, with its study's cached data
_complaint = ""  # why it cannot be measured here


def measured_elsewhere(job: Job, index: int, cell: Cell) -> Outcome:
    """Measure a cell for the process that sent ``job``, if sources, machine and inputs are the same here."""
    global _job, _complaint
    if _job is None or _job.identity != job.identity:
        _job, _complaint = job, job.complaint()
    if _complaint:
        return Outcome(index, error=f"a process that was to measure {_complaint}", refused=True)
    return measured(_job.study, index, cell)


def track_quietly() -> None:
    """Start Python's resource tracker so that it removes the semaphores of a killed run without a warning."""
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    sys.warnoptions.append(quiet)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(quiet)


def failed(index: int, error: Exception) -> Outcome:
    """The outcome of a cell whose error is being handled."""
    refused = isinstance(error, InputError)
    return Outcome(index, None, str(error) if refused else f"{type(error).__name__}: {error}", traceback.format_exc(), refused)


def identity_of(study: Sweep, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """The identity of a study's measurements, as JSON returns it."""
    identity = {
        "study": name,
        "sources": sources(type(study)),
        "machine": {key: about.get(key) for key in MACHINE},
        "parameters": asdict(study),
        "inputs": study.inputs(),
    }
    return json.loads(json.dumps(identity))


def program(identity: dict[str, Any]) -> dict[str, Any]:
    """The part of an identity that does not depend on the machine."""
    return identity | {"machine": {key: identity["machine"][key] for key in PROGRAM}}


def difference(here: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The values in which one description differs from another; empty if they are equal."""
    differences = list(_differences(here, wanted))
    more = f" and {len(differences) - WORTH} more" if len(differences) > WORTH else ""
    return f"has {', '.join(differences[:WORTH])}{more}" if differences else ""


def _differences(here: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for key in wanted | here:
        own, value = here.get(key), wanted.get(key)
        if isinstance(value, dict) and isinstance(own, dict):
            yield from _differences(own, value)
        elif own != value:
            yield f"{key} {_short(own)} instead of {_short(value)}"


def _short(value: Any) -> str:
    return "none" if value in (None, "") else str(value)[:40]


def _again(kind: type[Sweep], parameters: dict[str, Any], name: str, identity: dict[str, Any]) -> Job:
    return Job(kind(**parameters), name, identity)
