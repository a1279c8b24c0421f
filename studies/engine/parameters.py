"""A study's parameters: numbers with a range, names from a list, several of either, and text."""

import reprlib
from dataclasses import Field, field, fields
from typing import Any

from recurrent_lm.lm import InputError


def whole(default: int, low: int, high: int) -> Any:
    """A field for a whole number from ``low`` to ``high``."""
    return field(default=default, metadata={"range": (low, high)})


def wholes(*defaults: int, low: int, high: int) -> Any:
    """A field for one or more whole numbers from ``low`` to ``high``."""
    return field(default=defaults, metadata={"range": (low, high), "many": True})


def real(default: float, low: float, high: float) -> Any:
    """A field for a number from ``low`` to ``high``; both are given with a decimal point."""
    return field(default=default, metadata={"range": (low, high)})


def reals(*defaults: float, low: float, high: float) -> Any:
    """A field for one or more numbers from ``low`` to ``high``."""
    return field(default=defaults, metadata={"range": (low, high), "many": True})


def choice(default: str, *names: str) -> Any:
    """A field for one of ``names``."""
    return field(default=default, metadata={"names": names})


def choices(*defaults: str, names: tuple[str, ...]) -> Any:
    """A field for one or more of ``names``."""
    return field(default=defaults, metadata={"names": names, "many": True})


class Parameters:
    """Base class that checks types and ranges when a study is created, before anything is measured.

    Raises:
        InputError: in a sentence that names the parameter and its range.
    """

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]  # each study is a dataclass
            value = getattr(self, f.name)
            if f.metadata.get("many") and isinstance(value, list):  # as JSON gives it
                value = tuple(value)
                object.__setattr__(self, f.name, value)
            if not _fits(f, value):
                raise InputError(f"{f.name} must be {_expected(f)}, not {_shown(f, value)}")


def from_text(kind: type, settings: dict[str, str]) -> dict[str, Any]:
    """Convert parameters that were given as text.

    Args:
        kind: the study's dataclass.
        settings: {name: text}.

    Returns:
        {name: value}; a value out of range is refused by the study itself.

    Raises:
        InputError: for an unknown name.
    """
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, text in settings.items():
        if key not in known:
            raise InputError(f"there is no parameter {key!r}; there are {'; '.join(map(describe, known.values()))}")
        reach = known[key].metadata.get("range")
        parts = [_number(part, type(reach[0])) if reach else part.strip() for part in text.split(",")]
        single = _number(text, type(reach[0])) if reach else text
        values[key] = tuple(parts) if known[key].metadata.get("many") else single
    return values


def describe(f: "Field[Any]") -> str:
    """A parameter with its range."""
    return f"{f.name}, {_expected(f)}"


def _number(text: str, kind: type[int] | type[float]) -> int | float | str:
    try:
        return kind(text)
    except ValueError:
        return text  # the study's own check names the range


def _fits(f: "Field[Any]", value: Any) -> bool:
    default: Any = f.default
    if f.metadata.get("many"):
        if type(value) is not tuple or not value:
            return False
        return all(_one_fits(f, item, default[0]) for item in value) and len(set(value)) == len(value)
    return _one_fits(f, value, default)


def _one_fits(f: "Field[Any]", value: Any, default: Any) -> bool:
    if type(value) is not type(default):
        return False
    if "names" in f.metadata:
        return value in f.metadata["names"]
    low, high = f.metadata.get("range", (None, None))
    return low is None or low <= value <= high


def _expected(f: "Field[Any]") -> str:
    many = f.metadata.get("many")
    if "names" in f.metadata:
        return f"{'some' if many else 'one'} of {', '.join(f.metadata['names'])}{', with commas between' if many else ''}"
    if "range" not in f.metadata:
        return "text"
    low, high = f.metadata["range"]
    whole_ = "whole " if type(low) is int else ""
    reach = f"from {low:{'' if whole_ else 'g'}} to {high:{'' if whole_ else 'g'}}"
    return f"different {whole_}numbers {reach} with commas between" if many else f"a {whole_}number {reach}"


def _shown(f: "Field[Any]", value: Any) -> str:
    if f.metadata.get("many") and isinstance(value, tuple):
        return reprlib.repr(",".join(str(v)[:40] for v in value[:20]))
    return reprlib.repr(value)
