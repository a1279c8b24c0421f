"""Reads text files as they are, and refuses other files in one sentence."""

import codecs
import stat
from pathlib import Path

from recurrent_lm.lm.base.errors import InputError

MARKS = {  # UTF-32's little-endian mark begins with that of UTF-16, so it comes first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SIGNATURES = {b"%PDF-": "a PDF", b"PK\x03\x04": "a ZIP archive, as .docx and .odt are", b"\x1f\x8b": "a gzip archive"}
SAMPLE = 4096  # bytes from which the encoding is guessed
OFTEN = 0.05  # share of NUL bytes at odd or even places that indicates UTF-16; spaces of Cyrillic text reach it


def read_text(file: Path, encoding: str) -> str:
    """Read a whole file, with its line endings and without a byte order mark.

    Args:
        file: its path.
        encoding: a name that Python knows.

    Returns:
        The text.

    Raises:
        InputError: for a file that cannot be read or decoded, and for content that is no text: archives, devices, NUL bytes.
    """
    return decode(read_bytes(file), file, encoding)


def decode(raw: bytes, file: Path | str, encoding: str) -> str:
    """Decode bytes; ``file`` is their name in errors. See ``read_text``."""
    try:
        codecs.lookup(encoding)
    except (LookupError, ValueError):
        raise InputError(f"--encoding {encoding!r} is not known; try utf-8, latin-1 or cp1252") from None
    for signature, kind in SIGNATURES.items():
        if raw.startswith(signature):
            raise InputError(f"{file} is {kind}, not text; save it as plain text (.txt) first")
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
        text.encode("utf-8")  # fails for lone surrogates, which some encodings accept
    except (UnicodeError, LookupError) as error:
        raise InputError(f"{file} {_undecodable(raw, encoding, error)}") from None
    if "\0" in text:
        looks = looks_like(raw)
        nul = f"{text.index(chr(0))} others"
        mend = f"it looks like {looks}: give --encoding {looks}" if looks else "take them out, or name its --encoding"
        raise InputError(f"{file} is no {encoding} text: it holds NUL characters, the first behind {nul}; {mend}")
    return text


def read_bytes(file: Path) -> bytes:
    """Read all bytes of a regular file.

    Raises:
        InputError: for files that cannot be read, and for pipes and devices, which may not end and cannot be read again.
    """
    try:
        kind = file.stat().st_mode
        raw = file.read_bytes() if stat.S_ISREG(kind) or stat.S_ISDIR(kind) else None
    except (OSError, ValueError) as error:  # a ValueError is a NUL in the name
        raise InputError(f"{file} cannot be read: {getattr(error, 'strerror', error)}") from None
    if raw is None:
        raise InputError(f"{file} is a pipe or a device, which cannot be read twice; save its text to a file first")
    return raw


def looks_like(raw: bytes) -> str:
    """Guess the encoding from a byte order mark or a pattern of NUL bytes; "" if there is none."""
    for mark, name in MARKS.items():
        if raw.startswith(mark):
            return name
    if not any(raw[:SAMPLE]):
        return ""
    a, b, c, d = (raw[i:SAMPLE:4].count(0) for i in range(4))
    fourth = min(len(raw), SAMPLE) // 4
    if min(c, d) >= fourth > 0 or min(a, b) >= fourth > 0:
        return "utf-32-le" if min(c, d) >= fourth else "utf-32-be"
    even, odd = a + c, b + d
    if max(even, odd) <= max(OFTEN * 2 * fourth, 2) or 10 * min(even, odd) > max(even, odd):
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _undecodable(raw: bytes, encoding: str, error: Exception) -> str:
    """The error's reason, its place, and an encoding to try."""
    if not isinstance(error, UnicodeDecodeError):
        return f"cannot be decoded as {encoding}: {' '.join(str(error).split())}; name its encoding with --encoding"
    at = error.start + len(raw) - len(error.object)  # utf-8-sig counts from after the mark
    line = raw.count(b"\n", 0, at) + 1
    where = f"is not {encoding}: byte 0x{raw[at]:02x} at offset {at} (line {line}) cannot be decoded"
    looks = looks_like(raw)
    if looks and codecs.lookup(looks) != codecs.lookup(encoding):
        return f"{where}; it looks like {looks}: give --encoding {looks}"
    return f"{where}; name the file's encoding with --encoding" + ("" if looks else ", for instance latin-1")
