"""An n-gram model to measure the recurrent ones against: interpolated, modified Kneser-Ney smoothing.

S. F. Chen and J. Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", TR-10-98, Harvard, 1998,
section 4.1.6. With h the m - 1 tokens before w, and h' the same without the oldest one,

    P_m(w | h) = (c(h w) - D(c(h w))) / sum_v c(h v)  +  gamma(h) P_{m-1}(w | h'),    P_0(w) = 1 / |V|
    gamma(h)   = sum_{v: c(h v) > 0} D(c(h v)) / sum_v c(h v)

and P_m(w | h) = P_{m-1}(w | h') where nothing followed h. At the highest order c is the number of occurrences, at the
lower ones the number of different tokens seen in front. An n-gram that opens a document has no token in front and keeps
its occurrences, as in K. Heafield et al., "Scalable Modified Kneser-Ney Language Model Estimation", ACL 2013, section 3.2.

Histories end at <eos>, which opens a document as <s> does in the literature: what one speech ended with says
nothing of how the next begins.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.text.tokenizer import EOS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

NONE = -1  # the number of an n-gram that does not occur
FALLBACK = (0.5, 1.0, 1.5)  # discounts if counts determine none; lmplz's --discount_fallback


@dataclass(frozen=True, eq=False)
class Table:
    """The n-grams of one order, sorted by history and then by token, so that those of one history are a slice.

    An n-gram's number is its place here; its history is the number of an n-gram one order lower (0 for order 1). So a
    key, ``history * |V| + token``, stays far below 2^63 at every order.
    """

    keys: "NDArray[np.int64]"  # [n]
    shares: "NDArray[np.float64]"  # [n], (c - D(c)) / sum of c
    gammas: "NDArray[np.float64]"  # [number of histories], the weight of the next lower order
    discounts: tuple[float, float, float]  # for counts of 1, of 2, and of 3 or more

    def find(self, keys: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """The numbers of n-grams, ``NONE`` for those that are not here."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, NONE)


@dataclass(frozen=True, eq=False)
class NGram:
    """P(token | up to ``order`` - 1 tokens before it), positive for every id below ``vocabulary``."""

    vocabulary: int
    order: int
    tables: tuple[Table, ...]  # from order 1 on; shorter than ``order`` where no document is that long

    @classmethod
    def fit(cls, ids: "ArrayLike", vocabulary: int, order: int = 5) -> "NGram":
        """Count a stream of ids [T], each document with <eos> behind it; the first begins behind an <eos>.

        Raises:
            InputError: for an order below 1.
            ValueError: for ids that are no ids of the vocabulary.
        """
        if order < 1:
            raise InputError(f"the order of an n-gram model must be at least 1, not {order}")
        stream = _stream(ids, vocabulary)
        keys, numbers = [np.arange(vocabulary)], [stream]  # per order: of each n-gram; of the one that ends at each token
        suffixes = []  # per order from 2 on: the number of each n-gram without its oldest token
        for m in range(2, order + 1):
            histories = _histories(numbers[-1], stream, m)
            places = np.flatnonzero(histories != NONE)
            if not len(places):
                break
            unique, first, inverse = np.unique(
                histories[places] * vocabulary + stream[places + 1], return_index=True, return_inverse=True
            )
            suffixes.append(numbers[-1][places[first] + 1])
            numbers.append(np.full(len(stream), NONE))
            numbers[-1][places + 1] = inverse
            keys.append(unique)
        tables = []
        for m, own in enumerate(keys, start=1):
            ending, longer = numbers[m - 1][1:], numbers[m][1:] if m < len(keys) else NONE
            counts = np.bincount(ending[(ending != NONE) & (longer == NONE)], minlength=len(own))
            if m < len(keys):
                counts += np.bincount(suffixes[m - 1], minlength=len(own))
            tables.append(_table(own, counts, own // vocabulary, len(keys[m - 2]) if m > 1 else 1))
        return cls(vocabulary, order, tuple(tables))

    def log_probs(self, ids: "ArrayLike") -> "NDArray[np.float64]":
        """log P of each token given those before it in the same stream, [T], in nats; the first from <eos>.

        Raises:
            ValueError: for ids that are no ids of the vocabulary.
        """
        stream = _stream(ids, self.vocabulary)
        p = np.full(len(stream) - 1, 1 / self.vocabulary)
        for table, histories, numbers in self._walk(stream):
            p = np.where(histories == NONE, 1.0, table.gammas[histories]) * p
            p += np.where(numbers == NONE, 0.0, table.shares[numbers])
        return np.log(p)

    def distribution(self, history: "ArrayLike") -> "NDArray[np.float64]":
        """P of every id, [V], behind a stream that begins with an <eos> and goes on with ``history`` [n], n >= 0.

        Raises:
            ValueError: for ids that are no ids of the vocabulary.
        """
        stream = np.append(
            _stream(history, self.vocabulary)[-max(self.order - 1, 1) :], EOS
        )  # the predicted token, which may be any id
        p = np.full(self.vocabulary, 1 / self.vocabulary)
        for table, histories, _ in self._walk(stream):
            h = histories[-1]
            if h == NONE:
                break
            low, high = np.searchsorted(table.keys, [h * self.vocabulary, (h + 1) * self.vocabulary])
            p *= table.gammas[h]
            p[table.keys[low:high] % self.vocabulary] += table.shares[low:high]
        return p

    def _walk(self, stream: "NDArray[np.int64]") -> "Iterator[tuple[Table, NDArray[np.int64], NDArray[np.int64]]]":
        """Each order's table, and for the tokens of a stream from the second on: their history and n-gram in it."""
        numbers = stream
        for m, table in enumerate(self.tables, start=1):
            histories = _histories(numbers, stream, m)
            entries = table.find(np.where(histories == NONE, NONE, histories * self.vocabulary + stream[1:]))
            numbers = np.concatenate([stream[:1] if m == 1 else [NONE], entries])
            yield table, histories, entries


def _stream(ids: "ArrayLike", vocabulary: int) -> "NDArray[np.int64]":
    """[T + 1], the ids behind an <eos>."""
    given = np.asarray(ids)
    if given.size and not (given.ndim == 1 and given.dtype.kind in "iu" and given.min() >= 0 and given.max() < vocabulary):
        raise ValueError(f"ids must be one row of whole numbers from 0 to {vocabulary - 1}")
    return np.concatenate([[EOS], given.astype(np.int64)])


def _histories(numbers: "NDArray[np.int64]", stream: "NDArray[np.int64]", m: int) -> "NDArray[np.int64]":
    """The histories that order m sees at the second token of a stream, the third, ..: [T].

    ``numbers`` [T + 1] are those of the n-grams of order m - 1 that end at each token. Only <eos> alone is a history that
    ends in <eos>.
    """
    if m == 1:
        return np.zeros(len(stream) - 1, dtype=np.int64)
    return np.where((stream[:-1] == EOS) & (m > 2), NONE, numbers[:-1])


def _table(
    keys: "NDArray[np.int64]", counts: "NDArray[np.int64]", histories: "NDArray[np.int64]", number_of_histories: int
) -> Table:
    discounts = discounts_of(counts)
    taken = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    totals = np.bincount(histories, weights=counts, minlength=number_of_histories)
    left = np.bincount(histories, weights=taken, minlength=number_of_histories)
    gammas = np.divide(left, totals, out=np.ones(number_of_histories), where=totals > 0)
    return Table(keys, (counts - taken) / np.maximum(totals, 1)[histories], gammas, discounts)


def discounts_of(counts: "NDArray[np.int64]") -> tuple[float, float, float]:
    """D_1, D_2, D_3+ of one order from n_k, the number of its n-grams with count k (Chen & Goodman, equation 26).

    D_k = k - (k + 1) Y n_{k+1} / n_k with Y = n_1 / (n_1 + 2 n_2). Where one of n_1 .. n_4 is 0 or one D_k is not positive,
    as in small or odd texts, all three are ``FALLBACK``; a discount of 0 would leave unseen tokens without probability.
    """
    n = [int((counts == k).sum()) for k in range(5)]
    if min(n[1:]) == 0:
        return FALLBACK
    y = n[1] + 2 * n[2]
    # D_k n_k y in whole numbers, so that a discount of 0 is exactly 0
    one, two, three = (k * n[k] * y - (k + 1) * n[1] * n[k + 1] for k in (1, 2, 3))
    if min(one, two, three) <= 0:
        return FALLBACK
    return one / (n[1] * y), two / (n[2] * y), three / (n[3] * y)
