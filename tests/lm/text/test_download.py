"""Corpora on request: what arrives damaged is never kept, and what is kept is checked before it is used."""

import hashlib
import os
import re
import signal
import socket
import socketserver
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import CorpusConfig
from recurrent_lm.lm.text import download
from recurrent_lm.lm.text.corpora import open_corpus
from recurrent_lm.lm.text.download import REMOTE, data_folder, kept, matches, place

TEXT = ("We will make the country great. The people want jobs, and we love the people. " * 150).encode()
SUMS = {
    "robotrump": "sha256:" + hashlib.sha256(TEXT).hexdigest(),
    "obama-rnn": "git:" + hashlib.sha1(b"blob %d\0" % len(TEXT) + TEXT).hexdigest(),
}
NAMES = tuple(SUMS)


class Server(socketserver.ThreadingTCPServer):
    """Answers as the first part of the path says, and counts the requests."""

    allow_reuse_address = daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = 0
        self.over = threading.Event()

    def url(self, how: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{how}/source.txt"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self.server.requests += 1
        self.close_connection = True
        getattr(self, self.path.split("/")[1])()

    def send(self, body: bytes, code: int = 200, length: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def good(self) -> None:
        self.send(TEXT)

    def moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.server.url("good"))
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")  # or the client may try this connection again just before it closes
        self.end_headers()

    def corrupt(self) -> None:
        self.send(TEXT[:-1] + b"?")

    def longer(self) -> None:
        self.send(TEXT + b"\n")

    def empty(self) -> None:
        self.send(b"")

    def page(self) -> None:
        self.send(b"<html>Please log in to this network.</html>")

    def short(self) -> None:
        self.send(TEXT[: len(TEXT) // 2], length=len(TEXT))

    def reset(self) -> None:
        self.send(TEXT[: len(TEXT) // 2], length=len(TEXT))
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def closed(self) -> None:
        """Without a length, a transfer that breaks off looks complete."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(TEXT[: len(TEXT) // 2])

    def chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"100\r\n" + TEXT[:256] + b"\r\n100\r\n" + TEXT[:10])

    def missing(self) -> None:
        self.send(b"404: Not Found", 404)

    def failing(self) -> None:
        self.send(TEXT, 500)

    def silent(self) -> None:
        self.server.over.wait(600)

    def stalled(self) -> None:
        self.send(TEXT[:1000], length=len(TEXT))
        self.server.over.wait(600)

    def interrupted(self) -> None:
        self.send(TEXT[: len(TEXT) // 2], length=len(TEXT))
        os.kill(os.getpid(), signal.SIGINT)
        self.server.over.wait(600)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, and nothing between this process and 127.0.0.1."""
    monkeypatch.setenv("LM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "data"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Server]]:
    """``serve(how)``: both corpora are TEXT and come from a server that answers so."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def start(how: str) -> Server:
            for name, checksum in SUMS.items():
                monkeypatch.setitem(REMOTE, name, replace(REMOTE[name], url=server.url(how), checksum=checksum))
            return server

        yield start
        server.over.set()
        server.shutdown()
        thread.join()


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


# -- checksums ------------------------------------------------------------------------------------------------------


def test_checksums_by_hand() -> None:
    # what git hash-object and sha256sum say
    assert matches(b"", "git:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    assert matches(b"hello\n", "git:ce013625030ba8dba906f756967f9e9ca394464a")
    assert matches(b"hello\n", "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03")
    assert not matches(b"hello", "git:ce013625030ba8dba906f756967f9e9ca394464a")
    assert not matches(b"hello", "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03")


@pytest.mark.parametrize("name", NAMES)
def test_each_corpus_is_pinned_to_a_commit_over_a_safe_connection(name: str) -> None:
    host, owner, repository, commit, file = REMOTE[name].url.removeprefix("https://").split("/")
    assert host == "raw.githubusercontent.com"
    assert (owner, repository, file) == {
        "robotrump": ("ppramesi", "RoboTrumpDNN", "source.txt"),
        "obama-rnn": ("samim23", "obama-rnn", "input.txt"),
    }[name]
    assert len(bytes.fromhex(commit)) == 20
    kind, digest = REMOTE[name].checksum.split(":")
    assert (kind, len(bytes.fromhex(digest))) == {"robotrump": ("sha256", 32), "obama-rnn": ("git", 20)}[name]


# -- what goes well -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["good", "moved"])
@pytest.mark.parametrize("name", NAMES)
def test_a_download_can_be_used_by_name(data: Path, serve: Any, lm_command: Any, name: str, how: str) -> None:
    serve(how)
    remote = REMOTE[name]
    code, out, err = lm_command("corpora", "download", name)
    assert (code, err) == (0, "")
    for part in (remote.what, remote.url, remote.rights, str(data / f"{name}.txt"), f"lm train {name}"):
        assert part in out
    assert files(data) == [f"{name}.txt"]
    assert place(name).read_bytes() == TEXT
    assert stat.S_IMODE(place(name).stat().st_mode) == 0o644, "others may read a shared folder"
    corpus = open_corpus(CorpusConfig(source=name))
    assert (corpus.name, corpus.citation) == (name, remote.citation)
    assert corpus.documents == [(f"{name}.txt", TEXT.decode())]
    assert remote.rights in lm_command("corpora", "show", name)[1]
    listed = {line.split()[0]: line for line in lm_command("corpora", "list")[1].splitlines()}
    assert "not downloaded" not in listed[name]


def test_a_downloaded_corpus_is_trained_on_by_name(tmp_path: Path, serve: Any, lm_command: Any, flags: Any) -> None:
    serve("good")
    assert "lm corpora download robotrump" in lm_command("train", "robotrump", "--run", tmp_path / "run")[2]
    assert lm_command("corpora", "download", "robotrump")[0] == 0
    assert lm_command("train", "robotrump", "--run", tmp_path / "run", "--quiet", *flags(max_steps=1))[0] == 0
    assert 'source = "robotrump"' in (tmp_path / "run" / "config.toml").read_text()
    assert REMOTE["robotrump"].citation in (tmp_path / "run" / "about.json").read_text()


def test_nothing_is_fetched_twice(serve: Any, lm_command: Any) -> None:
    server = serve("good")
    lm_command("corpora", "download", "robotrump")
    code, out, _ = lm_command("corpora", "download", "robotrump")
    assert code == 0
    assert "here already" in out
    assert server.requests == 1


def test_another_folder_may_be_named(tmp_path: Path, data: Path, serve: Any, lm_command: Any) -> None:
    serve("good")
    other = tmp_path / "a" / "b"
    code, out, _ = lm_command("corpora", "download", "obama-rnn", "--to", other)
    assert code == 0
    assert f"lm train {other / 'obama-rnn.txt'}" in out
    assert (files(other), files(data)) == (["obama-rnn.txt"], [])
    assert "lm train robotrump" in lm_command("corpora", "download", "robotrump", "--to", data)[1]


def test_the_data_folder_is_the_users_cache_where_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LM_DATA", "~/mine")
    assert data_folder() == tmp_path / "mine"
    monkeypatch.setenv("LM_DATA", "")
    assert tmp_path in data_folder().parents
    assert "recurrent-lm" in str(data_folder())


# -- a copy that the user has ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_checked_and_kept_without_a_network(
    tmp_path: Path, data: Path, serve: Any, lm_command: Any, refused: Any, name: str
) -> None:
    server = serve("good")
    copy = tmp_path / "copy.txt"
    copy.write_bytes(TEXT[:-1])
    message = refused("corpora", "download", name, "--from", copy)
    assert f"{copy} is not the file of" in message
    assert SUMS[name].partition(":")[2] in message
    assert files(data) == []
    copy.write_bytes(TEXT)
    assert lm_command("corpora", "download", name, "--from", copy)[0] == 0
    assert kept(name).read_bytes() == TEXT
    assert server.requests == 0
    assert copy.read_bytes() == TEXT


@pytest.mark.parametrize(("path", "words"), [("none.txt", "No such file"), ("/", "a directory"), ("/dev/null", "a device")])
def test_a_copy_that_is_no_file_is_refused(data: Path, serve: Any, refused: Any, path: str, words: str) -> None:
    serve("good")
    message = refused("corpora", "download", "robotrump", "--from", path)
    assert path in message
    assert words in message
    assert files(data) == []


# -- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("corrupt", "is not {digest}; nothing was kept"),
        ("longer", "is not {digest}; nothing was kept"),
        ("empty", "is not {digest}; nothing was kept"),
        ("page", "is not {digest}; nothing was kept"),
        ("closed", "is not {digest}; nothing was kept"),
        ("short", "the transfer broke off"),
        ("reset", "the transfer broke off|no connection, or it was lost"),
        ("chunked", "the transfer broke off"),
        ("missing", "the server answered 404 Not Found"),
        ("failing", "the server answered 500 Internal Server Error"),
    ],
    ids=lambda v: v if " " not in v else "",
)
def test_what_arrives_damaged_is_a_sentence_and_leaves_nothing(
    data: Path, serve: Any, lm_command: Any, refused: Any, name: str, how: str, words: str
) -> None:
    serve(how)
    message = refused("corpora", "download", name)
    assert re.search(words.format(digest=SUMS[name].partition(":")[2]), message)
    assert REMOTE[name].url in message
    assert f"lm corpora download {name} --from FILE, or lm train FILE" in message
    assert files(data) == []
    assert "is not downloaded yet" in refused("train", name)
    serve("good")
    assert lm_command("corpora", "download", name)[0] == 0, "the way is free for another attempt"


@pytest.mark.parametrize(
    ("how", "words"), [("silent", "no answer within 0.2 seconds"), ("stalled", "no connection, or it was lost")]
)
def test_a_server_that_says_no_more_is_a_sentence(
    data: Path, serve: Any, refused: Any, monkeypatch: pytest.MonkeyPatch, how: str, words: str
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    serve(how)
    assert words in refused("corpora", "download", "robotrump")
    assert files(data) == []


def test_no_network_is_a_sentence(data: Path, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/source.txt"
        monkeypatch.setitem(REMOTE, "robotrump", replace(REMOTE["robotrump"], url=url))
        message = refused("corpora", "download", "robotrump")
    for part in ("robotrump.txt", url, "no connection", "--from FILE"):
        assert part in message
    assert files(data) == []


def test_an_interrupt_leaves_nothing(data: Path, serve: Any, lm_command: Any) -> None:
    serve("interrupted")
    code, _, err = lm_command("corpora", "download", "robotrump")
    assert code == 130
    assert "Traceback" not in err
    assert files(data) == []


@pytest.mark.parametrize("content", [TEXT[:-1], TEXT + b" ", b""])
@pytest.mark.parametrize("name", NAMES)
def test_damage_is_noticed_before_use_and_nothing_is_overwritten(
    data: Path, serve: Any, refused: Any, name: str, content: bytes
) -> None:
    server = serve("good")
    data.mkdir()
    place(name).write_bytes(content)
    for command in (("train", name), ("corpora", "show", name), ("corpora", "download", name)):
        message = refused(*command)
        assert f"{place(name)} is damaged or another file" in message
        assert f"remove it, then: lm corpora download {name}" in message
    assert place(name).read_bytes() == content
    assert server.requests == 0


@pytest.mark.parametrize("name", ["obama", "lincoln", "../robotrump"])
def test_other_names_cannot_be_downloaded(data: Path, refused: Any, name: str) -> None:
    assert f"{name!r} cannot be downloaded; robotrump and obama-rnn can" in refused("corpora", "download", name)
    assert files(data) == []


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, serve: Any, refused: Any) -> None:
    serve("good")
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "inner"):
        message = refused("corpora", "download", "robotrump", "--to", folder)
        assert f"{folder / 'robotrump.txt'} cannot be written" in message
        assert "--to" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    data: Path, serve: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("good")

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, os.strerror(28), str(path))

    (data.parent / "copy.txt").write_bytes(TEXT)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert "cannot be written: No space left" in refused("corpora", "download", "robotrump", "--from", data.parent / "copy.txt")
    assert files(data) == []


def test_a_corpus_that_is_known_but_not_here_says_so() -> None:
    with pytest.raises(InputError, match=r"^robotrump is not downloaded yet: lm corpora download robotrump$"):
        open_corpus(CorpusConfig(source="robotrump"))
