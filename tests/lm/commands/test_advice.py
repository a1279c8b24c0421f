"""What is said beside figures: unknown tokens, documents that come twice, files that are not read."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from recurrent_lm import lm
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import CorpusConfig, ModelConfig, RunConfig
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.runs.folder import Run
from recurrent_lm.lm.scoring.next_token import score_text
from recurrent_lm.lm.text.advice import doubts, twice
from recurrent_lm.lm.text.corpora import Corpus, Piece, open_corpus
from recurrent_lm.lm.text.data import prepare
from recurrent_lm.lm.text.tokens import EOS, CharTokenizer, Tokenizer, WordTokenizer

WORDS = [f"w{i}" for i in range(100)]


# --- unknown tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "unknown", "warnings"), [(100, 0, 0), (99, 0, 1), (100, 30, 0), (100, 31, 1), (99, 31, 2), (0, 100, 2)]
)
def test_few_words_and_many_unknown_tokens_are_doubted(known: int, unknown: int, warnings: int) -> None:
    assert len(doubts(WordTokenizer(WORDS[:known], [], "spaces", False), unknown, 100)) == warnings


def test_few_characters_are_not_doubted() -> None:
    assert doubts(CharTokenizer(list("ab")), 0, 100) == []
    assert len(doubts(CharTokenizer(list("ab")), 31, 100)) == 1


def test_a_stream_counts_its_unknown_tokens(tmp_path: Path) -> None:
    texts = {"train": "we want jobs and we want jobs and", "valid": "we want peace and peace", "test": "we want jobs"}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    files = {f"{name}_file": str(tmp_path / f"{name}.txt") for name in texts}
    for kind, expected in (("word", [0, 2, 0]), ("char", [0, 4, 0]), ("bpe", [0, 0, 0])):  # c and p, two half-bytes each
        data = prepare(RunConfig().replace(kind=kind, **files))
        results = [stream.unknown for stream in (data.train, data.valid, data.test)]
        assert results[::2] == expected[::2]
        counted = [sum(data.tokenizer.unknown_tokens(p.text) for p in data.corpus.splits()[s]) for s in texts]
        assert results == counted
        if kind != "char":
            assert results == expected


def share(text: str) -> float:
    """The share of unknown tokens that a text for people names."""
    return float(text.split("% of the tokens unknown")[0].split()[-1])


def test_eval_says_what_is_unknown(trained_words: Path, tmp_path: Path, lm_command: Any) -> None:
    other = tmp_path / "other.txt"
    other.write_text("We want zebras. They want gnus and gnats and newts.\n")
    _, out, _ = lm_command("eval", trained_words, "--corpus", other, "--split", "all", "--ngram", 0)
    _, as_json, _ = lm_command("eval", trained_words, "--corpus", other, "--split", "all", "--ngram", 0, "--json")
    content = json.loads(as_json)
    tokenizer = lm.load(trained_words, device="cpu").tokenizer
    score = content["scores"][0]
    assert score["unknown_tokens"] == tokenizer.unknown_tokens(other.read_text()) > 3
    assert share(out) == pytest.approx(100 * score["unknown_tokens"] / score["tokens"], abs=0.06)
    assert len(content["warnings"]) == 3  # little text, few types, many unknown tokens
    assert out.count("warning: ") == 3
    assert content["types"] == tokenizer.size


def test_score_says_what_is_unknown(trained_words: Path, trained: Path, lm_command: Any) -> None:
    text = "We want zebras and we want good roads"
    content = json.loads(lm_command("score", trained_words, text, "--json")[1])
    out = lm_command("score", trained_words, text)[1]
    assert share(out) == pytest.approx(100 * content["unknown_tokens"] / content["tokens"], abs=0.06)
    assert out.count("warning: ") == len(content["warnings"]) >= 1
    assert json.loads(lm_command("score", trained, "we want", "--json")[1])["warnings"] == []


def test_a_training_says_what_is_unknown_to_the_vocabulary_that_it_takes_over(
    trained_words: Path, tmp_path: Path, lm_command: Any
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Zebras graze on wide plains. Gnus, newts and gnats graze there. " * 20)
    code, out, err = lm_command("train", other, "--init-from", trained_words, "--max-steps", 1, "--run", tmp_path / "run")
    assert code == 0
    corpus = json.loads((tmp_path / "run" / "about.json").read_text())["corpus"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert corpus["unknown_tokens"]["train"] > 0.3 * corpus["tokens"]["train"]
    for split in ("valid", "test"):
        assert result[split]["unknown_tokens"] == corpus["unknown_tokens"][split]
    assert f"{corpus['unknown_tokens']['train'] / corpus['tokens']['train']:.1%} of the training tokens" in out + err
    lines = [line for line in (out + err).splitlines() if "perplexity" in line and "bits per byte" in line and "loss" in line]
    assert len(lines) >= 2
    held_out = {split: result[split]["unknown_tokens"] / result[split]["tokens"] for split in ("valid", "test")}
    for line, split in zip(lines[-2:], held_out, strict=True):
        assert share(line) == pytest.approx(100 * held_out[split], abs=0.06)
    assert "warning: " in out + err


# --- ranks ----------------------------------------------------------------------------------------------------------


def make_run(tokenizer: Tokenizer) -> Run:
    torch.manual_seed(5)
    config = ModelConfig(cell="gru", hidden_size=6, init_width=1.2)
    return Run(Path("none"), RunConfig(model=config), tokenizer, LanguageModel(tokenizer.size, config).double().eval(), {})


@torch.no_grad()
def log_p(run: Run, ids: list[int]) -> list[float]:
    hidden, _ = run.model(torch.tensor([ids]), run.model.zero_state(1))
    return torch.log_softmax(run.model.logits(hidden[-1, 0]), 0).tolist()


def test_an_unknown_word_ranks_by_what_it_costs_as_a_whole() -> None:
    run = make_run(WordTokenizer(["the", "people", "want"], ["zoo"], "punctuation", False))
    piece = score_text(run, "the zebras").pieces[1]
    row = log_p(run, [EOS, *run.tokenizer.encode("the")])
    whole = row[WordTokenizer.UNK] - run.tokenizer.spelling_nats("zebras")
    assert piece.total == pytest.approx(-whole)
    assert piece.rank == 1 + sum(p > whole for i, p in enumerate(row) if i != WordTokenizer.UNK) == run.tokenizer.size


def test_a_likely_unknown_word_may_still_rank_first() -> None:
    run = make_run(WordTokenizer(["the", "people", "want"], ["zoo"] * 50, "punctuation", False))
    run.model.decoder.bias.data[WordTokenizer.UNK] = 50.0
    assert score_text(run, "zoo the").pieces[0].rank == 1


def test_a_spelled_character_ranks_as_a_whole() -> None:
    run = make_run(CharTokenizer(list("ab")))
    piece = score_text(run, "aé").pieces[1]
    first = log_p(run, [EOS, *run.tokenizer.encode("a")])
    token = run.tokenizer.encode("é")[0]
    assert piece.tokens == 4
    assert piece.rank == 1 + sum(p > -piece.total for i, p in enumerate(first) if i != token)
    best = sorted(first, reverse=True)[:3]
    assert [p for _, p in piece.expected] == pytest.approx([math.exp(p) for p in best])


# --- documents that come twice --------------------------------------------------------------------------------------

LONG = " ".join(WORDS[:25])


def test_the_same_document_in_two_splits_is_named_with_them(tmp_path: Path, lm_command: Any) -> None:
    for number in range(10):
        (tmp_path / f"talk{number}.txt").write_text(f"{number} we want jobs. " * 30)
    (tmp_path / "zzz.txt").write_text("0 we want jobs.\r\n" * 30 + "\n")
    sentences = twice(open_corpus(CorpusConfig(source=str(tmp_path))))
    assert len(sentences) == 1
    assert "talk0.txt (train)" in sentences[0]
    assert "zzz.txt (test)" in sentences[0]
    assert sentences[0] in lm_command("corpora", "show", tmp_path)[1]
    run = ["--run", tmp_path / "run", "--max-steps", 1, "--hidden-size", 8, "--tokens", "char"]
    assert f"lm: {sentences[0]}\n" in lm_command("train", tmp_path, *run)[2]


def test_two_splits_come_before_one_and_few_are_named() -> None:
    texts = [("a", "one"), ("b", "one"), ("c", "two"), ("d", "three"), *((f"e{i}", "four") for i in range(6))]
    texts += [(f"f{i}", text) for i, text in enumerate(["x", "x", "y", "y"])]
    parts = [Piece(text) for _, text in texts]
    corpus = Corpus(
        "c", [*texts, ("v", "two"), ("t", "five")], {"train": parts, "valid": [Piece("two")], "test": [Piece("five")]}
    )
    sentences = twice(corpus)
    assert "c (train), v (valid)" in sentences[0]
    assert [s.split(":")[0] for s in sentences[1:4]] == [f"the same document {n} times" for n in (2, 6, 2)]
    assert "e2 (train) and 3 more" in sentences[2]
    assert len(sentences) == 5
    assert sentences[4].startswith("1 more")


def test_a_document_that_lies_in_two_splits_itself_is_none() -> None:
    assert twice(Corpus("c", [("a", "we want jobs. " * 100)])) == []


@pytest.mark.parametrize(("line", "count"), [("Thank you.", 0), (LONG, 1)])
def test_of_lines_only_long_ones_count(tmp_path: Path, line: str, count: int) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"{name} line\n{line}\n")
    files = {f"{name}_file": str(tmp_path / f"{name}.txt") for name in ("train", "valid", "test")}
    sentences = twice(open_corpus(CorpusConfig(**files, eos_at_newline=True)))  # type: ignore[arg-type]
    assert len(sentences) == count
    if count:
        assert all(f"{name}.txt:2 ({name})" in sentences[0] for name in ("train", "valid", "test"))


def test_eval_names_what_is_twice_in_another_text(trained: Path, tmp_path: Path, lm_command: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("we want jobs. " * 30)
    err = lm_command("eval", trained, "--corpus", tmp_path, "--split", "all", "--ngram", 0)[2]
    assert "a.txt" in err
    assert "b.txt" in err


def test_eval_tells_of_documents_that_were_trained_on(tmp_path: Path, fit: Any, make_text: Any, lm_command: Any) -> None:
    for number in range(12):
        (tmp_path / f"talk{number:02}.txt").write_text(make_text(400, seed=number))
    fit(tmp_path / "run", tmp_path, epochs=1)
    (tmp_path / "run" / "none.txt").write_text(make_text(400, seed=99))
    for other, trained_on in ((tmp_path / "talk00.txt", 1), (tmp_path / "talk11.txt", 0), (tmp_path / "run" / "none.txt", 0)):
        err = lm_command("eval", tmp_path / "run", "--corpus", other, "--split", "all")[2]
        assert err.count("1 of the 1 documents") == trained_on


# --- lines and files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"], ids=ascii)
def test_every_line_end_is_one(tmp_path: Path, end: str) -> None:
    file = tmp_path / "lines.txt"
    text = f"one{end}{end} two three {end}four"
    for last in ("", end):
        file.write_bytes((text + last).encode())
        corpus = open_corpus(CorpusConfig(source=str(file), eos_at_newline=True))
        assert [line for _, line in corpus.documents] == ["one", "", " two three ", "four"]
        assert corpus.eos_bytes == 1, "bits per byte do not depend on how a line's end is written"


def test_files_of_a_folder_that_are_not_read_are_named(tmp_path: Path, lm_command: Any, trained: Path) -> None:
    (tmp_path / "a.txt").write_text("We want jobs. " * 30)
    (tmp_path / "b.txt").write_text(" \n")
    assert open_corpus(CorpusConfig(source=str(tmp_path / "a.txt"))).notes == []
    for name in ("essay.docx", "essay.pdf", "notes.md", "slides.odp", ".hidden", ".DS_Store"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
    (tmp_path / "old").mkdir()
    notes = open_corpus(CorpusConfig(source=str(tmp_path))).notes
    assert len(notes) == 2
    assert all(text in notes[0] for text in ("5 ", "essay.docx", "essay.pdf", "notes.md", "and 2 more"))
    assert "hidden" not in notes[0]
    assert "b.txt" in notes[1]
    for output in (
        lm_command("corpora", "show", tmp_path)[1],
        lm_command("eval", trained, "--corpus", tmp_path, "--ngram", 0)[2],
    ):
        assert "essay.docx" in output
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").unlink()
    with pytest.raises(InputError, match=r"no \.txt file.*essay\.docx"):
        open_corpus(CorpusConfig(source=str(tmp_path)))
