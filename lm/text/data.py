"""A corpus prepared for a model: its tokenizer and its three streams."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.storage import digest
from recurrent_lm.lm.config import CorpusConfig, RunConfig
from recurrent_lm.lm.text import batches as streams
from recurrent_lm.lm.text.batches import Stream
from recurrent_lm.lm.text.corpora import NAMES, Corpus, open_corpus
from recurrent_lm.lm.text.tokens import Tokenizer, build


@dataclass(frozen=True)
class Data:
    corpus: Corpus
    tokenizer: Tokenizer
    train: Stream
    valid: Stream
    test: Stream

    def fingerprint(self) -> str:
        """SHA-256 of the three streams of ids: equal for the same text and tokenizer."""
        splits = (self.train, self.valid, self.test)
        return digest(*(part for stream in splits for part in (stream.ids.data, b"|")))


def prepare(config: RunConfig, tokenizer: Tokenizer | None = None) -> Data:
    """Read, split and encode a corpus.

    Args:
        config: where the text is, and what a token is.
        tokenizer: of a former run; None builds one from the training split.

    Returns:
        The corpus, its tokenizer, and the three splits as streams of ids.

    Raises:
        InputError: for a text that cannot be read, and for a split without tokens.
    """
    corpus = open_corpus(config.corpus)
    return encoded(corpus, tokenizer or build([piece.text for piece in corpus.splits()["train"]], config.tokens))


def encoded(corpus: Corpus, tokenizer: Tokenizer) -> Data:
    """Encode the splits of a corpus.

    Raises:
        InputError: for a split without tokens.
    """
    splits = corpus.splits()
    parts = {name: streams.encode(pieces, tokenizer, corpus.eos_bytes) for name, pieces in splits.items()}
    if empty := [name for name, stream in parts.items() if not len(stream.ids)]:
        raise InputError(f"the {empty[0]} text holds no token, only white space; give it some text")
    return Data(corpus, tokenizer, **parts)


def moved(config: CorpusConfig, place: str) -> CorpusConfig:
    """Settings of the same text at another place.

    Args:
        config: the former settings.
        place: a file or a folder; "" changes nothing. A text in three files is expected in a folder that holds them as their
            former folder did.

    Returns:
        The new settings.
    """
    if not place:
        return config
    if not config.train_file:
        return replace(config, source=place if place in NAMES else str(Path(place).resolve()))
    train, valid, test = config.train_file, config.valid_file, config.test_file
    former = Path(os.path.commonpath([Path(file).parent for file in (train, valid, test)]))
    new = {file: str(Path(place).resolve() / Path(file).relative_to(former)) for file in (train, valid, test)}
    return replace(config, train_file=new[train], valid_file=new[valid], test_file=new[test])


def missing(config: CorpusConfig) -> str:
    """The first path of a corpus that does not exist; "" if all exist."""
    named = [] if config.source in NAMES else [config.source]
    for path in filter(None, (*named, config.train_file, config.valid_file, config.test_file)):
        try:
            Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return path
        except (OSError, ValueError):  # ``open_corpus`` says why
            continue
    return ""


def open_moved(config: CorpusConfig, run: Path, place: str = "", option: str = "--corpus PATH") -> Corpus:
    """Open the corpus that a run was trained on.

    Args:
        config: the run's settings.
        run: the run folder, named in errors.
        place: where the text is now, if it was moved.
        option: the option that gives ``place``, named in errors.

    Returns:
        The corpus.

    Raises:
        InputError: if it is missing or cannot be read.
    """
    config = moved(config, place)
    if gone := missing(config):
        advice = "give the place where it is now" if place else "if it was moved, name its new place"
        raise InputError(f"the training text of {run} is not at {gone}; {advice} with {option}")
    return open_corpus(config)


def trained_on(
    config: RunConfig,
    tokenizer: Tokenizer,
    run: Path,
    meta: dict[str, Any],
    place: str = "",
    option: str = "--corpus PATH",
) -> Data:
    """Read the data that a run was trained on.

    Args:
        config: the run's settings.
        tokenizer: the run's tokenizer.
        run: the run folder, named in errors.
        meta: the record of the run's checkpoint, with the digest of its data.
        place: where the text is now, if it was moved.
        option: the option that gives ``place``, named in errors.

    Returns:
        The run's corpus, tokenizer and streams.

    Raises:
        InputError: if the text is missing, or the one at ``place`` has another digest.
    """
    data = encoded(open_moved(config.corpus, run, place, option), tokenizer)
    if place and meta.get("data") != data.fingerprint():
        raise InputError(f"{place} is not the text that {run} was trained on; give an unchanged copy of that with {option}")
    return data
