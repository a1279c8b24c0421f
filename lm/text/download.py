"""Corpora that are downloaded once on request, from a fixed commit, and checked before they are kept and before each use."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.storage import digest
from recurrent_lm.lm.text.files import read_bytes

FOLDER = "LM_DATA"  # the environment variable that names another folder than the user's cache
TIMEOUT = 30.0  # seconds without an answer
REASONS = {
    "Timeout": "no answer within {:g} seconds",
    "SSLError": "the server's certificate is not trusted here",
    "ProxyError": "the proxy cannot be reached or refuses",
    "ChunkedEncodingError": "the transfer broke off",
}


@dataclass(frozen=True)
class Remote:
    """A file of a public repository at one commit.

    ``checksum`` is "sha256:" and the file's SHA-256, or "git:" and its blob id: SHA-1 of b"blob <length>\\0" and the file.
    """

    what: str
    url: str
    checksum: str
    rights: str

    @property
    def citation(self) -> str:
        return f"Text: {self.url}; {self.rights}"


REMOTE = {
    "robotrump": Remote(
        "Donald J. Trump's campaign speeches, the lecture's corpus",
        "https://raw.githubusercontent.com/ppramesi/RoboTrumpDNN/c217e1d3d1eb5865ac99d88c6487b7aa3262bf99/source.txt",
        "sha256:faf39d2e72c13c09511b5f52535cddbe4003e4c1152dac5ae816f8bb11a8f4e1",
        "that repository's LICENSE.md is in the style of zlib's; campaign speeches are no works of the federal government, so "
        "do not pass the file on.",
    ),
    "obama-rnn": Remote(
        "Barack Obama's speeches, as collected for the Obama-RNN",
        "https://raw.githubusercontent.com/samim23/obama-rnn/10248ee07440125e1e3ea3bd07f4b3b4b6b54131/input.txt",
        "git:11ec5f013964d47a45c55dbc3c9cefd71a6e3172",
        "that repository's README states no licence, and the rights of the text are not known here; do not pass the file on.",
    ),
}


def data_folder() -> Path:
    """The folder of downloaded corpora: $LM_DATA, otherwise the user's cache folder."""
    if named := os.environ.get(FOLDER):
        return Path(named).expanduser()
    import pooch

    return Path(pooch.os_cache("recurrent-lm"))


def place(name: str) -> Path:
    """The path of a downloaded corpus, whether it exists or not."""
    return data_folder() / f"{name}.txt"


def kept(name: str) -> Path:
    """The file of a downloaded corpus, after a check of its content.

    Raises:
        InputError: if it was not downloaded, or is damaged.
    """
    path = place(name)
    if not os.path.lexists(path):
        raise InputError(f"{name} is not downloaded yet: lm corpora download {name}")
    _check(path, name)
    return path


def matches(raw: bytes, checksum: str) -> bool:
    """Whether the bytes have this ``Remote.checksum``."""
    kind, _, expected = checksum.partition(":")
    if kind == "git":
        return hashlib.sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest() == expected
    return digest(raw) == expected


def download(name: str, folder: Path | None = None, source: Path | None = None) -> tuple[Path, bool]:
    """Fetch a corpus, or take it from a copy.

    The file gets its name after its checksum was verified; until then nothing is kept. Existing files are not overwritten.

    Args:
        name: a key of ``REMOTE``.
        folder: where to keep it; None takes ``data_folder()``.
        source: a copy to take instead of a download.

    Returns:
        The file, and whether it is new.

    Raises:
        InputError: for an unknown name, a wrong file, and a transfer or a folder that fails.
    """
    if name not in REMOTE:
        raise InputError(f"{name!r} cannot be downloaded; {' and '.join(REMOTE)} can, see lm corpora list")
    path = (folder or data_folder()) / f"{name}.txt"
    if os.path.lexists(path):
        _check(path, name)
        return path, False
    copy = read_bytes(source) if source else None
    if copy is not None and not matches(copy, REMOTE[name].checksum):
        raise InputError(f"{source} is not the file of {REMOTE[name].url}: its {_wrong(name)}; as a text: lm train {source}")
    _keep(path, name, copy)
    return path, True


def _keep(path: Path, name: str, copy: bytes | None) -> None:
    import pooch
    import requests

    remote = REMOTE[name]

    def transfer(url: str, output: str, _: object) -> None:
        """Write the temporary file, which pooch renames when this returns and removes when it raises."""
        if copy is None:
            pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=2**16)(url, output, None)
        else:
            Path(output).write_bytes(copy)
        if not matches(Path(output).read_bytes(), remote.checksum):
            raise InputError(f"what {url} sent is not {name}: its {_wrong(name)}; nothing was kept, {_instead(name)}")
        Path(output).chmod(0o644)  # temporary files are private, and a data folder may be shared

    pooch.get_logger().setLevel("WARNING")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # pooch checks plain hashes only, so transfer checks
        pooch.retrieve(remote.url, None, fname=path.name, path=path.parent, downloader=transfer)
    except requests.RequestException as error:
        raise InputError(f"{path.name} cannot be fetched from {remote.url}: {_why(error)}; {_instead(name)}") from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be written: {reason}; choose another folder with --to or ${FOLDER}") from None


def _check(path: Path, name: str) -> None:
    if not matches(read_bytes(path), REMOTE[name].checksum):
        raise InputError(f"{path} is damaged or another file: its {_wrong(name)}; remove it, then: lm corpora download {name}")


def _wrong(name: str) -> str:
    kind, _, expected = REMOTE[name].checksum.partition(":")
    return f"{'git blob id' if kind == 'git' else 'SHA-256'} is not {expected}"


def _instead(name: str) -> str:
    return f"if you have that file: lm corpora download {name} --from FILE, or lm train FILE"


def _why(error: Exception) -> str:
    """The reason of a failed transfer in a few words."""
    if (answer := getattr(error, "response", None)) is not None:
        return f"the server answered {answer.status_code} {answer.reason}"
    kinds = {kind.__name__ for kind in type(error).__mro__}  # of requests
    return next((reason for kind, reason in REASONS.items() if kind in kinds), "no connection, or it was lost").format(TIMEOUT)
