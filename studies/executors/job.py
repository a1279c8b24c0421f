"""One study as work for any process: what its cells must be measured with, and the measuring of a cell.

Two cells may stand in one table where sources, machine, parameters and inputs are the same: the identity. A process that
measures for another one compares its own first.
"""

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import resource_tracker
from typing import Any

import pandas as pd

from recurrent_lm.lm import InputError
from recurrent_lm.studies.engine.memory import allocation_failures
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.executors.sources import sources
from recurrent_lm.studies.timing import machine

# What a machine is, of all that is recorded about it: what was typed, or what stood in the working tree, is not it.
MACHINE = ("python", "torch", "platform", "cpu", "cores", "gpu", "threads", "versions", "driver", "cuda", "cudnn")
PROGRAM = ("python", "torch", "versions")  # of these, what a cluster's workers share with who asks them
WORTH = 3  # differences that a sentence spells out
TRIES = 3  # of a cell whose process dies


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: its ``table``, or the ``error``, its ``trace``, and whether it was bad input."""

    index: int
    table: "pd.DataFrame | None" = None
    error: str = ""
    trace: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Job:
    """A study, its name, and the identity that its cells must be measured with. What it has computed stays when it is sent."""

    study: Sweep
    name: str
    identity: dict[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self.study), asdict(self.study), self.name, self.identity)  # type: ignore[call-overload]

    def complaint(self) -> str:
        """Why this process must not measure its cells; nothing if it may."""
        try:
            self.study.prepare()
            here = identity_of(self.study, self.name, describe())
        except InputError as error:
            return f"says: {error}"
        return difference(here, self.identity)


class Executor:
    """Where cells are measured. This one: here, one after the other."""

    def machine(self, job: Job) -> dict[str, Any]:
        """Prepare, and describe the machine that cells will be measured on.

        Raises:
            InputError: when none can be measured there.
        """
        job.study.prepare()
        return describe()

    def outcomes(
        self, job: Job, cells: list[tuple[int, Cell]], begin: Callable[[int], None], tell: Callable[[str], None]
    ) -> Iterator[Outcome]:
        """Each cell's outcome once, as it is there.

        Args:
            begin: is told the index of a cell that is begun.
            tell: is told, in a sentence, what else happened.

        Raises:
            InputError: when no more can be measured.
        """
        for index, cell in cells:
            begin(index)
            yield measured(job.study, index, cell)


def measured(study: Sweep, index: int, cell: Cell) -> Outcome:
    """Measure a cell."""

    try:
        with allocation_failures():
            return Outcome(index, pd.DataFrame(study.measure(cell), columns=list(study.COLUMNS)).astype(study.COLUMNS))
    except Exception as error:  # the other cells are worth having
        return failed(index, error)


_job: Job | None = None  # of a process that measures for another one: the last, with what its study keeps
_complaint = ""  # and why it cannot be measured here


def measured_elsewhere(job: Job, index: int, cell: Cell) -> Outcome:
    """Measure a cell for the process that sent ``job``, if sources, machine and inputs are the same here."""
    global _job, _complaint
    if _job is None or _job.identity != job.identity:
        _job, _complaint = job, job.complaint()
    if _complaint:
        return Outcome(index, error=f"a process that was to measure {_complaint}", refused=True)
    return measured(_job.study, index, cell)


def track_quietly() -> None:
    """Start Python's tracker of semaphores such that it removes those of a run that a signal ended without a warning."""
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    sys.warnoptions.append(quiet)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(quiet)


def failed(index: int, error: Exception) -> Outcome:
    """The outcome of a cell for which ``error`` was raised and is being handled."""
    refused = isinstance(error, InputError)
    return Outcome(index, None, str(error) if refused else f"{type(error).__name__}: {error}", traceback.format_exc(), refused)


def describe() -> dict[str, Any]:
    """``studies.timing.machine.describe``, which needs torch."""

    return machine.describe()


def identity_of(study: Sweep, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for two cells to stand in one table, as JSON gives it back."""
    identity = {
        "study": name,
        "sources": sources(type(study)),
        "machine": {key: about.get(key) for key in MACHINE},
        "parameters": asdict(study),  # type: ignore[call-overload]
        "inputs": study.inputs(),
    }
    return json.loads(json.dumps(identity))


def program(identity: dict[str, Any]) -> dict[str, Any]:
    """Of an identity what does not depend on the machine."""
    return identity | {"machine": {key: identity["machine"][key] for key in PROGRAM}}


def difference(here: dict[str, Any], wanted: dict[str, Any]) -> str:
    """In which values one description differs from another; nothing where it does not."""
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
