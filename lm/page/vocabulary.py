"""Describes a tokenizer to a page: its types, and the character classes by which it cuts text.

Browsers know another version of Unicode than Python, the ``regex`` package and the ``tokenizers`` library, which differ among
themselves. Each class of characters is therefore taken from the library that cuts with it, and listed.
"""

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any

import regex
from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as Library

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.text.tokenizer import Tokenizer
from recurrent_lm.lm.text.tokens import LONGEST_PIECE, BpeTokenizer, WordTokenizer, build
from recurrent_lm.lm.text.words import CLOSING, FIRST_PIECE, LITERAL, LONGEST_GAP, OPENING, PIECE, SPACE, WORD, X

Ranges = list[tuple[int, int]]  # [first, one past the last] code points
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Every plane that has letters, marks, digits or spaces; the rest of Unicode is private or not assigned.
CODE_POINTS = [*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE1000)]
EVERY = "".join(map(chr, CODE_POINTS))
SIGMA = "Σ"  # the one letter whose lower case depends on its neighbours


def for_page(tokenizer: Tokenizer) -> dict[str, Any]:
    """Everything that a page needs to encode text as ``tokenizer.encode`` does, and to decode ids.

    Raises:
        InputError: for byte pairs that another program made.
    """
    data = tokenizer.to_json()
    told: dict[str, Any] = {"kind": tokenizer.kind, "never": list(tokenizer.never)}
    if isinstance(tokenizer, BpeTokenizer):
        return told | _byte_pairs(data["model"])
    if isinstance(tokenizer, WordTokenizer):
        return told | _words(data)
    return told | {"characters": "".join(data["characters"])}


def _words(data: dict[str, Any]) -> dict[str, Any]:
    unknown = WordTokenizer.UNK
    if data["literal"]:
        unknown = WordTokenizer._first + data["types"].index(LITERAL)
    first = data["version"] == 1
    pattern, classes = _first_pieces() if first else _pieces()
    told = {name: data[name] for name in ("types", "split")}
    told |= {"unknown": unknown, "longestGap": None if first else LONGEST_GAP}
    told |= {"pattern": pattern, "classes": {name: _short(ranges) for name, ranges in classes.items()}}
    told |= {"closing": "".join(sorted(CLOSING)), "opening": "".join(sorted(OPENING))}
    return told | ({"lower": _lower()} if data["lower"] else {})


@lru_cache(1)
def _pieces() -> tuple[str, dict[str, Ranges]]:
    """``words.PIECE`` with names for its classes, and the classes."""
    pattern = PIECE.pattern
    for source, name in ((SPACE, "<S>"), (X, "<X>"), (WORD, "<W>"), (r"\d", "<D>")):
        pattern = pattern.replace(source, name)
    patterns = {"S": SPACE, "X": f"[{X}]", "W": f"[{WORD}]", "D": r"\d"}
    classes = {name: _matches(regex.compile(f"{source}+")) for name, source in patterns.items()}
    return pattern, classes | {"space": _space()}


@lru_cache(1)
def _first_pieces() -> tuple[str, dict[str, Ranges]]:
    """The same for ``words.FIRST_PIECE``, whose classes are Python's own."""
    pattern = FIRST_PIECE.pattern
    classes: dict[str, Ranges] = {"space": _space()}
    for source, name in ((r"\s", "S"), (r"\w", "W"), (r"\d", "D")):
        pattern = pattern.replace(source, f"<{name}>")
        classes[name] = _matches(re.compile(f"{source}+"))
    return pattern, classes


def _space() -> Ranges:
    """The white space of ``str.isspace`` and ``str.split``."""
    return _ranges(c for c in CODE_POINTS if chr(c).isspace())


@lru_cache(1)
def _lower() -> dict[str, Any]:
    """``str.lower``: the changed characters, and the classes that decide on a final sigma (Unicode's rule Final_Sigma)."""
    changes = {c: low for c in CODE_POINTS if (low := chr(c).lower()) != chr(c)}
    # After a cased letter a sigma is final; ignored characters between them do not change that.
    final = "ς"
    cased = {c for c in CODE_POINTS if (chr(c) + SIGMA).lower().endswith(final)}
    ignored = (c for c in CODE_POINTS if c not in cased and ("a" + chr(c) + SIGMA).lower().endswith(final))
    pairs = "".join(chr(c) + low + "\0" for c, low in changes.items())
    return {"pairs": pairs, "cased": _short(_ranges(cased)), "ignored": _short(_ranges(ignored))}


def _byte_pairs(model: dict[str, Any]) -> dict[str, Any]:
    """Tokens in bytes, merges as pairs of ids by rank, and the classes by which byte-level byte pairs cut text."""
    if _settings(model) != _settings(build(["ab"], TokensConfig(kind="bpe")).to_json()["model"]):
        raise InputError("the byte pairs of this run cut text differently from this version; train the run again")
    vocabulary = model["model"]["vocab"]
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["model"]["merges"]]
    told: dict[str, Any] = {"tokens": sorted(vocabulary, key=vocabulary.get), "longest": LONGEST_PIECE}
    told |= {"merges": [[vocabulary[part] for part in pair] for pair in merges]}
    return told | {"classes": {name: _short(ranges) for name, ranges in _byte_level().items()}}


def _settings(model: dict[str, Any]) -> dict[str, Any]:
    """A tokenizers model without its learned parts, as today's version of the library writes it."""
    written: dict[str, Any] = json.loads(Library.from_str(json.dumps(model)).to_str())
    return written | {"model": {k: v for k, v in written["model"].items() if k not in ("vocab", "merges")}}


@lru_cache(1)
def _byte_level() -> dict[str, Ranges]:
    """The classes in the library's own regular expressions."""
    classes = {}
    for name, source in (("L", r"\p{L}"), ("N", r"\p{N}"), ("S", r"\s")):
        split = pre_tokenizers.Split(Regex(f"{source}+"), "removed", invert=True)
        spans = (span for _, span in split.pre_tokenize_str(EVERY))
        classes[name] = _ranges(chain.from_iterable(CODE_POINTS[a:b] for a, b in spans))
    return classes


def _matches(pattern: Any) -> Ranges:
    """The code points that a pattern for a run of characters accepts."""
    spans = (match.span() for match in pattern.finditer(EVERY))
    return _ranges(chain.from_iterable(CODE_POINTS[a:b] for a, b in spans))


def _ranges(code_points: Iterable[int]) -> Ranges:
    ranges: Ranges = []
    for c in sorted(code_points):
        if ranges and ranges[-1][1] == c:
            ranges[-1] = (ranges[-1][0], c + 1)
        else:
            ranges.append((c, c + 1))
    return ranges


def _short(ranges: Ranges) -> str:
    """Differences between successive bounds, in base 36."""
    bounds = [0, *chain.from_iterable(ranges)]
    return " ".join(_base36(b - a) for a, b in pairwise(bounds))


def _base36(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = DIGITS[digit] + digits
    return digits
