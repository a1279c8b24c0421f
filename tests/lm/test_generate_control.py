"""Generation under control: n-grams that may not repeat, texts that stop it, samples side by side."""

import importlib
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_lm import lm
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import CELLS, ModelConfig, RunConfig
from recurrent_lm.lm.generation import Draws, Sample, generate, generate_batch
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.runs.folder import Run
from recurrent_lm.lm.text.tokens import EOS, CharTokenizer

generate_module: Any = importlib.import_module("recurrent_lm.lm.generation")
LETTERS = "abcdefgh "


def make_run(cell: str = "gru", letters: str = LETTERS, init_width: float = 1.5) -> Run:
    tokenizer = CharTokenizer(list(letters))
    torch.manual_seed(3)
    config = ModelConfig(cell=cell, hidden_size=8, init_width=init_width, layers=2)
    run = Run(Path("none"), RunConfig(model=config), tokenizer, LanguageModel(tokenizer.size, config).eval(), {})
    run.model.decoder.bias.data[:17] = -1e9  # letters only
    return run


def ngrams(text: str, n: int) -> list[str]:
    return [text[i : i + n] for i in range(len(text) - n + 1)]


# -- n-grams that may not repeat ------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_no_n_gram_is_said_twice_the_prompt_s_included(n: int, temperature: float) -> None:
    run = make_run()
    text = "ab" + "".join(generate(run, "ab", 60, temperature=temperature, seed=1, no_repeat_ngram=n))
    grams = ngrams(text, n)
    assert len(grams) == len(set(grams))
    free = "ab" + "".join(generate(run, "ab", 60, temperature=0))
    assert len(ngrams(free, n)) > len(set(ngrams(free, n))), "otherwise nothing was asked of it"


def test_it_takes_the_likeliest_that_does_not_repeat() -> None:
    run = make_run()
    ids = run.tokenizer.encode("ab")
    while len(ids) < 30:
        with torch.no_grad():
            hidden, _ = run.model(torch.tensor([ids]), run.model.zero_state(1))
            scores = run.model.logits(hidden[-1, 0]).tolist()
        output = set(itertools.pairwise(ids))
        ids.append(max((i for i in range(17, len(scores)) if (ids[-1], i) not in output), key=lambda i: scores[i]))
    assert "".join(generate(run, "ab", 28, temperature=0, no_repeat_ngram=2)) == run.tokenizer.decode(ids[2:])


def test_a_text_ends_where_everything_would_repeat() -> None:
    run = make_run(letters="abc")
    run.model.decoder.bias.data[:17] = -torch.inf
    (sample,) = generate_batch(run, "a", 1, Draws(50, no_repeat_ngram=1))
    assert sorted(sample.text) == ["b", "c"]
    assert (sample.ended, sample.tokens) == ("repeats", 2)


def test_the_document_may_end_whatever_was_said() -> None:
    run = make_run()
    run.model.decoder.bias.data[EOS] = 1e9
    (sample,) = generate_batch(run, None, 1, Draws(50, no_repeat_ngram=1))
    assert (sample.ended, sample.text) == ("eos", "")


# -- stop texts -----------------------------------------------------------------------------------------------------


def script(monkeypatch: pytest.MonkeyPatch, run: Run, text: str) -> int:
    draws = iter(run.tokenizer.encode(text))
    monkeypatch.setattr(generate_module, "pick", lambda *a: next(draws))
    return len(run.tokenizer.encode(text))


@pytest.mark.parametrize(
    "stop, expected",
    [
        (["de"], "abc"),
        (["zz"], "abcdefdeaabgh"),
        (["aab", "fd"], "abcde"),
        (["a"], ""),
        (["bcx", "cdx", "cdef"], "ab"),
        (["gh"], "abcdefdeaab"),
        (["ghx"], "abcdefdeaabgh"),
        (["ab ", "deab", "eaab"], "abcdefd"),
        (["c", "bcd"], "ab"),
    ],
)
def test_nothing_from_the_first_stop_text_on_is_said(monkeypatch: pytest.MonkeyPatch, stop: list[str], expected: str) -> None:
    run = make_run()
    length = script(monkeypatch, run, "abcdefdeaabgh")
    assert "".join(generate(run, "g", length, stop=stop)) == expected
    script(monkeypatch, run, "abcdefdeaabgh")
    (sample,) = generate_batch(run, "g", 1, Draws(length, stop=stop))
    assert sample.text == expected
    assert sample.ended == ("length" if len(expected) == 13 else "stop")


@settings(max_examples=200, deadline=None)
@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_any_stop_text_cuts_where_it_first_stands(text: str, stop: list[str]) -> None:
    """Of several the one that is complete first; until then nothing of it has been shown."""
    run = make_run()
    sample = Sample(run, run.tokenizer.encode("a"), Draws(100, stop=stop))
    text_so_far = ""
    with pytest.MonkeyPatch.context() as patch:
        script(patch, run, text)
        for _ in text:
            text_so_far += sample.draw(torch.zeros(run.tokenizer.size))
            if sample.ended:
                break
    text_so_far += sample.finish()
    ends = [(min(i + len(s) for i in range(len(text)) if text.startswith(s, i)), s) for s in stop if s in text]
    first = min((e for e, _ in ends), default=None)
    expected = text if first is None else text[: min(first - len(s) for e, s in ends if e == first)]
    assert text_so_far == sample.text == expected


def test_a_stop_text_in_the_prompt_does_not_stop() -> None:
    run = make_run()
    assert len("".join(generate(run, "abc", 20, seed=1, stop=["abc"]))) > 0


def test_text_that_cannot_become_a_stop_text_is_shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    length = script(monkeypatch, run, "abcdcde")
    assert list(generate(run, "g", length, stop=["cde"])) == ["a", "b", "", "", "cd", "", ""]


# -- samples side by side -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_a_batch_says_what_its_samples_would_say_alone(cell: str) -> None:
    run = make_run(cell, init_width=0.5)
    run.model.decoder.bias.data[EOS] = -1.0  # some end early
    batch = generate_batch(run, "ab", 6, Draws(30, temperature=1.0, seed=5))
    alone = ["".join(generate(run, "ab", 30, temperature=1.0, seed=5 + i)) for i in range(6)]
    assert [sample.text for sample in batch] == alone
    assert {sample.ended for sample in batch} == {"eos", "length"}
    assert all(sample.tokens == 30 for sample in batch if sample.ended == "length")
    assert len(set(alone)) > 3


def test_the_prompt_is_read_once_for_all() -> None:
    run = make_run()
    shapes: list[Any] = []
    run.model.register_forward_pre_hook(lambda m, args: shapes.append(tuple(args[0].shape)))
    generate_batch(run, "abcd", 3, Draws(5))
    assert shapes == [(1, 4)] + [(3, 1)] * 4


@pytest.mark.parametrize("samples", [0, -1, 10_001])
def test_numbers_of_samples_out_of_range_are_refused(samples: int) -> None:
    with pytest.raises(InputError, match="--samples"):
        generate_batch(make_run(), "ab", samples)


def test_the_front_door_knows_them(trained: Path) -> None:
    assert lm.generate_batch(lm.load(trained, device="cpu"), "we", 2, lm.Draws(3))[1].tokens <= 3
