"""A study's parameters: numbers with a range, names from a list, several of either, and text."""

from dataclasses import fields
from typing import Any

from recurrent_lm.lm import InputError, Settings, expected, setting


def whole(default: int, low: int, high: int) -> Any:
    """A field for a whole number from ``low`` to ``high``."""
    return setting(default, low=low, high=high)


def wholes(*defaults: int, low: int, high: int) -> Any:
    """A field for one or more whole numbers from ``low`` to ``high``."""
    return setting(defaults, low=low, high=high, many=True)


def real(default: float, low: float, high: float) -> Any:
    """A field for a number from ``low`` to ``high``; the default has a decimal point."""
    return setting(default, low=low, high=high)


def reals(*defaults: float, low: float, high: float) -> Any:
    """A field for one or more numbers from ``low`` to ``high``."""
    return setting(defaults, low=low, high=high, many=True)


def choice(default: str, *names: str) -> Any:
    """A field for one of ``names``."""
    return setting(default, choices=names)


def choices(*defaults: str, names: tuple[str, ...]) -> Any:
    """A field for one or more of ``names``."""
    return setting(defaults, choices=names, many=True)


def from_text(kind: type[Settings], settings: dict[str, str]) -> dict[str, Any]:
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
            listed = "; ".join(f"{name}, {expected(f)}" for name, f in known.items())
            raise InputError(f"there is no parameter {key!r}; there are {listed}")
        default: Any = known[key].default
        if known[key].metadata.get("many"):
            values[key] = tuple(_value(part.strip(), default[0]) for part in text.split(","))
        else:
            values[key] = _value(text, default)
    return values


def _value(text: str, default: Any) -> Any:
    """A number where one is wanted and the text is one; of other texts the study says what it wants."""
    try:
        return type(default)(text)
    except ValueError:
        return text
