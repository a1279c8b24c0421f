"""Benchmark files say "<unk>" themselves: one type for it and for the words that the vocabulary lacks."""

import json
import math
from typing import Any

import pytest

from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.text.tokens import Tokenizer, WordTokenizer, build, from_json
from recurrent_lm.lm.text.unknown import Speller


def reloaded(tokenizer: Tokenizer) -> Tokenizer:
    return from_json(json.loads(json.dumps(tokenizer.to_json())))


BENCHMARK = "the <unk> of the <unk> said the company of <unk> rare"


def benchmark(**settings: Any) -> WordTokenizer:
    tokenizer = build([BENCHMARK], TokensConfig(split="spaces", **settings))
    assert isinstance(tokenizer, WordTokenizer)
    return tokenizer


def test_unknown_words_are_read_as_the_texts_own_unk() -> None:
    tokenizer = benchmark()
    assert tokenizer.to_json()["types"] == ["<unk>", "the", "of"]
    for again in (tokenizer, reloaded(tokenizer)):
        assert again.encode("the <unk> of jobs <UNK>") == [4, 3, 5, 3, 3]
        assert again.decode(again.encode("the jobs of <unk>")) == "the <unk> of <unk>"
        assert again.unknown("the <unk> of jobs jobs") == {"jobs": "<unk>"}
        assert again.unknown_tokens("the <unk> of jobs jobs") == 2
        assert 3 not in again.never, "the text says it, so a model may"
    assert build(["<UNK> <unk> a a"], TokensConfig(split="spaces", lower=True)).encode("<Unk> b") == [3, 3]


@pytest.mark.parametrize("choice", [{"min_count": 4}, {"vocab_size": 4, "min_count": 4}, {"split": "punctuation"}])
def test_without_that_type_unknown_words_stay_unk(choice: dict[str, Any]) -> None:
    text = BENCHMARK + " a a a a a a"
    tokenizer = build([text], TokensConfig(**{"split": "spaces", **choice}))
    assert tokenizer.encode("jobs") == [WordTokenizer.UNK]
    assert tokenizer.to_json()["literal"] == 0


def test_bits_behind_the_shared_type_say_which_word_it_was() -> None:
    tokenizer = benchmark()  # 3 literals; said, company and rare are the rare types
    literal, word = tokenizer.spelling_nats("the <unk>"), tokenizer.spelling_nats("of jobs")
    speller = Speller(["company", "rare", "said"])
    assert literal == pytest.approx(math.log(2))
    assert word == pytest.approx(math.log(2) + speller.nats("jobs"))
    assert tokenizer.spelling_nats("<unk> of jobs <unk> jobs") == pytest.approx(2 * literal + 2 * word)
    assert reloaded(tokenizer).spelling_nats("<unk> jobs") == pytest.approx(literal + word)
    # the probabilities of the literal and of all words that are spelled sum to one
    assert math.exp(-literal) + math.exp(speller.nats("jobs") - word) == pytest.approx(1)


def test_a_benchmark_file_without_unknown_words_pays_next_to_nothing_beyond_its_tokens() -> None:
    text = "<unk> company said " * 10_000
    tokenizer = build([text], TokensConfig(split="spaces"))
    assert tokenizer.spelling_nats(text) == pytest.approx(10_000 * math.log(10_001 / 10_000))  # a nat for 30,000 words


def test_a_tokenizer_that_was_saved_without_the_count_reads_as_it_did() -> None:
    data = {k: v for k, v in benchmark().to_json().items() if k != "literal"}
    old = from_json(data)
    assert old.encode("<unk> jobs") == [3, WordTokenizer.UNK]
    assert old.spelling_nats("<unk>") == 0
    assert old.spelling_nats("jobs") == pytest.approx(Speller(["company", "rare", "said"]).nats("jobs"))
