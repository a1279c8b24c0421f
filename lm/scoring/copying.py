"""How much of a generated text is copied from the training text: the longest overlap, and the share of new 5-grams.

Both count words and marks as ``lm.text.words`` cuts them, or as spaces do for texts cut at spaces, whatever tokens the model
has, so that models can be compared.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from textwrap import shorten
from typing import Any

import numpy as np

from recurrent_lm.lm.text.words import PIECE

N = 5  # words in a row; common phrases are rarely as long


@dataclass(frozen=True)
class Copying:
    """``longest`` of ``words`` in a row occur in the training text, too (``overlap``); ``novel`` of the ``ngrams`` are new."""

    words: int
    longest: int
    overlap: str
    novel: int
    ngrams: int

    def __str__(self) -> str:
        if not self.words:
            return "there is no word to compare with the training text"
        if not self.longest:
            return "no word of it is in the training text"
        words = "1 word" if self.longest == 1 else f"{self.longest} words"
        longest = f"longest overlap with the training text: {words}, {shorten(self.overlap, 90)!r}"
        if not self.ngrams:
            return f"{longest}; too short for 5-grams"
        return f"{longest}; {self.novel / self.ngrams:.0%} of its {self.ngrams:,} 5-grams are new"


class TrainingText:
    """The words of the training documents with an index of their positions."""

    def __init__(self, documents: Iterable[str], lower: bool = False, split: str = "punctuation") -> None:
        self._lower = lower
        self._piece: Any = re.compile(r"\S+") if split == "spaces" else PIECE
        self._types: dict[str, int] = {}
        ids: list[int] = []
        for text in documents:
            ids += [self._types.setdefault(word, len(self._types)) for word, _ in self._words(text)]
            ids.append(-1)  # so that no overlap spans two documents
        array = np.asarray(ids, dtype=np.int64)
        order = np.argsort(array, kind="stable")
        begins = np.searchsorted(array[order], np.arange(len(self._types) + 1))
        self._places = [order[a:b] for a, b in pairwise(begins)]

    def _words(self, text: str) -> list[tuple[str, tuple[int, int]]]:
        """Words and marks with where they begin and end."""
        matches = self._piece.finditer(text)
        return [(m[0].lower() if self._lower else m[0], m.span()) for m in matches if not m[0].isspace()]

    def compare(self, text: str, prompt: str = "") -> Copying:
        """Compare ``text`` with the training text; whole words of the ``prompt`` before it do not count."""
        words = [(w, span) for w, span in self._words(prompt + text) if span[1] > len(prompt)]
        places, lengths = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        best, end, copied = 0, 0, 0
        for number, (word, _) in enumerate(words):
            here = self._places[self._types[word]] if word in self._types else places[:0]
            # Overlaps that ended one word earlier grow; all others begin.
            at = np.searchsorted(places, here - 1)
            goes_on = (at < len(places)) & (places[np.minimum(at, len(places) - 1)] == here - 1) if len(places) else None
            run = np.ones(len(here), dtype=np.int64)
            if goes_on is not None:
                run[goes_on] += lengths[at[goes_on]]
            longest = int(run.max(initial=0))
            copied += longest >= N
            if longest > best:
                best, end = longest, number
            places, lengths = here, run
        ngrams = max(len(words) - N + 1, 0)
        overlap = (prompt + text)[words[end - best + 1][1][0] : words[end][1][1]] if best else ""
        return Copying(len(words), best, overlap, ngrams - copied, ngrams)
