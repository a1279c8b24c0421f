"""A run of white space that training did not see costs about what saying its length costs."""

import math
from typing import Any

import pytest

from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.text.tokens import WordTokenizer, build
from recurrent_lm.lm.text.unknown import END, Speller
from recurrent_lm.lm.text.words import LONGEST_GAP

SPEECH = "We want jobs.\n\nThey want roads, and we want peace.\n\n" * 30


def speech_tokenizer(**choice: Any) -> WordTokenizer:
    tokenizer = build([SPEECH], TokensConfig(**choice))
    assert isinstance(tokenizer, WordTokenizer)
    return tokenizer


@pytest.mark.parametrize(
    "gap",
    ["\n" * 2000, "\r\n" * 2000, " \n" * 2000, "\t" * 3000, "\u3000" * 500, " " * 17, "\n    \n" * 300],
    ids=lambda gap: ascii(gap[:2]),
)
@pytest.mark.parametrize("known", ["", "\n"])
def test_a_long_gap_is_one_token_and_cheap(gap: str, known: str) -> None:
    tokenizer = build([SPEECH + f"a{known}b" * 3], TokensConfig())
    before, after = tokenizer.read(SPEECH), tokenizer.read(SPEECH[:500] + gap + SPEECH[500:])
    assert after.unknown - before.unknown == 1
    assert len(after.ids) - len(before.ids) <= 3
    assert after.spelling_nats - before.spelling_nats < max(110, 0.4 * len(gap.encode())), "nats"


def test_a_short_gap_is_read_by_its_characters_and_comes_back() -> None:
    tokenizer = build(["a\nb\na\n b\n"], TokensConfig())
    text = "a" + "\n" * LONGEST_GAP + "b"
    assert len(tokenizer.encode(text)) == LONGEST_GAP + 2
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("a" + "\n" * (LONGEST_GAP + 1) + "b") == [4, WordTokenizer.UNK, 5]


def test_a_gap_that_is_common_stays_a_type_of_its_own() -> None:
    gap = "\n" * 40
    tokenizer = build([f"a{gap}b{gap}a{gap}b"], TokensConfig())
    assert tokenizer.unknown(f"b{gap}a") == {}
    assert tokenizer.decode(tokenizer.encode(f"b{gap}a")) == f"b{gap}a"


def test_bits_with_a_gap_in_the_text_stay_below_those_without() -> None:
    tokenizer = speech_tokenizer()
    plain, gapped = tokenizer.read(SPEECH), tokenizer.read(SPEECH[:800] + "\n" * 2000 + SPEECH[800:])

    def bits(nats: float, text: str) -> float:
        return nats / math.log(2) / len(text.encode())

    dear = math.log(tokenizer.size) * 3  # a token that a model hardly expects
    without = bits(plain.spelling_nats + 2 * len(plain.ids), SPEECH)
    with_gap = bits(gapped.spelling_nats + 2 * len(plain.ids) + 3 * dear, SPEECH + "\n" * 2000)
    assert with_gap < without


def test_one_character_of_white_space_costs_what_any_word_of_it_costs() -> None:
    speller = Speller(["ab", "b", "a\n"])
    newline = ord("\n")
    expected = speller.probability(newline, ()) * speller.probability(END, (newline,))
    assert math.exp(-speller.nats("\n")) == pytest.approx(expected)


def test_a_run_learns_by_hand() -> None:
    speller, tab = Speller([]), ord("\t")
    u = 1 / 257  # what a speller that knows nothing gives every symbol
    second = u
    third = (1 + u) / 2  # a tab once behind nothing, once behind a tab
    third = (1 + third) / 2
    end = (0 + u) / 3  # two tabs behind nothing, two behind a tab, one behind two
    end = (0 + end) / 3
    end = (0 + end) / 2
    assert math.exp(-speller.nats("\t\t\t")) == pytest.approx(u * second * third * end)
    assert speller.probability(tab, ()) == u, "the next word begins anew"


@pytest.mark.parametrize("alphabet", ["\n", "\n\t"])
def test_what_runs_take_together_is_no_more_than_their_first_character_has(alphabet: str) -> None:
    speller = Speller(["ab", "b\n"])
    runs, longest = ["\n"], ["\n"]
    for _ in range(6):
        longest = [run + c for run in longest for c in alphabet]
        runs += longest
    assert sum(math.exp(-speller.nats(run)) for run in runs) < speller.probability(ord("\n"), ())


def test_words_cost_what_they_did() -> None:
    speller = Speller(["nation", "station"])
    symbols = [*b"nations", END]
    expected = [speller.probability(s, tuple(symbols[max(0, i - 2) : i])) for i, s in enumerate(symbols)]
    assert speller.nats("nations") == pytest.approx(-sum(map(math.log, expected)))
