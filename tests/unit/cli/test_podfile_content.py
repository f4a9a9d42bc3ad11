"""What files of a podfile hold: read from this host and over HTTP, bounded, and refused with the reason."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hypercontainer.cli.podfile import content
from hypercontainer.errors import InvalidRequest

LIMIT = 1000


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        match self.path:
            case "/hello":
                self.answer(200, b"hello")
            case "/away":
                self.send_response(302)
                self.send_header("Location", "/hello")
                self.end_headers()
            case "/file":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            case "/large":
                self.answer(200, b"x" * (LIMIT + 1))
            case "/cut":
                self.send_response(200)
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(b"short")
            case _:
                self.answer(404, b"")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the test's stderr."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_http_is_fetched_and_redirects_are_followed(site: str) -> None:
    assert content.fetch(f"{site}/hello", Path("/"), LIMIT) == b"hello"
    assert content.fetch(f"{site}/away", Path("/"), LIMIT) == b"hello"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nothing", "answers 404 Not Found"),
        ("/large", "is too large: the files of a pod may have 16 MiB in all"),
        ("/file", "answers 302"),
        ("/cut", "cannot fetch .*: 95 bytes are missing at its end"),
    ],
)
def test_what_a_server_does_wrong_is_told(site: str, path: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^'{re.escape(site + path)}' {message}|^{message}"):
        content.fetch(site + path, Path("/"), LIMIT)


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(InvalidRequest, match=r"cannot fetch 'http://127\.0\.0\.1:1/': Connection refused"):
        content.fetch("http://127.0.0.1:1/", Path("/"), LIMIT)


@pytest.mark.parametrize(
    "uri", ["file://{0}/a%20b", "file://localhost{0}/a%20b", "file://./a b", "file://sub/../a b"]
)
def test_files_are_absolute_or_relative_to_the_podfile(uri: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b").write_bytes(b"here")
    assert content.fetch(uri.format(tmp_path), tmp_path, LIMIT) == b"here"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///nowhere", "cannot read '/nowhere': No such file"),
        ("file:///tmp", "cannot read '/tmp': Is a directory"),
        ("file:///dev/zero", "is not a regular file"),
        ("ftp://localhost/a", "not supported as a URI"),
        ("/etc/hosts", "not supported as a URI"),
        ("file:///a%00b", "cannot read"),
        ("http://[1", "is no URI"),
        ("http://a b/", "cannot fetch"),
    ],
)
def test_a_uri_that_cannot_be_read_is_told(uri: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        content.fetch(uri, Path("/"), LIMIT)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidRequest, match="not a regular file"):
        content.fetch("file://fifo", tmp_path, LIMIT)


def test_a_file_is_read_to_its_limit_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * LIMIT)
    assert len(content.fetch("file://f", tmp_path, LIMIT)) == LIMIT
    with pytest.raises(InvalidRequest, match="too large"):
        content.fetch("file://f", tmp_path, LIMIT - 1)


@pytest.mark.parametrize(
    "text", ["YQ", "YQ=", "YQ==a", "YQ==YQ==", "YR==", "Y Q = =x", "*", "VsbG8sDQpoeXBlciENCg="]
)
def test_base64_that_is_not_quite_right_is_corrupt(text: str) -> None:
    with pytest.raises(InvalidRequest, match="corrupt base64"):
        content.decoded(text.encode(), "base64")
