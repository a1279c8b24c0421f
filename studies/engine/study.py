"""The parts that all studies share: parameters and presets, cells, and summaries of their tables."""

import math
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, ClassVar

import pandas as pd

from recurrent_lm.lm import InputError, Settings
from recurrent_lm.studies.engine.catalogue import module_of
from recurrent_lm.studies.engine.parameters import from_text
from recurrent_lm.studies.engine.statistics import compare, unpaired_ratio

LEVELS = {"faster": "higher", "slower": "lower"}  # words for values that are no times
Cell = dict[str, Any]  # names and whole numbers that identify a cell


class Shared(dict[str, Any]):
    """A dictionary in a table's ``attrs`` that is never copied: pandas copies ``attrs`` deeply at each operation."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Shared":
        return self


def label(cell: Any) -> str:
    """A cell's name for people: its values, numbers with the name of their parameter."""
    if not isinstance(cell, dict):
        return str(cell)
    words = {key: f"{key} {value}" if isinstance(value, int) else str(value) for key, value in cell.items()}
    told = [word for key, word in words.items() if cell[key]]  # a size of 0 means that the work has no such size
    return " ".join(told or words.values())


@dataclass(frozen=True)
class Sweep(Settings):
    """Base class of studies: a frozen dataclass of parameters that lists independent cells and measures them."""

    NAME: ClassVar[str]  # by which commands and tables know the study
    COLUMNS: ClassVar[dict[str, type]]  # of the table, with their types
    SIGNED: ClassVar[tuple[str, ...]] = ()  # columns of numbers that may be below 0
    SAMPLES: ClassVar[tuple[tuple[str, ...], str]] = ((), "")  # columns that name a repeated measurement, and its value
    LATER: ClassVar[tuple[str, ...]] = ()  # parameters that older tables lack and that have defaults
    TIMED: ClassVar[bool] = False  # measures times; its cells must run alone on their device

    def prepare(self) -> None:
        """Check, before anything is measured, that this machine can measure it.

        Raises:
            InputError: in a sentence that says what to change.
        """

    def cells(self) -> list[Cell]:
        """The cells, which are measured independently of each other, in order."""
        return [{}]

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """Measure one cell; returns its rows."""
        raise NotImplementedError

    def subject(self) -> str:
        """The subject of the measurement, such as corpus and model, for people."""
        return ""

    def inputs(self) -> str:
        """Digest of inputs that the parameters do not determine, such as the content of a run."""
        return ""

    def table(self, rows: list[dict[str, Any]]) -> "pd.DataFrame":
        """Rows as a tidy table, one row for each measurement."""

        table = pd.DataFrame(rows, columns=list(self.COLUMNS)).astype(self.COLUMNS)
        table.attrs = {"study": self.NAME, "parameters": Shared(asdict(self))}
        if subject := self.subject():
            table.attrs["subject"] = subject
        return table

    def __call__(self) -> "pd.DataFrame":
        """Measure all cells without storing anything."""
        self.prepare()
        return self.table([row for cell in self.cells() for row in self.measure(cell)])


def make(name: str, settings: dict[str, str], preset: str = "cpu") -> Any:
    """Create a study from a preset.

    Args:
        name: a key of ``STUDIES``.
        settings: parameters that replace the preset's, as text.
        preset: smoke, cpu, cpu-long or gpu, where the study has it.

    Returns:
        The study.

    Raises:
        InputError: for an unknown study, preset or parameter, and for a value out of range.
    """
    module = module_of(name)
    if preset not in module.PRESETS:
        raise InputError(f"{name} has no preset {preset!r}; it has {', '.join(module.PRESETS)}")
    return replace(module.PRESETS[preset], **from_text(module.Study, settings))


def usual_preset(name: str) -> str:
    """The preset that is used if none is named: cpu, or the study's first."""
    presets = module_of(name).PRESETS
    return "cpu" if "cpu" in presets else next(iter(presets))


def growth(table: "pd.DataFrame") -> "pd.DataFrame | None":
    """Exponents of how time grows with each size, for studies that measure them.

    Args:
        table: a study's table.

    Returns:
        One row for each variant and size, with an interval; None for other studies.
    """
    module = module_of(table.attrs["study"])
    return module.growth(table) if hasattr(module, "growth") else None


def listing(table: "pd.DataFrame") -> str:
    """Text that a terminal shows before the claims.

    Args:
        table: a study's table.

    Returns:
        The table of medians of a study of times; empty for other studies.
    """
    module = module_of(table.attrs["study"])
    return str(module.listing(table)) if hasattr(module, "listing") else ""


def summary(table: "pd.DataFrame") -> "pd.DataFrame":
    """Sum up a table in fewer rows, such as medians with intervals, rates and comparisons.

    Args:
        table: a study's table.

    Returns:
        The summary; the table itself for studies without one.
    """
    module = module_of(table.attrs["study"])
    return module.summary(table) if hasattr(module, "summary") else table


def changes(table: "pd.DataFrame", older: "pd.DataFrame") -> "pd.DataFrame":
    """Compare two tables of one study by what both measured.

    Args:
        table: the newer table.
        older: another table of the same study.

    Returns:
        One row for each cell that both hold, in the study's order, with the columns that name it; ``then`` and ``now``, the
        medians; ``ratio`` with its 95% interval ``low``, ``high``; and ``change``: faster, slower, higher, lower, same,
        ambiguous or not measured. The ratio of times is then / now, so that above 1 is faster; other ratios are now / then. Of
        forty cells without any change about two will seem to have changed. ``attrs["of"]`` names the column that was compared.
    """

    study = module_of(table.attrs["study"]).Study
    keys, value = study.SAMPLES
    samples = _samples(table, keys, value) if keys else {}
    before = _samples(older, keys, value) if keys else {}
    rows = []
    for key in (key for key in samples if key in before):
        pair = (before[key], samples[key]) if study.TIMED else (samples[key], before[key])
        ratio = unpaired_ratio(*pair)
        word = compare(ratio)
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"then": median(before[key]), "now": median(samples[key])}
            | {"ratio": ratio.value, "low": ratio.low, "high": ratio.high}
            | {"change": word if study.TIMED else LEVELS.get(word, word)}
        )
    compared = pd.DataFrame(rows, columns=[*keys, "then", "now", "ratio", "low", "high", "change"])
    compared.attrs = {"study": table.attrs["study"], "of": value}
    return compared


def _samples(table: "pd.DataFrame", keys: tuple[str, ...], value: str) -> dict[Any, list[float]]:
    seen = table[(table[value] > 0) & (table[value] < math.inf)]
    seen.attrs = {}  # each group would get a copy
    return {key: group[value].tolist() for key, group in seen.groupby(list(keys), sort=False)}
