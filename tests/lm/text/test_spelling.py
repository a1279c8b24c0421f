"""What it costs to spell an unknown word."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_lm.lm.text.unknown import END, Speller

A, B = ord("a"), ord("b")
scalars = st.characters(exclude_categories=["Cs"])
some_words = st.lists(st.text("abé", max_size=4), max_size=8)
# histories that the words have and histories that they lack
histories = st.lists(st.sampled_from([A, B, 0, 255, *"é".encode()]), max_size=4).map(tuple)


@settings(deadline=None, max_examples=60)
@given(some_words, histories)
def test_probabilities_sum_to_one(words: list[str], history: tuple[int, ...]) -> None:
    speller = Speller(words)
    chances = [speller.probability(symbol, history) for symbol in range(END + 1)]
    assert math.fsum(chances) == pytest.approx(1, abs=1e-12)
    assert min(chances) > 0


def test_without_words_all_257_symbols_are_alike() -> None:
    assert Speller([]).nats("abc") == pytest.approx(4 * math.log(257))
    assert Speller([]).nats("é") == pytest.approx(3 * math.log(257))


def test_one_word_by_hand() -> None:
    # "aa" is a, a, END: a twice and END once; behind a: a and END once each; behind aa: END once.
    speller = Speller(["aa"])
    uniform = 1 / 257
    first = (2 + 2 * uniform) / (3 + 2)
    second = (1 + 2 * first) / (2 + 2)
    end = (1 + 2 * uniform) / (3 + 2)
    end = (1 + 2 * end) / (2 + 2)
    end = (1 + 1 * end) / (1 + 1)
    assert speller.probability(A, ()) == pytest.approx(first)
    assert speller.probability(A, (A,)) == pytest.approx(second)
    assert speller.probability(END, (A, A)) == pytest.approx(end)
    assert speller.nats("aa") == pytest.approx(-math.log(first * second * end))


def test_the_history_is_the_last_two_bytes() -> None:
    speller = Speller(["abab", "aab", "bb"])
    assert speller.probability(A, (B, B, A, B)) == speller.probability(A, (A, B))
    assert speller.probability(A, (A, B)) != speller.probability(A, (B, B)) != speller.probability(A, (B,))
    assert speller.nats("abab") == pytest.approx(
        -math.log(
            speller.probability(A, ())
            * speller.probability(B, (A,))
            * speller.probability(A, (A, B))
            * speller.probability(B, (B, A))
            * speller.probability(END, (A, B))
        )
    )


def test_an_unseen_history_falls_back_on_a_shorter_one() -> None:
    speller = Speller(["ab"])
    assert speller.probability(B, (B, A)) == speller.probability(B, (A,))
    assert speller.probability(B, (255, 254)) == speller.probability(B, ())


def test_words_that_look_like_the_training_words_are_cheaper() -> None:
    speller = Speller(["nation", "station", "vacation", "relation"])
    assert speller.nats("ration") < speller.nats("xqzwkj") < 7 * math.log(257) + 7
    assert Speller(["a"] * 10).nats("a") < Speller(["a"]).nats("a")


@settings(deadline=None)
@given(some_words, st.text(scalars))
def test_every_word_has_a_finite_positive_cost(words: list[str], word: str) -> None:
    nats = Speller(words).nats(word)
    assert math.isfinite(nats)
    assert nats > 0
