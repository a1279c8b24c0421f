"""What every kind of token offers; the kinds are in ``tokens``."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

EOS = 0  # stands behind each document and is never read from text


class Decoder(ABC):
    """Ids in, text out, as they come: ``push`` what is certain by now, ``flush`` the rest."""

    @abstractmethod
    def push(self, token: int) -> str: ...

    def flush(self) -> str:
        return ""


@dataclass(frozen=True)
class Encoded:
    """A text's token ids; how many of them stand for symbols that the vocabulary lacks, and the nats that spell those."""

    ids: list[int]
    spelling_nats: float
    unknown: int


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

    def read(self, text: str) -> Encoded:
        """``encode``, ``spelling_nats`` and ``unknown_tokens`` in one pass."""
        return Encoded(self.encode(text), self.spelling_nats(text), self.unknown_tokens(text))

    @property
    def known_words(self) -> int | None:
        """How many words and marks have a token of their own; None where tokens are no words."""
        return None

    @abstractmethod
    def decoder(self) -> Decoder: ...

    @abstractmethod
    def show(self, token: int) -> str:
        """One token for people to read."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]: ...

    never: tuple[int, ...] = ()  # ids that stand for no text of their own, so that generation must not draw them
    unknown_ids: tuple[int, ...] = ()  # ids that stand for whatever the vocabulary lacks

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

    def cut(self, text: str) -> list[str]:
        """What each token of ``encode(text)`` stands for; joined they are ``raw(text)``, and "" is a part of a character."""
        ids, decoder = self.encode(text), self.decoder()
        parts = [decoder.push(i) for i in ids]
        return [*parts[:-1], parts[-1] + decoder.flush()] if parts else []

    def unknowns(self, text: str) -> list[str | None]:
        """For each token of ``encode(text)`` the symbol that the vocabulary lacks, or None where it stands for itself."""
        return [None] * len(self.encode(text))

    def unknown(self, text: str) -> dict[str, str]:
        """Symbols of a text that the vocabulary lacks, each with what it is mapped to."""
        return {}

    def unknown_tokens(self, text: str) -> int:
        """How many of a text's tokens stand for symbols that the vocabulary lacks."""
        return 0
