"""Values as text for people."""

import re
from numbers import Integral, Real
from typing import Any

LONG = 200  # characters of a value in a list at most


def heading(study: str) -> str:
    """A study's name for people: gradient_lag is Gradient lag."""
    return sentence(study.replace("_", " "))


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def first(text: str) -> str:
    """The first sentence of a text."""
    return re.split(r"(?<=\.)(?<!\bal\.) (?=[^a-z0-9 ])", text, maxsplit=1)[0]


def cell(value: Any) -> str:
    """A value in a table: four significant digits, empty for none, long text cut."""
    if value is None:
        return ""
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def facts(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Names and values as text; the names of what is nested are joined by a dot."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= facts(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = joined(value)
    return flat


def joined(value: Any) -> str:
    """A value, or several with commas between."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return ", ".join("none" if part in (None, "") else str(part) for part in parts)
