"""One stream of ids, and the lecture's [k, L] batches of it."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import CorpusConfig, RunConfig, TokensConfig
from recurrent_lm.lm.text.batches import IGNORED, Batches, Stream, encode
from recurrent_lm.lm.text.corpora import Corpus, Piece
from recurrent_lm.lm.text.data import Data, prepare
from recurrent_lm.lm.text.tokens import EOS, CharTokenizer, WordTokenizer, build
from recurrent_lm.lm.text.unknown import Speller


def numbered(length: int) -> np.ndarray:
    """x(1) .. x(T) with x(i) = i, so that a token says where it stood."""
    return np.arange(1, length + 1, dtype=np.int32)


@settings(deadline=None, max_examples=300)
@given(rows=st.integers(1, 7), bptt=st.integers(1, 12), length=st.integers(2, 90))
@example(rows=1, bptt=3, length=2)
@example(rows=4, bptt=5, length=4)  # tau = 1
@example(rows=3, bptt=5, length=30)  # L divides tau, nothing is trimmed
@example(rows=3, bptt=4, length=32)  # a short last pass, two trimmed
@example(rows=2, bptt=50, length=21)  # L > tau
def test_every_pass_is_the_lectures(rows: int, bptt: int, length: int) -> None:
    assume(length >= rows)
    tau = length // rows
    batches = Batches(numbered(length), rows, bptt)
    assert (batches.tau, batches.trimmed) == (tau, length - rows * tau)
    columns = tau if rows > 1 else tau - 1
    assert len(batches) == math.ceil(columns / bptt)

    read: list[int] = []
    ignored = 0
    for s, batch in enumerate(batches):
        n = min(bptt, columns - s * bptt)
        assert batch.inputs.shape == batch.targets.shape == batch.begins.shape == (rows, n)
        for j in range(rows):
            first = j * tau + s * bptt + 1
            assert batch.inputs[j].tolist() == list(range(first, first + n))
            for target, place in zip(batch.targets[j].tolist(), range(first + 1, first + n + 1), strict=True):
                assert target == (place if place <= length else IGNORED)
                ignored += target == IGNORED
        read += batch.inputs.flatten().tolist()
    used = rows * tau if rows > 1 else length - 1
    assert sorted(read) == list(range(1, used + 1))
    assert ignored == (1 if rows > 1 and length == rows * tau else 0)


def test_the_lectures_picture_with_two_rows() -> None:
    batches = Batches(numbered(11), 2, 2)  # tau = 5, x(11) is trimmed
    assert [b.inputs.tolist() for b in batches] == [[[1, 2], [6, 7]], [[3, 4], [8, 9]], [[5], [10]]]
    assert [b.targets.tolist() for b in batches] == [[[2, 3], [7, 8]], [[4, 5], [9, 10]], [[6], [11]]]
    assert batches.trimmed == 1


def test_the_one_target_that_does_not_exist_is_ignored() -> None:
    (batch,) = Batches(numbered(6), 2, 3)
    assert batch.targets.tolist() == [[2, 3, 4], [5, 6, IGNORED]]
    (batch,) = Batches(numbered(3), 1, 9)
    assert (batch.inputs.tolist(), batch.targets.tolist()) == ([[1, 2]], [[2, 3]])


def test_begins_marks_the_tokens_before_which_a_document_begins() -> None:
    ids = np.array([5, EOS, 7, 8, EOS, EOS, 3, 4, 1], dtype=np.int32)
    first, second = Batches(ids, 2, 2)
    assert first.begins.tolist() == [[False, True], [True, True]]
    assert second.begins.tolist() == [[False, False], [False, False]]
    assert first.begins.dtype == np.bool_


def test_targets_can_go_to_torch_and_inputs_stay_small() -> None:
    batch = Batches(numbered(20), 2, 5)[0]
    assert (batch.inputs.dtype, batch.targets.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("s", [-1, 3, 4])
def test_a_pass_that_does_not_exist_is_an_index_error(s: int) -> None:
    batches = Batches(numbered(11), 2, 2)
    assert len(list(batches)) == len(batches) == 3
    with pytest.raises(IndexError):
        batches[s]


@pytest.mark.parametrize(("length", "rows"), [(0, 1), (1, 1), (0, 3), (2, 3), (19, 20)])
def test_too_short_a_text_is_refused(length: int, rows: int) -> None:
    with pytest.raises(InputError, match=f"{length} tokens is too short for --rows {rows}"):
        Batches(numbered(length), rows, 5)


# --- from pieces to a stream ----------------------------------------------------------------------------------------


def test_eos_stands_behind_each_end_and_bytes_are_those_of_the_text() -> None:
    tokenizer = CharTokenizer(["a", "é"])
    pieces = [Piece("aé"), Piece("", ends=True), Piece("é", ends=False)]
    stream = encode(pieces, tokenizer)
    assert stream.ids.tolist() == [17, 18, EOS, EOS, 18]
    assert stream.ids.dtype == np.int32
    assert (stream.bytes, stream.spelling_nats) == (5, 0)
    assert encode(pieces, tokenizer, eos_bytes=1).bytes == 7


def test_bits_per_byte_by_hand() -> None:
    ln2 = math.log(2)
    assert Stream(numbered(3), 2, 0.0).bits_per_byte(5 * ln2) == pytest.approx(2.5)
    assert Stream(numbered(3), 2, 3 * ln2).bits_per_byte(5 * ln2) == pytest.approx(4)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_char_and_bpe_spell_nothing_beyond_their_tokens(kind: str) -> None:
    tokenizer = build(["abc abc abc"], TokensConfig(kind=kind))
    stream = encode([Piece("xyz é")], tokenizer)
    assert stream.spelling_nats == 0
    assert stream.bits_per_byte(12.0) == pytest.approx(12 / math.log(2) / 6)


def test_each_unknown_word_pays_its_spelling_each_time() -> None:
    tokenizer = build(["we can we can rare words"], TokensConfig())
    speller = Speller(["rare", "words"])
    stream = encode([Piece("we dare dare"), Piece("can wear")], tokenizer)
    assert stream.spelling_nats == pytest.approx(2 * speller.nats("dare") + speller.nats("wear"))
    assert stream.ids.tolist().count(WordTokenizer.UNK) == 3
    assert stream.bits_per_byte(10.0) == pytest.approx((10 + stream.spelling_nats) / math.log(2) / 20)


def test_lower_counts_the_bytes_of_the_lower_cased_text() -> None:
    tokenizer = build(["a b a b"], TokensConfig(lower=True))
    assert encode([Piece("İ A")], tokenizer).bytes == len("i̇ a".encode()) == 5
    assert encode([Piece("İ A")], build(["a b a b"], TokensConfig())).bytes == 4


# --- the whole way from files ---------------------------------------------------------------------------------------


def corpus_of(folder: Path, *texts: str) -> CorpusConfig:
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return CorpusConfig(source=str(folder))


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_every_tokenizer_has_one_eos_a_document(tmp_path: Path, kind: str) -> None:
    corpus = corpus_of(tmp_path, "we can. " * 30, "we <eos> will. " * 30, "thank you. " * 30)
    data = prepare(RunConfig(corpus=corpus, tokens=TokensConfig(kind=kind)))
    streams = (data.train, data.valid, data.test)
    assert sum(s.ids.tolist().count(EOS) for s in streams) == 3
    assert sum(s.bytes for s in streams) == sum(len(text.encode()) for _, text in data.corpus.documents)
    assert all(0 <= i < data.tokenizer.size for s in streams for i in s.ids.tolist())


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_the_tokenizer_knows_the_training_split_alone(tmp_path: Path, kind: str) -> None:
    train, rest = "we can. " * 80, "zu zu. "
    tokens = TokensConfig(kind=kind, min_count=1)
    data = prepare(RunConfig(corpus=corpus_of(tmp_path, train, rest * 10, rest * 10), tokens=tokens))
    assert data.tokenizer.to_json() == build([train], tokens).to_json()
    again = prepare(RunConfig(corpus=CorpusConfig(source="obama")), data.tokenizer)
    assert again.tokenizer is data.tokenizer


def test_the_fingerprint_tells_texts_and_splits_apart(tmp_path: Path) -> None:
    tokens = TokensConfig(kind="char")
    prints = []
    for name, texts in {"a": ("ab " * 80, "b " * 20), "b": ("ab " * 80, "b " * 20), "c": ("ab " * 80, "a " * 20)}.items():
        (tmp_path / name).mkdir()
        prints.append(prepare(RunConfig(corpus=corpus_of(tmp_path / name, *texts), tokens=tokens)).fingerprint())
    assert prints[0] == prints[1] != prints[2]
    # the same tokens in the same order, cut elsewhere
    tokenizer, whole = CharTokenizer(["a", "b"]), numbered(9)
    cut = [[Stream(part, 1, 0.0) for part in np.split(whole, places)] for places in ([4, 6], [4, 7], [5, 6])]
    assert len({Data(Corpus("", []), tokenizer, *parts).fingerprint() for parts in cut}) == 3


def test_a_split_without_a_single_token_is_refused(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, "we can " * 100 + " " * 1000 + "we can")  # the validation split is all white space
    with pytest.raises(InputError):
        prepare(RunConfig(corpus=corpus, tokens=TokensConfig(split="spaces")))
