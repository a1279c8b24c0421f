"""Text to token ids and back: characters, words, or byte pairs.

Id 0 is always <eos>. It stands behind each document and is never read from text: a text that contains "<eos>" keeps it
as letters. A tokenizer is built from the training split alone and saved with the model as JSON.
"""

import codecs
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from typing import Any

from lm.config import TokensConfig
from lm.errors import InputError
from lm.spelling import Speller
from lm.words import Line, pieces, spaced

EOS = 0


class Decoder(ABC):
    """Ids in, text out, as they come: ``push`` what is certain by now, ``flush`` the rest."""

    @abstractmethod
    def push(self, token: int) -> str: ...

    def flush(self) -> str:
        return ""


class Tokenizer(ABC):
    """What every kind of token offers."""

    kind: str

    @property
    @abstractmethod
    def size(self) -> int:
        """|V|, <eos> included."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without <eos>."""

    @abstractmethod
    def decoder(self) -> Decoder: ...

    @abstractmethod
    def show(self, token: int) -> str:
        """One token for people to read."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]: ...

    never: tuple[int, ...] = ()  # ids that stand for no text of their own, so that generation must not draw them

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; <eos> is silent."""
        decoder = self.decoder()
        return "".join(decoder.push(i) for i in ids) + decoder.flush()

    def raw(self, text: str) -> str:
        """The text that bits per byte are counted on."""
        return text

    @property
    def raw_is(self) -> str:
        """What ``raw`` is where it is not the text itself: "the lower-cased text"."""
        return ""

    def spelling_nats(self, text: str) -> float:
        """What the symbols that the vocabulary lacks cost beyond their tokens, in nats."""
        return 0.0

    def unknown(self, text: str) -> dict[str, str]:
        """Symbols of a text that the vocabulary lacks, each with what it is mapped to."""
        return {}


class CharTokenizer(Tokenizer):
    """One token a character. A character that training did not see is spelled in half-bytes of its UTF-8 form.

    Ids: <eos>, 16 half-bytes, then the characters. So every text can be written, and comes back exactly.
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


class WordTokenizer(Tokenizer):
    """One token a word, punctuation apart; rare words are <unk>.

    A token carries no white space. Between two tokens stands what ``words.Line.gap`` expects there (a space, or nothing, as
    before a comma); where the text has something else, that is a token of its own: <join> for nothing, or the white
    space itself. So a text without unknown words comes back exactly. With ``split="spaces"`` tokens are what white
    space separates, and every white space comes back as one space. ``lower`` lower-cases first.

    Ids: <eos>, <unk>, <join>, then the types by falling count.
    """

    kind = "word"
    UNK, JOIN, _first = 1, 2, 3
    never = (UNK,)

    def __init__(self, types: list[str], rare: list[str], split: str, lower: bool) -> None:
        self._types, self._rare, self._split, self._lower = types, rare, split, lower
        self._ids = {t: i for i, t in enumerate(types, start=self._first)}
        self._speller: Speller | None = None

    @property
    def size(self) -> int:
        return self._first + len(self._types)

    def raw(self, text: str) -> str:
        text = text.lower() if self._lower else text
        return " ".join(text.split()) if self._split == "spaces" else text

    @property
    def raw_is(self) -> str:
        spaces = "with single spaces" if self._split == "spaces" else ""
        return f"the {'lower-cased ' * self._lower}text {spaces}".rstrip() if self._lower or spaces else ""

    def tokens(self, text: str) -> list[str | None]:
        """The text cut up: words, marks, unexpected white space, and None for an unexpected lack of it."""
        text = self.raw(text)
        return list(text.split()) if self._split == "spaces" else spaced(pieces(text))

    def _in_vocabulary(self, text: str) -> list[tuple[int, str]]:
        pairs: list[tuple[int, str]] = []
        for t in self.tokens(text):
            if t is None:
                pairs.append((self.JOIN, ""))
            elif t.isspace() and t not in self._ids:  # a rare run of white space, character by character
                pairs += [(self._ids.get(c, self.UNK), c) for c in t]
            else:
                pairs.append((self._ids.get(t, self.UNK), t))
        return pairs

    def encode(self, text: str) -> list[int]:
        return [i for i, _ in self._in_vocabulary(text)]

    def decoder(self) -> Decoder:
        return _WordDecoder(self._types, self._split)

    def show(self, token: int) -> str:
        return ("<eos>", "<unk>", "<join>")[token] if token < self._first else self._types[token - self._first]

    def spelling_nats(self, text: str) -> float:
        if self._speller is None:
            self._speller = Speller(self._rare or self._types)
        costs: dict[str, float] = {}
        total = 0.0
        for i, t in self._in_vocabulary(text):
            if i == self.UNK:
                if t not in costs:
                    costs[t] = self._speller.nats(t)
                total += costs[t]
        return total

    def unknown(self, text: str) -> dict[str, str]:
        return {t: "<unk>" for i, t in self._in_vocabulary(text) if i == self.UNK}

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "types": self._types, "rare": self._rare, "split": self._split, "lower": self._lower}


class _WordDecoder(Decoder):
    def __init__(self, types: list[str], split: str) -> None:
        self._types, self._spaces = types, split == "spaces"
        self._line = Line()
        self._explicit = True  # the gap before the next token is settled

    def push(self, token: int) -> str:
        if token in (EOS, WordTokenizer.JOIN):
            self._line = Line() if token == EOS else self._line
            self._explicit = True
            return ""
        text = "<unk>" if token == WordTokenizer.UNK else self._types[token - WordTokenizer._first]
        if text.isspace():
            self._explicit = True
            self._line = Line() if "\n" in text else self._line
            return text
        between = "" if self._explicit else " " if self._spaces else self._line.gap(text)
        self._explicit = False
        self._line.add(text)
        return between + text


class BpeTokenizer(Tokenizer):
    """Byte-level byte pairs (Sennrich et al. 2016; byte level as in GPT-2), by the tokenizers library.

    <eos> is not one of the library's added tokens, so that no text can be taken for it.
    """

    kind = "bpe"

    def __init__(self, model: str) -> None:
        from tokenizers import Tokenizer as Library

        self._model = model
        self._library = Library.from_str(model)
        alphabet = {c: byte for byte, c in enumerate(_byte_characters())}
        by_id = sorted(self._library.get_vocab().items(), key=lambda item: item[1])
        self._bytes = [bytes(alphabet[c] for c in token) for token, _ in by_id]

    @property
    def size(self) -> int:
        return 1 + len(self._bytes)

    def encode(self, text: str) -> list[int]:
        return [1 + i for i in self._library.encode(text, add_special_tokens=False).ids]

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


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE (Radford et al. 2019)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def build(texts: list[str], config: TokensConfig) -> Tokenizer:
    """A tokenizer from the texts of the training split.

    Raises:
        InputError: when the text has fewer than two different symbols.
    """
    if len(set("".join(texts))) < 2:
        raise InputError("the training text consists of one symbol only; a language model needs at least two")
    if config.kind == "bpe":
        return _train_bpe(texts, config)
    if config.kind == "char":
        counts = Counter(c for text in texts for c in text)
        room = config.vocab_size - CharTokenizer._first
        kept, _ = _keep(counts, config, room)
        return CharTokenizer(sorted(kept))
    blank = WordTokenizer([], [], config.split, config.lower)
    words = Counter(t for text in texts for t in blank.tokens(text) if t is not None)
    kept, rare = _keep(words, config, config.vocab_size - WordTokenizer._first)
    if len(kept) + bool(rare) < 2:
        raise InputError(
            f"the training text has {len(kept)} words that occur at least {config.min_count} times; a language model needs two "
            "symbols at least: take a lower --min-count, or more text"
        )
    return WordTokenizer(kept, [t for t in rare if not t.isspace()], config.split, config.lower)


def _keep(counts: "Counter[str]", config: TokensConfig, room: int) -> tuple[list[str], list[str]]:
    ranked = sorted(counts, key=lambda t: (-counts[t], t))
    frequent = [t for t in ranked if counts[t] >= config.min_count]
    if config.vocab_size:
        if room < 1:
            raise InputError(f"--vocab-size {config.vocab_size} leaves no room for a type; take at least 20")
        frequent = frequent[:room]
    return frequent, ranked[len(frequent) :]


def _train_bpe(texts: list[str], config: TokensConfig) -> BpeTokenizer:
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=(config.vocab_size or 1000) - 1,
        min_frequency=config.min_count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    return BpeTokenizer(library.to_str())


def from_json(data: dict[str, Any]) -> Tokenizer:
    """The inverse of ``Tokenizer.to_json``."""
    if data["kind"] == "char":
        return CharTokenizer(data["characters"])
    if data["kind"] == "word":
        return WordTokenizer(data["types"], data["rare"], data["split"], data["lower"])
    return BpeTokenizer(json.dumps(data["model"]))
