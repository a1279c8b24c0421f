"""Sentences about the size of a text stand where they teach something, and only there."""

import json
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm.lm.base.settings import flag_of
from recurrent_lm.lm.config import LITTLE, LITTLE_TEXT, RunConfig, TokensConfig, from_toml
from recurrent_lm.lm.text.advice import little_text
from recurrent_lm.lm.text.corpora import Corpus
from recurrent_lm.lm.text.data import prepare
from recurrent_lm.lm.text.prompt import prompt_of
from recurrent_lm.lm.training.start import suited

WORDS = "we want more jobs and more peace "  # seven words, 33 characters


def corpus_of(text: str) -> Corpus:
    return Corpus("a text", [("a", text)])


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("a " * 4_999, True),
        ("a " * 5_000, False),
        ("人" * 39_999, True),  # one word for a tokenizer that looks for spaces
        ("人" * 40_000, False),
    ],
)
def test_below_5_000_words_a_perplexity_means_little(text: str, warned: bool) -> None:
    assert len(little_text(corpus_of(text), TokensConfig())) == warned


def test_eval_warns_of_little_text(trained: Path, lm_command: Any, tmp_path: Path) -> None:
    """Its own text has 382 words; another has 7,000."""
    (tmp_path / "long.txt").write_text(WORDS * 1000)
    for corpus, warned in (([], True), (["--corpus", tmp_path / "long.txt"], False)):
        code, out, _ = lm_command("eval", trained, *corpus)
        assert code == 0
        assert ("below 5,000" in out) == warned
        content = json.loads(lm_command("eval", trained, *corpus, "--json")[1])
        assert any("below 5,000" in warning for warning in content["warnings"]) == warned


def test_the_trimmed_tokens_are_told_where_they_are_many(corpus: Path, tmp_path: Path, flags: Any, lm_command: Any) -> None:
    """A training text of some 1,600 characters: 13 rows lose up to 12 of them, 500 rows more than a hundredth."""
    shares = []
    for rows in (1, 13, 500):
        run = tmp_path / str(rows)
        code, out, _ = lm_command("train", corpus, "--run", run, *flags(max_steps=1, rows=rows))
        assert code == 0
        about = json.loads((run / "about.json").read_text())
        shares.append(about["trimmed_tokens"] / about["corpus"]["tokens"]["train"])
        assert ("that fill no row" in out) == (shares[-1] >= 0.01)
    assert shares[0] < 0.01 < shares[-1]


def test_llama_is_compared_with_where_a_corpus_is_looked_at(corpus: Path, tmp_path: Path, flags: Any, lm_command: Any) -> None:
    assert "Llama 3" in lm_command("corpora", "show", corpus)[1]
    assert "Llama" not in "".join(map(str, lm_command("train", corpus, "--run", tmp_path / "run", *flags(max_steps=1))))


# -- settings that suit little text -----------------------------------------------------------------------------------


def test_little_text_gets_settings_of_its_own_which_any_flag_overrides(corpus: Path, tmp_path: Path, lm_command: Any) -> None:
    common = ["train", corpus, "--hidden-size", 8, "--max-steps", 1, "--device", "cpu", "--threads", 1]
    code, _, err = lm_command(*common, "--run", tmp_path / "a", "--dropout", 0.25)
    assert code == 0
    config = from_toml(tmp_path / "a" / "config.toml")
    assert config == config.replace(**LITTLE_TEXT | {"dropout": 0.25})
    (line,) = [line for line in err.splitlines() if "little text" in line]
    flags = {flag_of(f) for _, f in RunConfig.settings() if f.name in LITTLE_TEXT}
    assert {flag for flag in flags if f"{flag} " in line} == flags - {"--dropout"}


@pytest.mark.parametrize(
    ("words", "settings", "given", "changed"),
    [
        (LITTLE - 1, {}, (), True),
        (LITTLE, {}, (), False),
        (100, {"kind": "char"}, (), False),
        (100, {}, tuple(LITTLE_TEXT), False),
    ],
)
def test_settings_change_below_20_000_words_alone(tmp_path: Path, words: int, settings: Any, given: Any, changed: bool) -> None:
    (tmp_path / "text.txt").write_text("word " * words)
    config = RunConfig().replace(source=str(tmp_path / "text.txt"), **settings)
    chosen, sentence = suited(config, given)
    assert (chosen != config) == bool(sentence) == changed


def test_a_preset_or_a_file_of_settings_is_left_as_it_is(corpus: Path, tmp_path: Path, lm_command: Any) -> None:
    small = ["--hidden-size", 8, "--max-steps", 1, "--device", "cpu", "--threads", 1]
    assert lm_command("train", corpus, "--preset", "demo", "--run", tmp_path / "a", *small)[0] == 0
    again = lm_command("train", "--config", tmp_path / "a" / "config.toml", "--run", tmp_path / "b")
    assert again[0] == 0 and "little text" not in again[2]
    first, second = (from_toml(tmp_path / name / "config.toml") for name in "ab")
    assert first == second
    assert first.batches.rows == 10, "the preset's"


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("We want peace. They want jobs. We want roads. We build roads. " * 9, "We want"),
        ("no mark and no beginning but the first " * 30, "no mark"),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 " * 20, "1 2"),
    ],
)
def test_a_prompt_is_how_the_text_s_sentences_begin(tmp_path: Path, text: str, prompt: str) -> None:
    (tmp_path / "text.txt").write_text(text)
    assert prompt_of(prepare(RunConfig().replace(source=str(tmp_path / "text.txt")))) == prompt


def test_a_prompt_has_known_words_alone_or_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(" ".join(f"W{i} x{i}." for i in range(99)))
    assert prompt_of(prepare(RunConfig().replace(source=str(tmp_path / "text.txt")))) == ""


def test_the_end_of_a_training_shows_what_comes_next(corpus: Path, tmp_path: Path, flags: Any, lm_command: Any) -> None:
    run = tmp_path / "run"
    _, out, _ = lm_command("train", corpus, "--run", run, *flags(kind="word", epochs=1))
    commands = [line.split() for line in out.split("what comes next:\n")[1].splitlines()]
    assert [command[:2] for command in commands] == [["lm", "generate"], ["lm", "ask"], ["reports", "training"]]
    assert all(command[2] == str(run) for command in commands)
    prompt = " ".join(commands[0][4:]).strip("'")
    assert prompt in corpus.read_text()
    assert lm_command("generate", run, "--prompt", prompt, "--length", 2)[0] == 0
