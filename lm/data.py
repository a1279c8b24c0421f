"""A corpus made ready for a model: its tokenizer and its three streams."""

import hashlib
from dataclasses import dataclass

from lm import streams
from lm.config import RunConfig
from lm.corpora import Corpus, open_corpus
from lm.errors import InputError
from lm.streams import Stream
from lm.tokens import Tokenizer, build


@dataclass(frozen=True)
class Data:
    corpus: Corpus
    tokenizer: Tokenizer
    train: Stream
    valid: Stream
    test: Stream

    def fingerprint(self) -> str:
        """SHA-256 of the three streams of ids: the same text through the same tokenizer."""
        digest = hashlib.sha256()
        for stream in (self.train, self.valid, self.test):
            digest.update(stream.ids.tobytes() + b"|")
        return digest.hexdigest()


def prepare(config: RunConfig, tokenizer: Tokenizer | None = None) -> Data:
    """Read, split and encode the corpus; the tokenizer is built from the training split where none is given."""
    corpus = open_corpus(config.corpus)
    splits = corpus.splits()
    tokenizer = tokenizer or build([piece.text for piece in splits["train"]], config.tokens)
    parts = {name: streams.encode(pieces, tokenizer, corpus.eos_bytes) for name, pieces in splits.items()}
    if empty := [name for name, stream in parts.items() if not len(stream.ids)]:
        raise InputError(f"the {empty[0]} text holds no token, only white space; give it some text")
    return Data(corpus, tokenizer, **parts)
