"""Values as text for people."""

import re
from numbers import Integral, Real
from typing import Any

LONG = 200  # characters of a value, of which a list shows no more


def heading(study: str) -> str:
    """A study's name for people: gradient_lag is Gradient lag."""
    return sentence(study.replace("_", " "))


def sentence(text: str) -> str:
    """With a capital first letter; the others stay."""
    return text[:1].upper() + text[1:]


def first(text: str) -> str:
    """The first sentence of a text."""
    return re.split(r"(?<=\.)(?<!\bal\.) (?=[^a-z0-9 ])", text, maxsplit=1)[0]


def cell(value: Any) -> str:
    """A value as a table shows it: four digits that count, nothing for nothing, and of long text the beginning."""
    if value is None:
        return ""
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def facts(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Names and values as text; the names of what is nested are joined by a dot."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= facts(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = joined(value)
    return found


def joined(value: Any) -> str:
    """A value, or several with commas between."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return ", ".join("none" if part in (None, "") else str(part) for part in parts)
