"""Words: cutting a text into words and marks, the white space expected between them, and the word tokenizer."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import regex

from recurrent_lm.lm.text.tokenizer import EOS, Decoder, Encoded, Tokenizer
from recurrent_lm.lm.text.unknown import Speller

# Marks, format characters and joiners belong to the character before them (rule WB4 of Unicode's annex 29). Letters, digits and
# white space are Python's own; regex's \w and \s are other sets.
X, WORD, SPACE = r"\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}", r"\p{L}\p{N}_", r"[\s\x1c-\x1f]"
PIECE = regex.compile(
    rf"{SPACE}+|(?:\d[\d{X}]*(?:[.,][{X}]*\d[\d{X}]*)*[{WORD}{X}]*"
    rf"|[{WORD}][{WORD}{X}]*(?:['’][{X}]*[{WORD}][{WORD}{X}]*)*|--+|\.{{2,}}|.)[{X}]*",
    regex.DOTALL,
)
FIRST_PIECE = re.compile(r"\s+|\d+(?:[.,]\d+)*\w*|\w+(?:['’]\w+)*|--+|\.{2,}|.", re.DOTALL)  # of tokenizers of version 1
VERSION = 2
LONGEST_GAP = 16  # characters; a model pays up to 18 bits for each, so a longer rare run of white space is one <unk>
CLOSING = frozenset(".,;:!?%)]}”’…-–—/")  # no space before these
OPENING = frozenset("([{“‘$#-–—/@")  # no space after these
LITERAL = "<unk>"  # as benchmark files write it


def pieces(text: str, version: int = VERSION) -> list[str]:
    """Cut a text into words, numbers, marks and runs of white space; joined they are the text. Version 1 cuts at combining
    marks.
    """
    return PIECE.findall(text) if version > 1 else FIRST_PIECE.findall(text)


def word_counts(texts: Iterable[str], split: str = "punctuation", lower: bool = False) -> "Counter[str]":
    """Count the words of texts, cut as word tokens are; a word holds a letter or a digit."""
    cut = str.split if split == "spaces" else pieces
    return Counter(t for text in texts for t in cut(text.lower() if lower else text) if any(map(str.isalnum, t)))


class Line:
    """The state of a line that determines the white space expected before the next token."""

    def __init__(self) -> None:
        self._last = ""
        self._quoted = False  # a straight quotation mark is open

    def gap(self, token: str) -> str:
        """The white space expected before ``token``."""
        if not self._last or token in CLOSING or self._last in OPENING:
            return ""
        if '"' in (token, self._last):  # the first of a pair opens, the second closes
            return "" if self._quoted else " "
        return " "

    def add(self, token: str) -> None:
        """Append ``token`` to the line."""
        self._last = token
        self._quoted ^= token == '"'


def spaced(parts: list[str]) -> list[str | None]:
    """Drop the expected white space between tokens; unexpected white space stays, None marks an unexpected lack of it."""
    tokens: list[str | None] = []
    line = Line()
    pending = ""
    for part in parts:
        if part.isspace():
            pending = part
            continue
        if pending != line.gap(part):
            tokens.append(pending or None)
            line = Line() if "\n" in pending else line
        tokens.append(part)
        line.add(part)
        pending = ""
    return tokens + ([pending] if pending else [])


class WordTokenizer(Tokenizer):
    """One token a word, punctuation apart; rare words are <unk>.

    Tokens carry no white space. Between two tokens stands the white space that ``Line.gap`` expects (a space, or nothing before
    a comma); where the text differs, a token says so: <join> for nothing, or the white space itself. A text without unknown
    words is therefore decoded exactly. A run of white space outside the vocabulary is read character by character up to
    ``LONGEST_GAP`` characters, and as one <unk> beyond. With ``split="spaces"`` tokens are separated by white space, and each
    white space is decoded as one space. ``lower`` lower-cases first. ``version`` is kept with a run: version 1 cuts words at
    combining marks and reads every rare run of white space by its characters.

    Ids: <eos>, <unk>, <join>, then the types by falling count.

    Text that is split at spaces may itself contain "<unk>", as benchmark files do. It is then a type like any other; unknown
    words are read as this type, too, and the id <unk> is not used. Bits per byte remain those of the text: after the shared
    type a word still has to be told apart. With ``literal`` occurrences and R rare types in the training text, a "<unk>" of the
    text pays -log P with P = literal / (literal + max(R, 1)) (Witten & Bell 1991), and an unknown word pays -log(1 - P) and its
    spelling. No text is counted twice, and a file without unknown words pays next to nothing beyond its tokens.
    """

    kind = "word"
    UNK, JOIN, _first = 1, 2, 3

    def __init__(
        self, types: list[str], rare: list[str], split: str, lower: bool, literal: int = 0, version: int = VERSION
    ) -> None:
        self._types, self._rare, self._split, self._lower, self._literal = types, rare, split, lower, literal
        self._version, self._longest_gap = version, LONGEST_GAP if version > 1 else math.inf
        self._ids = {t: i for i, t in enumerate(types, start=self._first)}
        self._unknown = self._ids[LITERAL] if literal else self.UNK
        self.unknown_ids = tuple(sorted({self.UNK, self._unknown}))
        self.never = (self.UNK, self.JOIN) if split == "spaces" else (self.UNK,)
        self._speller: Speller | None = None

    @property
    def size(self) -> int:
        return self._first + len(self._types)

    @property
    def known_words(self) -> int:
        return len(self._types)

    def raw(self, text: str) -> str:
        text = text.lower() if self._lower else text
        return " ".join(text.split()) if self._split == "spaces" else text

    @property
    def raw_is(self) -> str:
        spaces = "with single spaces" if self._split == "spaces" else ""
        return f"the {'lower-cased ' * self._lower}text {spaces}".rstrip() if self._lower or spaces else ""

    def tokens(self, text: str) -> list[str | None]:
        """The text as words, marks, unexpected white space, and None for an unexpected lack of it."""
        text = self.raw(text)
        return list(text.split()) if self._split == "spaces" else spaced(pieces(text, self._version))

    def _in_vocabulary(self, text: str) -> list[tuple[int, str]]:
        pairs: list[tuple[int, str]] = []
        for t in self.tokens(text):
            if t is None:
                pairs.append((self.JOIN, ""))
            elif t not in self._ids and t.isspace() and len(t) <= self._longest_gap:
                pairs += [(self._ids.get(c, self._unknown), c) for c in t]
            else:
                pairs.append((self._ids.get(t, self._unknown), t))
        return pairs

    def encode(self, text: str) -> list[int]:
        return [i for i, _ in self._in_vocabulary(text)]

    def read(self, text: str) -> Encoded:
        pairs = self._in_vocabulary(text)
        lacking = sum(i == self._unknown and t not in self._ids for i, t in pairs)
        return Encoded([i for i, _ in pairs], self._spelling(pairs), lacking)

    def decoder(self) -> Decoder:
        return _WordDecoder(self._types, self._split)

    def show(self, token: int) -> str:
        return ("<eos>", "<unk>", "<join>")[token] if token < self._first else self._types[token - self._first]

    def spelling_nats(self, text: str) -> float:
        return self._spelling(self._in_vocabulary(text))

    def _spelling(self, pairs: list[tuple[int, str]]) -> float:
        counts = Counter(t for i, t in pairs if i == self._unknown)
        return math.fsum(count * self._spell(t) for t, count in counts.items())

    def _spell(self, word: str) -> float:
        """Cost of ``word`` in nats after the token of unknown words."""
        if self._speller is None:
            self._speller = Speller(self._rare or self._types)
        unlike = max(len(self._rare), 1) / (self._literal + max(len(self._rare), 1))  # 1 - P; 1 without a literal
        if word in self._ids:
            return -math.log1p(-unlike)
        return self._speller.nats(word) - math.log(unlike)

    def cut(self, text: str) -> list[str]:
        raw, at, parts = self.raw(text), 0, []
        for _, token in self._in_vocabulary(text):
            end = raw.index(token, at) + len(token)
            parts.append(raw[at:end])
            at = end
        return parts

    def unknowns(self, text: str) -> list[str | None]:
        return [t if i == self._unknown else None for i, t in self._in_vocabulary(text)]

    def unknown(self, text: str) -> dict[str, str]:
        return dict.fromkeys(self._lacking(text), LITERAL)

    def unknown_tokens(self, text: str) -> int:
        return len(self._lacking(text))

    def _lacking(self, text: str) -> list[str]:
        return [t for i, t in self._in_vocabulary(text) if i == self._unknown and t not in self._ids]

    def to_json(self) -> dict[str, Any]:
        data = {"kind": self.kind, "types": self._types, "rare": self._rare, "split": self._split, "lower": self._lower}
        return data | {"literal": self._literal, "version": self._version}


class _WordDecoder(Decoder):
    def __init__(self, types: list[str], split: str) -> None:
        self._types, self._spaces = types, split == "spaces"
        self._line = Line()
        self._explicit = True  # the gap before the next token is settled

    def push(self, token: int) -> str:
        if token in (EOS, WordTokenizer.JOIN):
            self._line = Line() if token == EOS else self._line
            self._explicit = True
            return ""
        text = "<unk>" if token == WordTokenizer.UNK else self._types[token - WordTokenizer._first]
        if text.isspace():
            self._explicit = True
            self._line = Line() if "\n" in text else self._line
            return text
        between = "" if self._explicit else " " if self._spaces else self._line.gap(text)
        self._explicit = False
        self._line.add(text)
        return between + text
