"""Tokenizers: text to token ids and back, by characters, words or byte pairs.

Id 0 is always <eos>. It follows each document and is never read from text: a text that contains "<eos>" keeps it as letters. A
tokenizer is built from the training split only and saved with the model as JSON.
"""

import codecs
import json
from collections import Counter
from typing import Any

import regex
from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.signals import in_thread
from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.text.tokenizer import EOS, Decoder, Encoded, Tokenizer
from recurrent_lm.lm.text.words import LITERAL, VERSION, WordTokenizer

__all__ = ["EOS", "BpeTokenizer", "CharTokenizer", "Decoder", "Encoded", "Tokenizer", "WordTokenizer", "build", "from_json"]
LONGEST_PIECE = 512  # bytes of unbroken text within which byte pairs are merged
UNBROKEN = regex.compile(r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")  # as byte-level byte pairs cut text (Radford et al. 2019)
LONG = 2**16  # characters above which encoding takes so long that signals must not wait for it


class CharTokenizer(Tokenizer):
    """One token a character. Characters that training did not see are spelled in half-bytes of their UTF-8 form.

    Ids: <eos>, 16 half-bytes, then the characters. Every text can be encoded and decoded exactly.
    """

    kind = "char"
    _first = 17

    def __init__(self, characters: list[str]) -> None:
        self._characters = characters
        self._ids = {c: i for i, c in enumerate(characters, start=self._first)}

    @property
    def size(self) -> int:
        return self._first + len(self._characters)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for c in text:
            i = self._ids.get(c)
            if i is None:
                ids += [1 + half for byte in c.encode("utf-8") for half in (byte >> 4, byte & 15)]
            else:
                ids.append(i)
        return ids

    def decoder(self) -> Decoder:
        return _CharDecoder(self._characters)

    def show(self, token: int) -> str:
        return "<eos>" if token == EOS else f"<{token - 1:x}>" if token < self._first else self._characters[token - self._first]

    def unknown(self, text: str) -> dict[str, str]:
        return {c: "its bytes " + c.encode("utf-8").hex(" ") for c in text if c not in self._ids}

    def read(self, text: str) -> Encoded:
        ids = self.encode(text)
        return Encoded(ids, 0.0, sum(0 < i < self._first for i in ids))

    def unknown_tokens(self, text: str) -> int:
        return self.read(text).unknown

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": self._characters}


class _CharDecoder(Decoder):
    def __init__(self, characters: list[str]) -> None:
        self._characters = characters
        self._high: int | None = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        if token == EOS or token >= CharTokenizer._first:
            text = self.flush()
            return text if token == EOS else text + self._characters[token - CharTokenizer._first]
        if self._high is None:
            self._high = token - 1
            return ""
        byte, self._high = self._high << 4 | (token - 1), None
        return self._utf8.decode(bytes([byte]))

    def flush(self) -> str:
        self._high = None
        return self._utf8.decode(b"", final=True)


class BpeTokenizer(Tokenizer):
    """Byte-level byte pairs (Sennrich et al. 2016; byte level as in GPT-2) by the tokenizers library.

    <eos> is not one of the library's added tokens, so that no text is mistaken for it.
    """

    kind = "bpe"

    def __init__(self, model: str) -> None:
        self._model = model
        self._library = Library.from_str(model)
        alphabet = {c: byte for byte, c in enumerate(_byte_characters())}
        by_id = sorted(self._library.get_vocab().items(), key=lambda item: item[1])
        if [i for _, i in by_id] != list(range(len(by_id))):
            raise ValueError("the ids of the model are not 0, 1, ...")
        self._bytes = [bytes(alphabet[c] for c in token) for token, _ in by_id]

    @property
    def size(self) -> int:
        return 1 + len(self._bytes)

    def encode(self, text: str) -> list[int]:
        def work() -> list[int]:
            return self._library.encode(text, add_special_tokens=False).ids

        return [1 + i for i in (in_thread(work) if len(text) > LONG else work())]

    def decoder(self) -> Decoder:
        return _ByteDecoder(self._bytes)

    def show(self, token: int) -> str:
        return "<eos>" if token == EOS else self._bytes[token - 1].decode("utf-8", "replace")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "model": json.loads(self._model)}


class _ByteDecoder(Decoder):
    def __init__(self, table: list[bytes]) -> None:
        self._table = table
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self.flush() if token == EOS else self._utf8.decode(self._table[token - 1])

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


def long_pieces(text: str) -> int:
    """Number of pieces of a text that are too long to merge byte pairs across."""
    return sum(len(m[0]) * 4 > LONGEST_PIECE < len(m[0].encode()) for m in UNBROKEN.finditer(text))


def _byte_characters() -> list[str]:
    """The printable character for each byte in byte-level BPE (Radford et al. 2019)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def build(texts: list[str], config: TokensConfig) -> Tokenizer:
    """Build a tokenizer from the texts of the training split.

    Args:
        texts: the pieces of the training split.
        config: kind, vocabulary size and minimum count.

    Returns:
        The tokenizer.

    Raises:
        InputError: if the text has fewer than two different symbols, or the vocabulary has no room for any.
    """
    if len(set("".join(texts))) < 2:
        raise InputError("the training text consists of one symbol only; a language model needs at least two")
    if config.kind == "bpe":
        return _train_bpe(texts, config)
    if config.kind == "char":
        counts = Counter(c for text in texts for c in text)
        kept, _ = _keep(counts, config, CharTokenizer._first)
        return CharTokenizer(sorted(kept))
    blank = WordTokenizer([], [], config.split, config.lower)
    words = Counter(t for text in texts for t in blank.tokens(text) if t is not None)
    kept, rare = _keep(words, config, WordTokenizer._first)
    if len(kept) + bool(rare) < 2:
        raise InputError(
            f"the training text has {len(kept)} words that occur at least {config.min_count} times; a language model needs two "
            "symbols at least: take a lower --min-count, or more text"
        )
    literal = words[LITERAL] if LITERAL in kept else 0
    return WordTokenizer(kept, [t for t in rare if not t.isspace()], config.split, config.lower, literal)


def _keep(counts: "Counter[str]", config: TokensConfig, special: int) -> tuple[list[str], list[str]]:
    """The symbols to keep beside ``special`` others, and the rest, both by falling count."""
    ranked = sorted(counts, key=lambda t: (-counts[t], t))
    frequent = [t for t in ranked if counts[t] >= config.min_count]
    if config.vocab_size:
        if config.vocab_size <= special:
            raise InputError(
                f"--vocab-size {config.vocab_size} leaves no room for a type beside the {special} special ones; "
                f"take at least {special + 1}"
            )
        frequent = frequent[: config.vocab_size - special]
    return frequent, ranked[len(frequent) :]


def _train_bpe(texts: list[str], config: TokensConfig) -> BpeTokenizer:
    # More merges than bytes are impossible; larger sizes only fill the memory.
    most = 257 + sum(len(text.encode("utf-8")) for text in texts)
    library = Library(models.BPE())
    # The library's time grows with the square of a piece's length, and DNA or Chinese has no spaces, so pieces are cut.
    inside = "".join(_byte_characters()[0x80:0xC0])  # bytes inside a character
    short = pre_tokenizers.Split(Regex(rf"[\s\S]{{1,{LONGEST_PIECE}}}(?![{inside}])"), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False), short])
    trainer = trainers.BpeTrainer(
        vocab_size=min(config.vocab_size or 1000, most) - 1,
        min_frequency=min(config.min_count, most),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    in_thread(lambda: library.train_from_iterator(texts, trainer))
    return BpeTokenizer(library.to_str())


def from_json(data: dict[str, Any]) -> Tokenizer:
    """The inverse of ``Tokenizer.to_json``.

    Raises:
        ValueError: for data that no tokenizer wrote; likewise KeyError, TypeError, and errors of the tokenizers library.
    """
    if data["kind"] == "char":
        return CharTokenizer(_symbols(data, "characters"))
    if data["kind"] == "word":
        split, lower, literal, version = data["split"], data["lower"], data.get("literal", 0), data.get("version", 1)
        if split not in ("punctuation", "spaces") or type(lower) is not bool or type(literal) is not int or literal < 0:
            raise ValueError("split, lower or literal is none")
        if type(version) is not int or not 1 <= version <= VERSION:
            raise ValueError(f"version is not between 1 and {VERSION}")
        types = _symbols(data, "types")
        if literal and LITERAL not in types:
            raise ValueError(f"types lacks {LITERAL}")
        return WordTokenizer(types, _symbols(data, "rare"), split, lower, literal, version)
    if data["kind"] == "bpe":
        return BpeTokenizer(json.dumps(data["model"]))
    raise ValueError("kind is none")


def _symbols(data: dict[str, Any], key: str) -> list[str]:
    """A list of distinct texts that can be encoded in UTF-8."""
    symbols = data[key]
    if not isinstance(symbols, list) or not all(isinstance(s, str) and s for s in symbols):
        raise ValueError(f"{key} is no list of texts")
    if key == "characters" and any(len(s) != 1 for s in symbols):
        raise ValueError("characters holds what is none")
    if len(set(symbols)) != len(symbols):
        raise ValueError(f"{key} has a text twice")
    "".join(symbols).encode()  # fails for lone surrogates
    return symbols
