"""Sentences about the size of a text stand where they teach something, and only there."""

import json
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.text.advice import little_text
from recurrent_lm.lm.text.corpora import Corpus

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
        found = json.loads(lm_command("eval", trained, *corpus, "--json")[1])
        assert any("below 5,000" in warning for warning in found["warnings"]) == warned


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
