"""A study's parameters: whole numbers with a range, and text."""

import reprlib
from dataclasses import Field, field, fields
from typing import Any

from lm import InputError


def whole(default: int, low: int, high: int) -> Any:
    """A field for a whole number from ``low`` to ``high``."""
    return field(default=default, metadata={"range": (low, high)})


class Parameters:
    """Types and ranges are checked where a value arrives, so that no measurement begins with a wrong one.

    Raises:
        InputError: a sentence that names the parameter and its range.
    """

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]  # each study is a dataclass
            value = getattr(self, f.name)
            low, high = f.metadata.get("range", (None, None))
            if type(value) is not type(f.default) or (low is not None and not low <= value <= high):
                raise InputError(f"{f.name} must be {_expected(f)}, not {reprlib.repr(value)}")


def from_text(kind: type, settings: dict[str, str]) -> Any:
    """A study of this kind with parameters given as text."""
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, text in settings.items():
        if key not in known:
            raise InputError(f"there is no parameter {key!r}; there are {'; '.join(map(describe, known.values()))}")
        try:
            values[key] = int(text) if "range" in known[key].metadata else text
        except ValueError:
            values[key] = text  # the study says what it wants
    return kind(**values)


def describe(f: "Field[Any]") -> str:
    """A parameter with its range."""
    return f"{f.name}, {_expected(f)}"


def _expected(f: "Field[Any]") -> str:
    low, high = f.metadata.get("range", (None, None))
    return "text" if low is None else f"a whole number from {low} to {high}"
