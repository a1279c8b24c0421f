"""A text file as it is, or one sentence that says why it is none."""

import errno
import gzip
import os
import threading
import zipfile
from pathlib import Path

import pytest

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.text.files import looks_like, read_bytes, read_text


def written(folder: Path, raw: bytes) -> Path:
    path = folder / "talk.txt"
    path.write_bytes(raw)
    return path


# --- encodings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "encoding", "byte", "offset", "line"),
    [
        (b"one\ntw\xe9\n", "utf-8", "0xe9", 6, 2),
        (b"\xff", "utf-8", "0xff", 0, 1),
        (b"a\r\nb\r\n\r\nc\x80", "utf-8", "0x80", 9, 4),
        (b"\xef\xbb\xbfab\xff", "utf-8", "0xff", 5, 1),
        (b"ok\n\xe9", "ascii", "0xe9", 3, 2),
        (b"one\n\x81", "cp1252", "0x81", 4, 2),
        ("ab\n".encode("utf-16") + b"x", "utf-16", "0x78", 8, 2),
    ],
)
def test_undecodable_bytes_are_named_with_their_place(
    tmp_path: Path, raw: bytes, encoding: str, byte: str, offset: int, line: int
) -> None:
    with pytest.raises(InputError) as error:
        read_text(written(tmp_path, raw), encoding)
    message = str(error.value)
    for part in ("talk.txt", f"not {encoding}", f"byte {byte} at offset {offset} (line {line})", "--encoding"):
        assert part in message


def test_the_place_is_right_behind_a_mark_that_the_codec_drops(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="byte 0xff at offset 5 "):
        read_text(written(tmp_path, b"\xef\xbb\xbfab\xff"), "utf-8-sig")


@pytest.mark.parametrize(
    ("raw", "encoding", "text"),
    [
        (b"caf\xe9 \x80", "latin-1", "café \x80"),
        (b"caf\xe9 \x80", "cp1252", "café €"),
        (b"\xef\xbb\xbfcaf\xc3\xa9", "utf-8", "café"),
        (b"\xef\xbb\xbfcaf\xc3\xa9", "utf-8-sig", "café"),
        ("café 🙂".encode("utf-16"), "utf-16", "café 🙂"),
        ("\ufeffcafé".encode("utf-16-le"), "utf-16-le", "café"),
        (b"a\xef\xbb\xbfb", "utf-8", "a\ufeffb"),
        (b"one\r\ntwo\rthree\n", "utf-8", "one\r\ntwo\rthree\n"),
        (b"odd \x01 \x0c \xe2\x80\xa8", "utf-8", "odd \x01 \x0c \u2028"),
    ],
)
def test_text_is_read_as_it_is(tmp_path: Path, raw: bytes, encoding: str, text: str) -> None:
    assert read_text(written(tmp_path, raw), encoding) == text


@pytest.mark.parametrize("encoding", ["utf-9", "", "klingon", "a\0b"])
def test_an_unknown_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(InputError, match=r"--encoding .* is not known"):
        read_text(written(tmp_path, b"text"), encoding)


@pytest.mark.parametrize("encoding", ["rot13", "base64", "undefined"])
def test_a_codec_that_is_no_text_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(InputError, match=f"cannot be decoded as {encoding}.*--encoding"):
        read_text(written(tmp_path, b"text"), encoding)


def test_lone_surrogates_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"talk\.txt cannot be decoded"):
        read_text(written(tmp_path, b"a\\ud800b"), "raw_unicode_escape")


LATIN, CYRILLIC, CHINESE = "We want jobs. " * 40, "Мы хотим мира и работы. " * 30, "我们要工作。\n" * 40
UNICODE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("text", [LATIN, CYRILLIC, CHINESE, "été"], ids=["latin", "cyrillic", "chinese", "short"])
def test_wide_encodings_are_recognised(text: str, encoding: str) -> None:
    assert looks_like(text.encode(encoding)) == encoding


@pytest.mark.parametrize("mark", ["utf-16-be", "utf-32-be"])
def test_both_orders_of_a_mark_are_recognised(mark: str) -> None:
    assert looks_like("\ufeffab".encode(mark)) == mark.removesuffix("-be")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"ab",
        b"ab\x00",
        b"stray \x00 and \x00",
        b"\x00" * 5000,
        LATIN.encode(),
        CYRILLIC.encode(),
        b"a\x00b\x00\x00c\x00d" * 50,
    ],
    ids=["empty", "two", "nul at the end", "two stray", "zeros", "latin", "cyrillic", "binary"],
)
def test_other_bytes_are_not_taken_for_wide_encodings(raw: bytes) -> None:
    assert looks_like(raw) == ""


@pytest.mark.parametrize("given", ["utf-8", "latin-1"])
@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("text", [LATIN, CYRILLIC], ids=["latin", "cyrillic"])
def test_wide_text_is_refused_with_its_encoding_and_read_with_it(tmp_path: Path, text: str, encoding: str, given: str) -> None:
    file = written(tmp_path, text.encode(encoding))
    with pytest.raises(InputError, match=rf"talk\.txt is no.* {given}.*it looks like {encoding}: give --encoding {encoding}$"):
        read_text(file, given)
    assert read_text(file, encoding) == text


def test_chinese_without_nul_is_known_by_its_mark(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"byte 0xff at offset 0 .* give --encoding utf-16$"):
        read_text(written(tmp_path, "我们要工作".encode("utf-16")), "utf-8")


def test_no_encoding_is_advised_that_has_failed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not UTF-16: .*; name the file's encoding with --encoding$"):
        read_text(written(tmp_path, LATIN.encode("utf-16") + b"x"), "UTF-16")


def test_latin_1_is_advised_for_other_bytes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"for instance latin-1$"):
        read_text(written(tmp_path, "été".encode("latin-1")), "utf-8")


@pytest.mark.parametrize(
    ("raw", "encoding"), [(b"caf\xc3\xa9\x00 au lait", "utf-8"), (b"caf\xe9\x00", "latin-1"), (b"cafe+AAA-", "utf-7")]
)
def test_nul_characters_are_named_with_their_place(tmp_path: Path, raw: bytes, encoding: str) -> None:
    with pytest.raises(
        InputError, match=rf"no {encoding} text: it holds NUL characters, the first behind 4 others; take them out"
    ):
        read_text(written(tmp_path, raw), encoding)


# --- what is no text file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_archives_and_pdfs_are_named(tmp_path: Path, encoding: str) -> None:
    with zipfile.ZipFile(tmp_path / "talk.docx", "w") as archive:
        archive.writestr("word/document.xml", "<w:t>jobs</w:t>")
    for raw, kind in (
        (b"%PDF-1.7\njobs", "a PDF"),
        (gzip.compress(b"jobs"), "a gzip archive"),
        ((tmp_path / "talk.docx").read_bytes(), "a ZIP archive, as .docx and .odt are"),
    ):
        with pytest.raises(InputError, match=rf"talk\.txt is {kind}, not text; save it as plain text"):
            read_text(written(tmp_path, raw), encoding)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_text(tmp_path, "utf-8")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt cannot be read: No such file"):
        read_bytes(tmp_path / "none.txt")


def test_a_name_with_a_nul_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be read: embedded null"):
        read_bytes(Path("a\0b"))


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, b"text")

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    with pytest.raises(InputError, match=r"talk\.txt cannot be read: Permission denied$"):
        read_text(file, "utf-8")


def test_a_device_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/null is a pipe or a device"):
        read_text(Path("/dev/null"), "utf-8")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    answers: list[str] = []

    def read() -> None:
        with pytest.raises(InputError) as error:
            read_text(tmp_path / "pipe", "utf-8")
        answers.append(str(error.value))

    reader = threading.Thread(target=read, daemon=True)  # a read would wait for a writer for ever
    reader.start()
    reader.join(10)
    assert len(answers) == 1
    assert "a pipe or a device" in answers[0]
