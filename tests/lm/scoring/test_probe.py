"""Distributions and surprise against log-softmax by hand."""

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_lm import lm
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import ModelConfig, RunConfig
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.runs.folder import Run
from recurrent_lm.lm.scoring.next_token import next_token, score_text
from recurrent_lm.lm.text.tokens import EOS, CharTokenizer, Tokenizer, WordTokenizer

probe_module: Any = importlib.import_module("recurrent_lm.lm.scoring.next_token")


def make_run(tokenizer: Tokenizer) -> Run:
    torch.manual_seed(5)
    config = ModelConfig(cell="lstm", hidden_size=6, init_width=1.2, layers=2)
    return Run(Path("none"), RunConfig(model=config), tokenizer, LanguageModel(tokenizer.size, config).double().eval(), {})


def words(**how: Any) -> WordTokenizer:
    types = ["the", "people", ",", "want", "jobs", ".", "\n", " "]
    return WordTokenizer(types, ["zoo", "zebra"], **{"split": "punctuation", "lower": False, **how})


@torch.no_grad()
def log_p(run: Run, ids: list[int]) -> list[float]:
    """log P(v | ids), everything read again from h(0) = 0."""
    hidden, _ = run.model(torch.tensor([ids]), run.model.zero_state(1))
    return torch.log_softmax(run.model.logits(hidden[-1, 0]), 0).tolist()


@pytest.mark.parametrize("prompt", ["the people want", None])
@pytest.mark.parametrize("window", [1, 2, 1000])
def test_the_next_token_s_distribution(monkeypatch: pytest.MonkeyPatch, prompt: str | None, window: int) -> None:
    monkeypatch.setattr(probe_module, "WINDOW", window)
    run = make_run(words())
    expected = log_p(run, [EOS] if prompt is None else run.tokenizer.encode(prompt))
    distribution = next_token(run, prompt)
    assert distribution.probabilities == pytest.approx([math.exp(x) for x in expected], rel=1e-12)
    assert distribution.probabilities.sum() == pytest.approx(1, rel=1e-12)
    assert distribution.entropy == pytest.approx(-sum(math.exp(x) * x for x in expected), rel=1e-12)
    ranked = sorted(range(run.tokenizer.size), key=lambda i: -expected[i])
    assert [t.id for t in distribution.top(4, unknown=True)] == ranked[:4]
    assert len(distribution.top(1000, unknown=True)) == run.tokenizer.size
    words_only = [i for i in ranked if i != WordTokenizer.UNK]
    assert [(t.word, t.probability, t.bits) for t in distribution.top(3)] == [
        (run.tokenizer.show(i), pytest.approx(math.exp(expected[i])), pytest.approx(-expected[i] / math.log(2)))
        for i in words_only[:3]
    ]
    assert distribution.unknown == pytest.approx(math.exp(expected[WordTokenizer.UNK]))
    assert distribution.bits == pytest.approx(distribution.entropy / math.log(2))
    assert len(str(distribution).splitlines()) == min(10, run.tokenizer.size - 1)


def test_a_text_s_own_unknown_words_are_unknown_too() -> None:
    """Benchmark files write <unk>, which is then a type of its own."""
    tokenizer = WordTokenizer(["<unk>", "the"], ["zoo"], "spaces", False, literal=3)
    distribution = next_token(make_run(tokenizer), "the")
    assert {t.word for t in distribution.top(10)} == {"<eos>", "<join>", "the"}
    assert distribution.unknown + sum(t.probability for t in distribution.top(10)) == pytest.approx(1)


def test_the_entropy_of_an_even_and_of_a_certain_choice() -> None:
    run = make_run(words())
    for parameter in run.model.parameters():
        torch.nn.init.zeros_(parameter)
    assert next_token(run, "the").entropy == pytest.approx(math.log(run.tokenizer.size), rel=1e-12)
    run.model.decoder.bias.data[4] = 1e5
    assert next_token(run, "the").entropy == 0.0


@pytest.mark.parametrize("window", [2, 3, 1000])
def test_each_token_s_surprise(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(probe_module, "WINDOW", window)
    run = make_run(words())
    text = "the people, want jobs."
    ids = run.tokenizer.encode(text)
    scored = score_text(run, text)
    assert [p.text for p in scored.pieces] == ["the", " people", ",", " want", " jobs", "."]
    for t, piece in enumerate(scored.pieces):
        row = log_p(run, [EOS, *ids[:t]])
        assert piece.nats == pytest.approx(-row[ids[t]], rel=1e-10)
        ranked = sorted(row, reverse=True)
        assert piece.rank == 1 + ranked.index(row[ids[t]])
        assert [p for _, p in piece.expected] == pytest.approx([math.exp(x) for x in ranked[:3]], rel=1e-10)
        assert piece.spelling == 0
    assert scored.nats == pytest.approx(sum(p.nats for p in scored.pieces), rel=1e-12)
    assert scored.perplexity == pytest.approx(math.exp(scored.nats / 6), rel=1e-12)
    assert scored.bits_per_byte == pytest.approx(scored.nats / math.log(2) / len(text), rel=1e-12)


def test_an_unknown_word_is_shown_and_pays_its_spelling() -> None:
    run = make_run(words())
    text = "the zebras want the zoo"
    scored = score_text(run, text)
    assert "".join(p.text for p in scored.pieces) == text
    spelled = {p.text: p.spelling for p in scored.pieces if p.spelling}
    assert spelled == {" zebras": run.tokenizer.spelling_nats("zebras"), " zoo": run.tokenizer.spelling_nats("zoo")}
    assert sum(spelled.values()) == pytest.approx(run.tokenizer.spelling_nats(text), rel=1e-12)
    assert scored.bits_per_byte * math.log(2) * len(text) == pytest.approx(scored.nats, rel=1e-12)
    assert scored.perplexity == pytest.approx(math.exp((scored.nats - sum(spelled.values())) / scored.tokens), rel=1e-12)


@pytest.mark.parametrize("text", ["a€b", "€", "a😀", "bbéé"])
def test_a_character_of_several_tokens_is_one_piece(text: str) -> None:
    run = make_run(CharTokenizer(list("ab")))
    scored = score_text(run, text)
    ids = run.tokenizer.encode(text)
    assert [p.text for p in scored.pieces] == list(text)
    assert scored.tokens == len(ids) > len(text)
    whole = -sum(log_p(run, [EOS, *ids[:t]])[i] for t, i in enumerate(ids))
    assert scored.nats == pytest.approx(whole, rel=1e-10)
    assert scored.bytes == len(text.encode())


def test_the_total_is_the_evaluation_s(trained: Path, trained_words: Path) -> None:
    from recurrent_lm.lm.text.batches import encode
    from recurrent_lm.lm.text.corpora import Piece

    text = "We want jobs. They  keep the country!\nAll of us love zebras."
    for path in (trained, trained_words):
        run = lm.load(path, device="cpu")
        stream = encode([Piece(text, ends=False)], run.tokenizer)
        expected = lm.evaluate(run.model, stream)
        scored = score_text(run, text)
        assert scored.bits_per_byte == pytest.approx(expected.bits_per_byte, rel=1e-5)
        assert scored.perplexity == pytest.approx(expected.perplexity, rel=1e-4)
        assert scored.tokens == expected.tokens


def test_lower_casing_is_counted_and_said() -> None:
    run = make_run(words(lower=True))
    scored = score_text(run, "THE PEOPLE")
    assert [p.text for p in scored.pieces] == ["the", " people"]
    assert scored.raw_is == "the lower-cased text"


@pytest.mark.parametrize("text", ["", " "])
def test_a_text_without_tokens_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no token"):
        score_text(make_run(words(split="spaces")), text)


@given(st.text(st.sampled_from('the people,want.\n \t\r"xé😀-'), max_size=40))
@settings(deadline=None)
def test_the_pieces_join_to_the_text(text: str) -> None:
    """Unknown words and unknown white space included."""
    for tokenizer in (
        words(),
        words(split="spaces"),
        WordTokenizer(["the", "<unk>"], ["zoo"], "spaces", False, literal=3),
        words(lower=True),
        CharTokenizer(list("the pol")),
    ):
        parts = tokenizer.cut(text)
        assert "".join(parts) == tokenizer.raw(text)
        assert len(parts) == len(tokenizer.encode(text)) == len(tokenizer.unknowns(text))
        spelled = sum(tokenizer.spelling_nats(unknown) for unknown in tokenizer.unknowns(text) if unknown is not None)
        assert spelled == pytest.approx(tokenizer.spelling_nats(text), rel=1e-12)
