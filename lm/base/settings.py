"""Settings: fields of frozen dataclasses, each with its default, what else it may be, and why. Runs and studies have them."""

import math
import re
import sys
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from recurrent_lm.lm.base.errors import InputError

KINDS = {int: "whole number", float: "number"}


def setting(
    default: Any,
    why: str = "",
    flag: str = "",
    *,
    choices: tuple[str, ...] = (),
    many: bool = False,
    kind: type | None = None,
    **bounds: float,
) -> Any:
    """Define a field of a settings dataclass.

    Args:
        default: also determines the type; with ``many`` a tuple, and the setting is then one or more different values.
        why: its help text.
        flag: the command line's name, if it is another one.
        choices: the texts that are allowed.
        many: whether the setting holds several values.
        kind: the type where the default is None, which is then allowed, too.
        bounds: of a number, two of ``low`` or ``above`` (exclusive) and ``high`` or ``below`` (exclusive).

    Returns:
        The dataclass field.
    """
    return field(default=default, metadata={"why": why, "flag": flag, "choices": choices, "many": many, "kind": kind, **bounds})


@dataclass(frozen=True)
class Settings:
    """Types, choices and bounds are checked where a value arrives, so that no work begins with a wrong one.

    Whole numbers become numbers where these are wanted, and lists, as JSON gives them, tuples. Fields of other types, and
    those that are None by default and stay so, are not looked at.

    Raises:
        InputError: a sentence that names the setting, what it may be, and what it is.
    """

    def __post_init__(self) -> None:
        for f in fields(self):
            value, many, kind = getattr(self, f.name), f.metadata.get("many"), _kind(f)
            if kind not in (int, float, str, bool) or (value is None and f.default is None):
                continue
            values = value if many and isinstance(value, tuple | list) else (value,)
            right = bool(values) and all(_fits(f, item, kind) for item in values) and len(set(values)) == len(values)
            if not right or (many and values is not value):
                raise InputError(f"{self.called(f)} must be {expected(f)}, not {shown(value)}")
            values = tuple(map(kind, values))
            object.__setattr__(self, f.name, values if many else values[0])
        self.check()

    @staticmethod
    def called(f: "Field[Any]") -> str:
        """The name of a field as a user writes it."""
        return f.name

    def check(self) -> None:
        """Refuse settings that exclude each other."""


def flag_of(f: "Field[Any]") -> str:
    """A field's name on the command line."""
    return f.metadata.get("flag") or "--" + f.name.replace("_", "-")


@dataclass(frozen=True)
class Flags(Settings):
    """Settings that a user writes as flags."""

    called = staticmethod(flag_of)


def expected(f: "Field[Any]") -> str:
    """Describe the values that a setting may have.

    Args:
        f: the field.

    Returns:
        Words for a sentence, such as "a whole number from 1 to 100".
    """
    about, many = f.metadata, f.metadata.get("many")
    kind = _kind(f)
    if about.get("choices"):
        return f"{'some' if many else 'one'} of {', '.join(about['choices'])}{', with commas between' * bool(many)}"
    if kind not in KINDS:
        return "true or false" if kind is bool else "text"
    known = [key for key in _WORDS if abs(about.get(key, math.inf)) < math.inf]
    ends = {key: f"{about[key]:,}" if kind is int else f"{about[key]:,.10g}" for key in known}
    reach = " and ".join(f"{_WORDS[key]} {end}" for key, end in ends.items())
    if "low" in ends and "high" in ends:
        reach = f"from {ends['low']} to {ends['high']}"
    return f"different {KINDS[kind]}s {reach} with commas between" if many else f"a {KINDS[kind]} {reach}"


_WORDS = {"low": "of at least", "above": "greater than", "high": "at most", "below": "less than"}


def _kind(f: "Field[Any]") -> type:
    default: Any = f.default
    return f.metadata.get("kind") or type(default[0] if f.metadata.get("many") else default)


def _fits(f: "Field[Any]", value: Any, kind: type) -> bool:
    about, inf = f.metadata, math.inf
    if kind not in KINDS:
        return type(value) is kind and (not about.get("choices") or value in about["choices"])
    if not isinstance(value, Integral if kind is int else Real) or isinstance(value, bool):
        return False
    largest = sys.float_info.max if kind is float else inf  # whole numbers beyond it are no float
    if hasattr(value, "item"):  # a float32 of numpy would make the bounds float32, where they overflow
        value = value.item()
    within = about.get("low", -inf) <= value <= about.get("high", largest)
    return bool(within and about.get("above", -inf) < value < about.get("below", inf))


def shown(value: Any) -> str:
    """A value as errors print it, short enough for a sentence."""
    if isinstance(value, tuple):
        value = ",".join(item if isinstance(item, str) else shown(item) for item in value)
    if type(value) is int and value.bit_length() > 128:
        return "a number of more than 38 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}..."


def check_device(name: str) -> None:
    """Refuse a name that is no device's."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise InputError(f"--device must be auto, cpu, cuda or cuda:N, not {shown(name)}")
