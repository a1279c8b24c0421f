"""Modified Kneser-Ney: by hand, against the textbook with dictionaries, and what must hold for every text."""

import math
from collections import Counter, defaultdict
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.scoring.ngram import FALLBACK, NGram, discounts_of
from recurrent_lm.lm.text.data import prepare
from recurrent_lm.lm.text.tokenizer import EOS

A, B, C = 1, 2, 3
VOCABULARY = 5  # the drawn texts use ids 0 to 3, so that 4 is never seen
texts = st.lists(st.integers(0, 3), max_size=60)
histories = st.lists(st.integers(0, 4), max_size=7)
orders = st.integers(1, 6)


class Textbook:
    """The formulas of the module's docstring, word for word, over the n-grams of each document as tuples."""

    def __init__(self, ids: list[int], vocabulary: int, order: int) -> None:
        self.vocabulary, self.order = vocabulary, order
        documents: list[list[int]] = [[EOS]]
        for i in ids:
            documents[-1].append(i)
            if i == EOS:
                documents.append([EOS])
        raw: Counter[tuple[int, ...]] = Counter()
        for document in documents:
            for end in range(2, len(document) + 1):
                for m in range(1, min(order, end) + 1):
                    raw[tuple(document[end - m : end])] += 1
        fronts = Counter(gram[1:] for gram in raw)
        self.counts: dict[tuple[int, ...], int] = {}
        for gram, count in raw.items():
            opens = len(gram) > 1 and gram[0] == EOS
            self.counts[gram] = count if len(gram) == order or opens else fronts[gram]
        self.followers: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for gram in self.counts:
            self.followers[gram[:-1]].add(gram[-1])
        self.discounts = [(0.0, *self._discounts(m)) for m in range(1, order + 1)]

    def _discounts(self, m: int) -> tuple[float, ...]:
        n = Counter(count for gram, count in self.counts.items() if len(gram) == m)
        if not all(n[k] for k in (1, 2, 3, 4)):
            return FALLBACK
        y = Fraction(n[1], n[1] + 2 * n[2])
        exact = [k - (k + 1) * y * Fraction(n[k + 1], n[k]) for k in (1, 2, 3)]
        return tuple(map(float, exact)) if min(exact) > 0 else FALLBACK

    def p(self, token: int, before: list[int]) -> float:
        """P(token | tokens before it in a stream that begins behind an <eos>)."""
        stream = [EOS, *before]
        document = stream[len(stream) - 1 - stream[::-1].index(EOS) :]
        return self._p(token, tuple(document[max(len(document) - self.order + 1, 0) :]) if self.order > 1 else ())

    def _p(self, token: int, history: tuple[int, ...]) -> float:
        lower = self._p(token, history[1:]) if history else 1 / self.vocabulary
        followers = self.followers.get(history)
        if not followers:
            return lower
        discounts = self.discounts[len(history)]
        total = sum(self.counts[(*history, v)] for v in followers)
        gamma = sum(discounts[min(self.counts[(*history, v)], 3)] for v in followers) / total
        count = self.counts.get((*history, token), 0)
        return (count - discounts[min(count, 3)]) / total + gamma * lower


def zipf(length: int, types: int, seed: int) -> NDArray[np.int32]:
    """A text with habits: half of the tokens follow from the two before them."""
    draw = np.random.default_rng(seed)
    ids = np.minimum(draw.zipf(1.3, length), types) - 1
    repeat = np.flatnonzero(draw.random(length) < 0.5)
    for i in repeat[repeat >= 2]:
        ids[i] = (3 * ids[i - 1] + 5 * ids[i - 2] + 1) % types
    return ids.astype(np.int32)


@cache
def large() -> tuple[NGram, Textbook]:
    """One text with enough n-grams for discounts of its own at every order."""
    ids = zipf(6000, 40, seed=1)
    return NGram.fit(ids, 42, 4), Textbook(ids.tolist(), 42, 4)


def test_a_bigram_by_hand() -> None:
    # <eos> a b a c a b <eos>: too few n-grams for discounts, so D = 0.5, 1, 1.5.
    model = NGram.fit([A, B, A, C, A, B, EOS], vocabulary=4, order=2)
    # Different tokens in front: of a 3 (<eos>, b, c), of b 1 (a), of c 1 (a), of <eos> 1 (b): 6 in all.
    # gamma = (1.5 + 3 * 0.5) / 6 = 1/2, and 1/2 of the uniform 1/4 is 1/8.
    a, b, c, eos = (3 - 1.5) / 6 + 1 / 8, 0.5 / 6 + 1 / 8, 0.5 / 6 + 1 / 8, 0.5 / 6 + 1 / 8
    # Behind a: b twice, c once. gamma = (1 + 0.5) / 3 = 1/2.
    behind_a = [eos / 2, a / 2, (2 - 1) / 3 + b / 2, 0.5 / 3 + c / 2]
    np.testing.assert_allclose(behind_a, [0.1041666667, 0.1875, 0.4375, 0.2708333333], atol=1e-10)
    np.testing.assert_allclose(model.distribution([A]), behind_a, rtol=1e-14)
    # Behind b: a once, <eos> once. gamma = (0.5 + 0.5) / 2 = 1/2.
    np.testing.assert_allclose(model.distribution([A, B]), [0.25 + eos / 2, 0.25 + a / 2, b / 2, c / 2], rtol=1e-14)
    # Behind <eos>, where every stream begins: a once. gamma = 0.5.
    opening = [eos / 2, 0.5 + a / 2, b / 2, c / 2]
    np.testing.assert_allclose(model.distribution([]), opening, rtol=1e-14)
    np.testing.assert_allclose(model.log_probs([A, C]), np.log([opening[A], behind_a[C]]), rtol=1e-14)


def test_what_opens_documents_counts_as_often_as_it_occurs() -> None:
    # a b <eos> a b <eos> c b <eos>. In a trigram model, behind <eos> come a twice and c once, not the fronts that they lack.
    model = NGram.fit([A, B, EOS, A, B, EOS, C, B, EOS], vocabulary=4, order=3)
    # Fronts: of a 1, of b 2 (a, c), of c 1, of <eos> 1: 5 in all; gamma = (3 * 0.5 + 1) / 5 = 1/2.
    a, b, c, eos = 0.5 / 5 + 1 / 8, (2 - 1) / 5 + 1 / 8, 0.5 / 5 + 1 / 8, 0.5 / 5 + 1 / 8
    # gamma = (1 + 0.5) / 3 = 1/2
    np.testing.assert_allclose(model.distribution([]), [eos / 2, (2 - 1) / 3 + a / 2, b / 2, 0.5 / 3 + c / 2], rtol=1e-14)


def test_order_1_is_relative_frequencies_less_discounts() -> None:
    model = NGram.fit([A, A, A, A, B, EOS], vocabulary=4, order=1)
    gamma = (1.5 + 0.5 + 0.5) / 6
    truth = [0.5 / 6 + gamma / 4, 2.5 / 6 + gamma / 4, 0.5 / 6 + gamma / 4, gamma / 4]
    for history in ([], [A], [C, C]):
        np.testing.assert_allclose(model.distribution(history), truth, rtol=1e-14)


def test_discounts_by_hand() -> None:
    # n_1 .. n_4 = 8, 4, 2, 1, and more that do not count: Y = 8 / 16.
    counts = np.repeat([0, 1, 2, 3, 4, 5, 90], [7, 8, 4, 2, 1, 6, 9])
    assert discounts_of(counts) == (1 - 2 * 0.5 * 4 / 8, 2 - 3 * 0.5 * 2 / 4, 3 - 4 * 0.5 * 1 / 2) == (0.5, 1.25, 2)


@pytest.mark.parametrize(
    ("n", "why"),
    [
        ((0, 4, 2, 1), "no n-gram occurs once"),
        ((8, 0, 2, 1), "none twice"),
        ((8, 4, 0, 1), "none three times"),
        ((8, 4, 2, 0), "none four times"),
        ((6, 3, 4, 1), "D_2 = 2 - 3 * 6/12 * 4/3 = 0"),
        ((6, 3, 5, 1), "D_2 < 0"),
        ((8, 4, 2, 9), "D_3 < 0"),
        ((0, 0, 0, 0), "nothing at all"),
    ],
)
def test_counts_without_discounts_take_the_fallback(n: tuple[int, ...], why: str) -> None:
    assert discounts_of(np.repeat([1, 2, 3, 4], n)) == FALLBACK, why


@settings(deadline=None, max_examples=150)
@given(texts, histories, orders)
def test_every_history_gives_the_textbook_probabilities_and_they_sum_to_one(ids: list[int], history: list[int], m: int) -> None:
    model, textbook = NGram.fit(ids, VOCABULARY, m), Textbook(ids, VOCABULARY, m)
    for before in (history, ids[: len(history)], [*ids[-2:], *history[:1]]):  # mostly unseen; seen; seen in part
        p = model.distribution(before)
        assert math.fsum(p) == pytest.approx(1, abs=1e-12)
        assert p.min() > 0
        np.testing.assert_allclose(p, [textbook.p(v, before) for v in range(VOCABULARY)], rtol=1e-12)


@settings(deadline=None)
@given(texts, texts, orders)
def test_a_stream_is_scored_token_by_token_from_what_stands_before(ids: list[int], held_out: list[int], order: int) -> None:
    model = NGram.fit(ids, VOCABULARY, order)
    scores = model.log_probs(held_out)
    assert scores.dtype == np.float64
    truth = [math.log(model.distribution(held_out[:i])[token]) for i, token in enumerate(held_out)]
    np.testing.assert_allclose(scores, truth, rtol=1e-12, atol=1e-15)


def test_a_larger_text_has_discounts_of_its_own_and_follows_the_textbook() -> None:
    model, textbook = large()
    np.testing.assert_allclose([(0, *t.discounts) for t in model.tables], textbook.discounts, rtol=1e-14)
    assert FALLBACK not in [t.discounts for t in model.tables[1:]]
    held_out = [*zipf(500, 40, seed=2).tolist(), 40, 41, 7, 40, 8, EOS, 41]
    truth = [math.log(textbook.p(token, held_out[:i])) for i, token in enumerate(held_out)]
    np.testing.assert_allclose(model.log_probs(held_out), truth, rtol=1e-12)


def test_a_history_ends_at_the_end_of_a_document() -> None:
    model, _ = large()
    for before in ([], [3, 1], [EOS], [9, 8, 7, 6, 5]):
        np.testing.assert_array_equal(model.distribution([*before, EOS]), model.distribution([]))
    assert not np.array_equal(model.distribution([3, 1]), model.distribution([])), "that were a model without history"


def test_only_the_last_tokens_count() -> None:
    model, _ = large()
    np.testing.assert_array_equal(model.distribution([7, 7, 7, 1, 2, 3]), model.distribution([5, 1, 2, 3]))
    assert not np.array_equal(model.distribution([4, 1, 2, 3]), model.distribution([4, 9, 2, 3])), "order 4 sees three"


@pytest.mark.parametrize("ids", [[], [A], [EOS], [A] * 50, [EOS] * 50, [A, EOS] * 20])
@pytest.mark.parametrize("order", [1, 2, 5])
def test_texts_of_next_to_nothing_give_a_distribution(ids: list[int], order: int) -> None:
    model = NGram.fit(ids, 4, order)
    for history in ([], [A], [A, A, A, A, A], [C]):
        p = model.distribution(history)
        assert math.fsum(p) == pytest.approx(1, abs=1e-12)
        assert p.min() > 0
    assert np.isfinite(model.log_probs([A, B, EOS, EOS, A, A])).all()
    assert model.log_probs([]).shape == (0,)


def test_no_text_is_uniform_and_one_symbol_is_certain() -> None:
    np.testing.assert_array_equal(NGram.fit([], 8, 3).distribution([A]), np.full(8, 1 / 8))
    np.testing.assert_allclose(NGram.fit([0] * 9, 1, 3).log_probs([0, 0]), 0, atol=1e-15)


def test_the_largest_vocabulary_and_order_do_not_overflow() -> None:
    """The names of ids do not matter: 300 ids spread over 100,000 score like the same ids beside each other."""
    ids, held_out = zipf(200_000, 300, seed=3), zipf(2000, 300, seed=4)
    spread = np.append(0, np.random.default_rng(5).permutation(np.arange(99_700, 100_000)))[:300].astype(np.int32)
    near, far = NGram.fit(ids, 100_000, 6), NGram.fit(spread[ids], 100_000, 6)
    assert len(far.tables) == 6
    np.testing.assert_allclose(far.log_probs(spread[held_out]), near.log_probs(held_out), rtol=1e-12)


def test_longer_histories_predict_a_speech_better() -> None:
    data = prepare(RunConfig().replace(source="obama", kind="word"))
    perplexity = [
        math.exp(-NGram.fit(data.train.ids, data.tokenizer.size, order).log_probs(data.valid.ids).mean()) for order in (1, 2, 3)
    ]
    assert data.tokenizer.size > perplexity[0] > 2 * perplexity[1]
    assert perplexity[1] > perplexity[2] > 10


def test_what_is_no_order_or_no_id_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1, not 0"):
        NGram.fit([A], 4, 0)
    model = NGram.fit([A, B], 4)
    assert model.order == 5
    for wrong in ([4], [-1], [0.5], [[1]]):
        with pytest.raises(ValueError, match="from 0 to 3"):
            NGram.fit(wrong, 4)
        with pytest.raises(ValueError, match="from 0 to 3"):
            model.log_probs(wrong)
        with pytest.raises(ValueError, match="from 0 to 3"):
            model.distribution(wrong)
