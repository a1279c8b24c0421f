"""Generation against a model that reads everything again for each token, and the draws against their distribution."""

import importlib
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recurrent_lm import lm
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import CELLS, ModelConfig, RunConfig
from recurrent_lm.lm.generation import generate, pick
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.runs.folder import Run
from recurrent_lm.lm.scoring.ngram import NGram
from recurrent_lm.lm.text.tokens import EOS, CharTokenizer, WordTokenizer, from_json

generate_module: Any = importlib.import_module("recurrent_lm.lm.generation")
UNK = WordTokenizer.UNK


def make_run(cell: str = "lstm", tokenizer: Any = None, **settings: Any) -> Run:
    tokenizer = tokenizer or CharTokenizer(list("abcdefgh ÿ"))
    torch.manual_seed(3)
    config = ModelConfig(cell=cell, **{"hidden_size": 8, "init_width": 1.5, **settings})
    return Run(Path("none"), RunConfig(model=config), tokenizer, LanguageModel(tokenizer.size, config).eval(), {})


def words() -> WordTokenizer:
    return WordTokenizer(["the", "people", ",", "want", "jobs", ".", "\n", " "], [], "punctuation", False)


def text_of(*args: Any, **kwargs: Any) -> str:
    return "".join(generate(*args, **kwargs))


def spy(run: Run) -> list[Tensor]:
    """What the model reads from now on."""
    seen: list[Tensor] = []
    run.model.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    return seen


def greedy(run: Run, prompt: list[int], length: int) -> list[int]:
    """Argmax, all tokens read again from h(0) = 0 each time."""
    ids = list(prompt)
    for _ in range(length):
        with torch.no_grad():
            hidden, _ = run.model(torch.tensor([ids]), run.model.zero_state(1))
            scores = run.model.logits(hidden)[-1, 0].tolist()
        best = max((i for i in range(len(scores)) if i not in run.tokenizer.never), key=lambda i: scores[i])
        if best == EOS:
            break
        ids.append(best)
    return ids[len(prompt) :]


# -- what is said ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("prompt", ["abba", "a", None])
def test_temperature_zero_takes_the_likeliest_token_each_time(cell: str, prompt: str | None) -> None:
    run = make_run(cell, layers=2)
    run.model.decoder.bias.data[EOS] = -1e9
    ids = [EOS] if prompt is None else run.tokenizer.encode(prompt)
    expected = greedy(run, ids, 30)
    assert len(expected) == 30
    text = text_of(run, prompt, 30, temperature=0)
    assert text == run.tokenizer.decode(expected)
    assert text == text_of(run, prompt, 30, temperature=0, seed=8), "nothing is random"
    assert text == text_of(run, prompt, 30, temperature=0.7, top_k=1), "of one token, one is drawn"
    assert text == text_of(run, prompt, 30, temperature=1.0, top_p=1e-9)


def test_a_trained_model_says_what_its_argmax_says(trained: Path, trained_words: Path) -> None:
    for path in (trained, trained_words):
        run = lm.load(path, device="cpu")
        ids = run.tokenizer.encode("the people")
        whole = run.tokenizer.decode(ids + greedy(run, ids, 40))
        assert run.tokenizer.decode(ids) + text_of(run, "the people", 40, temperature=0) == whole


def test_a_seed_repeats_and_another_differs(trained: Path) -> None:
    run = lm.load(trained, device="cpu")
    torch.manual_seed(1)
    first = text_of(run, "we", 60, seed=5)
    torch.manual_seed(2)
    assert text_of(run, "we", 60, seed=5) == first, "whatever torch's global generator does"
    others = {text_of(run, "we", 60, seed=s) for s in range(6, 10)}
    assert len(others | {first}) == 5
    assert text_of(run, "we", 60) != text_of(run, "we", 60), "no seed draws a fresh one"


def test_a_hot_model_differs_from_a_cold_one(trained: Path) -> None:
    run = lm.load(trained, device="cpu")
    run.model.decoder.bias.data[EOS] = -1e9
    cold, hot = (text_of(run, "we", 400, seed=1, temperature=t) for t in (0.1, 5.0))
    assert len(set(hot)) > len(set(cold)) + 5


def test_the_length_is_in_tokens_and_a_longer_text_begins_like_a_shorter() -> None:
    run = make_run()
    run.model.decoder.bias.data[:17] = -1e9  # characters only
    long = text_of(run, "ab", 50, seed=1)
    assert len(long) == 50
    assert text_of(run, "ab", 20, seed=1) == long[:20]
    assert len(text_of(run, "ab", 1, seed=1)) == 1


# -- the state ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_the_state_is_carried_so_that_each_token_costs_one_step(cell: str) -> None:
    run = make_run(cell)
    run.model.decoder.bias.data[:17] = -1e9
    seen = spy(run)
    text = text_of(run, "abcd", 25, seed=1)
    assert [x.shape for x in seen] == [(1, 4)] + [(1, 1)] * 24
    assert [int(x) for x in seen[1:]] == run.tokenizer.encode(text)[:-1]


def test_without_a_prompt_the_text_begins_behind_eos() -> None:
    run = make_run()
    seen = spy(run)
    text_of(run, None, 1)
    assert seen[0].tolist() == [[EOS]]


def test_generation_leaves_the_model_as_it_was() -> None:
    run = make_run()
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    random_state = torch.get_rng_state()
    text_of(run, "ab", 20)
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())
    assert all(p.grad is None for p in run.model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


# -- streaming ------------------------------------------------------------------------------------------------------


def test_text_streams_as_it_is_made() -> None:
    run = make_run()
    run.model.decoder.bias.data[:17] = -1e9
    seen = spy(run)
    pieces = generate(run, "ab", 1000, seed=1)
    for number in range(1, 6):
        assert next(pieces)
        assert len(seen) == number, "a piece is there before the next token is computed"


def test_settings_are_checked_before_the_first_piece_is_asked_for() -> None:
    with pytest.raises(InputError):
        generate(make_run(), "ab", 0)


@pytest.mark.parametrize(
    "tokenizer, prompt, drawn",
    [
        (CharTokenizer(list("ab")), "a", "b€a😀ü"),
        (CharTokenizer(list("ab")), "€", "a"),
        (words(), "the people", ", want jobs. the\npeople want , jobs,the"),
        (words(), "the\n", "people. want"),
    ],
)
def test_streamed_pieces_join_to_the_whole(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, prompt: str, drawn: str) -> None:
    before = tokenizer.encode(prompt)
    script = tokenizer.encode(prompt + drawn)[len(before) :]
    assert UNK not in script or tokenizer.kind == "char"
    draws = iter(script)
    monkeypatch.setattr(generate_module, "pick", lambda *a: next(draws))
    pieces = list(generate(make_run(tokenizer=tokenizer), prompt, len(script)))
    assert len(pieces) == len(script) + 1
    assert prompt + "".join(pieces) == prompt + drawn


def test_an_unfinished_character_is_flushed_as_a_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CharTokenizer(list("ab"))
    script = iter(tokenizer.encode("a€")[:4])
    monkeypatch.setattr(generate_module, "pick", lambda *a: next(script))
    assert text_of(make_run(tokenizer=tokenizer), "b", 4) == "a\ufffd"


# -- what is never said ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0, 0.5, 3.0])
def test_unk_is_never_drawn(temperature: float) -> None:
    run = make_run(tokenizer=words())
    run.model.decoder.bias.data[UNK] = 50.0
    seen = spy(run)
    assert "<unk>" not in text_of(run, "the people", 80, temperature=temperature, seed=1)
    assert UNK not in torch.cat([x.flatten() for x in seen]).tolist()


def test_the_text_ends_where_the_model_ends_the_document() -> None:
    run = make_run()
    run.model.decoder.bias.data[EOS] = 1e9
    seen = spy(run)
    assert text_of(run, "ab", 50, seed=1) == ""
    assert len(seen) == 1


def test_what_looks_like_eos_in_a_prompt_is_text() -> None:
    run = make_run()
    seen = spy(run)
    text_of(run, "<eos>", 1, seed=1)
    assert EOS not in seen[0].tolist()[0]


# -- draws ----------------------------------------------------------------------------------------------------------

PROBABILITIES = torch.tensor([0.15, 0.5, 0.05, 0.3])
DRAWS = 4000


def frequencies(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, logits: Tensor | None = None) -> list[float]:
    logits = PROBABILITIES.log() if logits is None else logits
    generator = torch.Generator().manual_seed(0)
    counts = Counter(pick(logits, temperature, top_k, top_p, generator) for _ in range(DRAWS))
    return [counts[i] / DRAWS for i in range(len(logits))]


def close(actual: list[float], expected: list[float]) -> bool:
    """Within four standard errors, and exactly zero where it should be."""
    pairs = zip(actual, expected, strict=True)
    return all(abs(f - e) <= 4 * math.sqrt(e * (1 - e) / DRAWS) for f, e in pairs)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_any_temperature(temperature: float) -> None:
    assert close(frequencies(temperature), torch.softmax(PROBABILITIES.log() / temperature, 0).tolist())


def test_top_k_keeps_the_likeliest_and_renormalises() -> None:
    assert close(frequencies(top_k=1), [0, 1, 0, 0])
    assert close(frequencies(top_k=2), [0, 0.625, 0, 0.375])
    assert close(frequencies(top_k=3), [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95])
    assert close(frequencies(top_k=99), PROBABILITIES.tolist())


@pytest.mark.parametrize(
    "top_p, kept", [(0.01, [1]), (0.49, [1]), (0.51, [1, 3]), (0.79, [1, 3]), (0.81, [0, 1, 3]), (0.96, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_smallest_set_that_holds_so_much(top_p: float, kept: list[int]) -> None:
    total = float(PROBABILITIES[kept].sum())
    assert close(frequencies(top_p=top_p), [float(p) / total if i in kept else 0 for i, p in enumerate(PROBABILITIES)])


def test_top_p_counts_after_temperature_and_top_k() -> None:
    # Among the best two, 0.625 and 0.375: 0.6 is held by the first alone.
    assert close(frequencies(top_k=2, top_p=0.6), [0, 1, 0, 0])
    # A cold distribution is narrower, so the same share is held by fewer.
    assert frequencies(temperature=0.2, top_p=0.8) == [0, 1, 0, 0]


def test_extreme_temperatures_neither_overflow_nor_divide_by_zero() -> None:
    logits = torch.tensor([1e4, -1e4, 1e4 - 1, -math.inf])
    assert frequencies(1e-300, logits=logits)[0] == 1
    assert close(frequencies(1e30, logits=logits), [1 / 3, 1 / 3, 1 / 3, 0])


def test_argmax_takes_the_lowest_id_on_a_tie() -> None:
    assert pick(torch.tensor([1.0, 7.0, 7.0, 7.0]), 0, 0, 1.0, torch.Generator()) == 1


def test_generated_characters_follow_the_models_distribution() -> None:
    run = make_run()
    with torch.no_grad():
        hidden, _ = run.model(torch.tensor([run.tokenizer.encode("ab")]), run.model.zero_state(1))
        expected = torch.softmax(run.model.logits(hidden[-1, 0]) / 0.8, 0)
    counts = Counter(text_of(run, "ab", 1, seed=s) for s in range(1500))
    for i in range(17, run.tokenizer.size):
        p = float(expected[i])
        assert abs(counts[run.tokenizer.decode([i])] / 1500 - p) <= 4.5 * math.sqrt(p * (1 - p) / 1500)


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, word",
    [({"length": n}, "--length") for n in (0, -1)]
    + [({"temperature": t}, "--temperature") for t in (-0.1, math.nan, math.inf, 10**400)]
    + [({"top_k": -1}, "--top-k")]
    + [({"top_p": p}, "--top-p") for p in (0.0, -0.5, 1.01, math.nan)],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        generate(make_run(), "ab", **settings)


def test_a_prompt_of_nothing_or_of_undecodable_bytes_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        generate(make_run(), "")
    for prompt in (b"a\xff".decode("utf-8", "surrogateescape"), "\ud800"):
        with pytest.raises(InputError, match="UTF-8"):
            generate(make_run(), prompt)


@pytest.mark.parametrize("prompt", ["ж", "😀", "\x00", "<unk>", "the жук ", " ", "\n\n", "\u2028", "a" * 3000, "é" * 5])
def test_any_text_can_be_a_prompt(prompt: str) -> None:
    for tokenizer in (CharTokenizer(list("ab")), words()):
        text_of(make_run(tokenizer=tokenizer), prompt, 5, seed=1)


def test_unknown_symbols_are_named_with_what_they_are_read_as(trained: Path, trained_words: Path, lm_command: Any) -> None:
    _, out, err = lm_command("generate", trained, "--prompt", "we ж", "--seed", 1, "--length", 5, "--no-copied")
    assert out.startswith("we ж")
    assert err == "lm: 'ж' is not in the vocabulary; it is read as its bytes d0 b6\n"
    _, out, err = lm_command("generate", trained_words, "--prompt", "we zugzwang", "--seed", 1, "--length", 5)
    assert out.startswith("we zugzwang")
    assert "'zugzwang' is not in the vocabulary; it is read as <unk>" in err
    assert lm_command("generate", trained, "--prompt", "we", "--length", 5, "--no-copied")[2] == ""


def test_an_n_gram_model_writes_by_its_own_distribution(trained: Path, lm_command: Any) -> None:
    """Each token is the likeliest behind those before it, the prompt included; drawn texts repeat with their seed."""
    run = lm.load(trained, device="cpu")
    data = lm.trained_on(run.config, run.tokenizer, run.path, run.meta)
    counted = NGram.fit(data.train.ids, run.tokenizer.size, 3)
    seen = spy(run)
    ids = run.tokenizer.encode("th")
    for _ in range(20):
        p = counted.distribution(ids)
        p[list(run.tokenizer.never)] = 0
        ids.append(int(p.argmax()))
    expected = run.tokenizer.decode(ids)
    assert EOS not in ids
    assert "th" + text_of(run, "th", 20, temperature=0, ngram=counted) == expected
    code, out, _ = lm_command("generate", trained, "--ngram", 3, "--prompt", "th", "--length", 20, "--temperature", 0)
    assert (code, out) == (0, expected + "\n")
    once, again = (text_of(run, None, 30, temperature=1.0, seed=4, ngram=counted) for _ in range(2))
    assert once == again and once
    batch = lm.generate_batch(run, None, 2, lm.Draws(30, 1.0, seed=4), counted)
    assert batch[0].text == once != batch[1].text
    assert not seen, "the network read something"


def test_the_python_door_does_the_same_as_the_command(trained: Path, lm_command: Any) -> None:
    run = lm.load(trained)
    text = "".join(lm.generate(run, "the people", 40, temperature=0.7, seed=3))
    how = ["--length", 40, "--temperature", 0.7, "--seed", 3, "--no-copied"]
    assert lm_command("generate", trained, "--prompt", "the people", *how) == (0, f"the people{text}\n", "")


def test_a_saved_tokenizer_generates_the_same() -> None:
    run = make_run(tokenizer=words())
    again = Run(run.path, run.config, from_json(words().to_json()), run.model, {})
    assert text_of(run, "the", 30, seed=1) == text_of(again, "the", 30, seed=1)
