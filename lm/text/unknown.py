"""A small byte model of rare words: the cost of spelling out an <unk>.

A word model that predicts <unk> has not predicted the text. To compare it with models that have, each unknown word also pays
for its spelling under an interpolated byte trigram (Witten & Bell 1991) of the training split's rare words. A run of white
space, such as 2,000 blank lines, repeats itself, so its probabilities learn from the run: after its first character each one is
mixed with a trigram of the run so far.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

END = 256  # the symbol after a word's last byte
ORDER = 3


class Speller:
    """P(word) as a product over its bytes and an end mark; positive for every word, with a sum of 1 over all words."""

    def __init__(self, words: Iterable[str]) -> None:
        self._counts: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(ORDER)]
        for word in words:
            symbols = [*word.encode("utf-8"), END]
            for i, symbol in enumerate(symbols):
                for order in range(ORDER):
                    if order <= i:
                        self._counts[order][tuple(symbols[i - order : i])][symbol] += 1
        self._totals = [{history: sum(c.values()) for history, c in table.items()} for table in self._counts]

    def probability(self, symbol: int, history: tuple[int, ...]) -> float:
        """P(symbol | the last two bytes), mixed with all shorter histories down to uniform over 257 symbols."""
        p = 1 / (END + 1)
        for order in range(min(ORDER - 1, len(history)) + 1):
            context = history[len(history) - order :]
            seen = self._counts[order].get(context)
            if seen:
                total = self._totals[order][context]
                p = (seen[symbol] + len(seen) * p) / (total + len(seen))
        return p

    def nats(self, word: str) -> float:
        """-log P(word) in nats. Only words that begin with white space learn, so that P sums to 1 over all texts."""
        symbols = [*word.encode("utf-8"), END]
        known = len(word[0].encode("utf-8")) if word[:1].isspace() else len(symbols)
        so_far: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        nats = 0.0
        for i, symbol in enumerate(symbols):
            p = self.probability(symbol, tuple(symbols[max(0, i - ORDER + 1) : i]))
            for order in range(min(ORDER, i + 1) if i >= known else 0):
                seen = so_far[tuple(symbols[i - order : i])]
                total = seen.total()
                if total:
                    p = (seen[symbol] + len(seen) * p) / (total + len(seen))
                seen[symbol] += 1
            nats -= math.log(p)
        return nats
