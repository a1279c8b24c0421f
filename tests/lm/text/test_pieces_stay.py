"""What the embedded speeches are cut into, and their ids, stay what they were, so that figures stay comparable."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from recurrent_lm.lm.config import RunConfig
from recurrent_lm.lm.text.corpora import open_corpus
from recurrent_lm.lm.text.data import prepare
from recurrent_lm.lm.text.tokens import BpeTokenizer, WordTokenizer, build, from_json
from recurrent_lm.lm.text.words import FIRST_PIECE, pieces

PIECES = {"obama": "296e51f0772c793d", "trump": "0b2e673a73533e2f", "sotu": "0312ffa19fb6dff7"}
WORDS, LOWER, BPE, CHAR = {"kind": "word"}, {"kind": "word", "lower": True}, {"kind": "bpe"}, {"kind": "char"}
IDS = [
    ("obama", WORDS, 2498, "3bb4e3c06453863b", [38725.287857, 10506.423600, 10598.903337]),
    ("obama", BPE, 1000, "d9b9576b12bd5e39", [0.0, 0.0, 0.0]),
    ("obama", CHAR, 93, "0b656aebe47a7949", [0.0, 0.0, 0.0]),
    ("trump", LOWER, 1987, "40588309cb1d2ab4", [30403.672836, 8381.638958, 9462.911283]),
    ("trump", BPE, 1000, "4708d814c3a05a74", [0.0, 0.0, 0.0]),
]


def digest(name: str) -> str:
    total = hashlib.sha256()
    for _, text in open_corpus(RunConfig().replace(source=name).corpus).documents:
        total.update("\0".join(pieces(text)).encode() + b"\1")
    return total.hexdigest()[:16]


@pytest.mark.parametrize("name", ["obama", "trump", pytest.param("sotu", marks=pytest.mark.slow)])
def test_the_pieces_of_embedded_speeches_stay(name: str) -> None:
    assert digest(name) == PIECES[name]


@pytest.mark.parametrize(("name", "how", "size", "ids", "nats"), IDS)
def test_the_ids_of_embedded_speeches_stay(name: str, how: dict[str, Any], size: int, ids: str, nats: list[float]) -> None:
    data = prepare(RunConfig().replace(source=name, **how))
    assert (data.tokenizer.size, data.fingerprint()[:16]) == (size, ids)
    assert [stream.spelling_nats for stream in (data.train, data.valid, data.test)] == pytest.approx(nats, abs=1e-5)


def test_an_old_word_tokenizer_reads_as_it_did(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    old = {"kind": "word", "types": ["cafe", "\u0301", "\n", "we"], "rare": ["zoo"], "split": "punctuation", "lower": False}
    file.write_text(json.dumps(old | {"literal": 0}))
    tokenizer = from_json(json.loads(file.read_text()))
    assert FIRST_PIECE.findall("cafe\u0301 we") == ["cafe", "\u0301", " ", "we"]
    assert tokenizer.encode("cafe\u0301 we") == [3, WordTokenizer.JOIN, 4, 6]
    assert tokenizer.encode("we" + "\n" * 40 + "we") == [6, *[5] * 40, 6], "every rare run by its characters"
    assert tokenizer.to_json()["version"] == 1
    assert from_json(tokenizer.to_json()).encode("cafe\u0301") == tokenizer.encode("cafe\u0301")
    for version in (0, 3, "2", True, None):
        with pytest.raises(ValueError, match="version"):
            from_json(old | {"version": version})


def test_an_old_byte_pair_tokenizer_reads_as_it_did(tmp_path: Path) -> None:
    text = "We want jobs, and we will build roads; 3,000 roads!  We'll see.\n" * 5
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=299, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([text], trainer)
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"kind": "bpe", "model": json.loads(library.to_str())}))
    old = from_json(json.loads(file.read_text()))
    assert old.to_json()["model"]["pre_tokenizer"]["type"] == "ByteLevel", "nothing is cut"
    new = build([text], RunConfig().replace(kind="bpe", vocab_size=300).tokens)
    assert isinstance(new, BpeTokenizer)
    assert new.to_json()["model"]["model"] == old.to_json()["model"]["model"]
    assert new.encode(text) == old.encode(text)


def test_a_run_of_a_newer_program_is_refused(trained_words: Path, tmp_path: Path, refused: Any) -> None:
    from shutil import copytree

    run = copytree(trained_words, tmp_path / "run")
    tokens = json.loads((run / "tokens.json").read_text())
    (run / "tokens.json").write_text(json.dumps(tokens | {"version": 99}))
    assert "tokens.json" in refused("eval", run)
