"""The client against daemons that are absent, broken or slow, and what it costs to import."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hypercontainer.api.messages import Body, Stream
from hypercontainer.api.routing import Routes
from hypercontainer.api.streaming import progress_lines
from hypercontainer.client import Client, Record
from hypercontainer.errors import HyperError, ImageNotFound, InvalidRequest, Unavailable
from hypercontainer.images.progress import Progress
from hypercontainer.model import rest
from tests.api.serving import serving


def test_importing_the_client_brings_in_nothing_heavy() -> None:
    program = "import sys, hypercontainer.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"asyncio", "msgspec", "h11", "http.client", "subprocess", "threading", "httpx", "tomllib"}
    assert not heavy & set(loaded.stdout.split())


def test_no_field_of_a_view_is_hidden_by_a_method_of_records() -> None:
    views = [kind for kind in vars(rest).values() if isinstance(kind, type) and issubclass(kind, rest.View)]
    fields = {name for view in views for name in view.__struct_fields__}
    assert len(views) > 10
    assert not fields & set(dir(Record))


def test_a_daemon_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer at"):
        Client(tmp_path / "none.sock").pods.list()


@pytest.mark.needs_root
@pytest.mark.skipif(os.geteuid() != 0, reason="not on this host: only root can be two users")
def test_a_daemon_of_a_stranger_is_not_trusted(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "strange.sock"))
        os.seteuid(65534)
        try:
            listener.listen()  # whose credentials the socket then has, unix(7)
        finally:
            os.seteuid(0)
        with pytest.raises(Unavailable, match="run by another user"):
            Client(tmp_path / "strange.sock").pods.list()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "is not hyperd"),
        (b"x" * (1 << 20), "is not hyperd"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "in the middle of an answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "in the middle of an answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{nope", "cannot be read"),
    ],
)
def test_an_answer_that_is_none_is_unavailable(tmp_path: Path, answer: bytes, message: str) -> None:
    with answering(tmp_path, answer) as client, pytest.raises(Unavailable, match=message):
        client.pods.list()


def test_an_error_without_a_view_is_told_by_its_status(tmp_path: Path) -> None:
    bad_gateway = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops"
    with answering(tmp_path, bad_gateway) as client, pytest.raises(HyperError, match="status 502"):
        client.pods.list()


def test_a_daemon_that_says_nothing_is_given_up_when_there_is_a_limit(tmp_path: Path) -> None:
    with silent(tmp_path) as path, pytest.raises(Unavailable, match=r"within 0\.2 s"):
        Client(path, timeout_s=0.2).system.ping()


class answering:
    """A daemon that gives every client the same bytes."""

    def __init__(self, directory: Path, answer: bytes) -> None:
        self._path = directory / "odd.sock"
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(1 << 16)
            try:
                connection.sendall(self._answer)
            except BrokenPipeError:
                pass

    def __enter__(self) -> Client:
        self._thread.start()
        return Client(self._path)

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()


class silent:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "silent.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, *_: object) -> None:
        self._listener.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    routes = Routes()

    @routes.post("/v1/images/load")
    async def load(_: object, body: Body) -> Stream:
        return await progress_lines(_count(body))

    @routes.post("/v1/images/import")
    async def import_image(_: object, body: Body, *, change: tuple[str, ...] = ()) -> Stream:
        first = await anext(aiter(body))
        raise InvalidRequest(f"no tar: {first[:4]!r} {change}")

    @routes.post("/v1/images/pull")
    async def pull(_: object, *, reference: str) -> Stream:
        return await progress_lines(_pull(reference))

    with serving(tmp_path, routes) as server:
        yield Client(server.path)


async def _count(body: Body) -> AsyncIterator[Progress]:
    size = 0
    async for chunk in body:
        size += len(chunk)
        for _ in range(20):  # more than a socket's buffer holds, before all is read
            yield Progress(status="x" * 500, current=size)
    yield Progress(status="done", current=size)


async def _pull(reference: str) -> AsyncIterator[Progress]:
    if reference == "absent":
        raise ImageNotFound("no image 'absent'")
    yield Progress(status="Pulling")
    if reference == "late":
        raise ImageNotFound("gone meanwhile", hint="again")
    yield Progress(status="Done", digest="sha256:00")


def test_an_upload_is_read_while_it_is_answered(client: Client) -> None:
    lines = list(client.images.load(io.BytesIO(bytes(64 << 20))))
    assert lines[-1] == {"status": "done", "current": 64 << 20}
    assert len(lines) > 1000


def test_an_upload_may_be_empty(client: Client) -> None:
    assert list(client.images.load(io.BytesIO())) == [{"status": "done"}]


def test_an_upload_that_is_refused_stops_early(client: Client) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"junk" * (size // 4)

    with pytest.raises(InvalidRequest, match="no tar: b'junk'"):
        list(client.images.import_(Endless(), changes=["CMD a"]))  # type: ignore[arg-type]


def test_an_upload_whose_source_fails_raises_that(client: Client) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "the disk is broken")

    with pytest.raises(OSError, match="the disk is broken"):
        list(client.images.load(Failing()))


def test_progress_comes_as_lines_and_ends(client: Client) -> None:
    assert [line.status for line in client.images.pull("fine")] == ["Pulling", "Done"]


def test_a_failure_before_and_after_the_first_line_is_the_same_error(client: Client) -> None:
    with pytest.raises(ImageNotFound, match="absent"):
        client.images.pull("absent")
    lines = client.images.pull("late")
    assert next(lines).status == "Pulling"
    with pytest.raises(ImageNotFound, match="gone meanwhile"):
        next(lines)


def test_an_empty_name_is_refused_before_it_becomes_another_path(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="empty name"):
        client.pods.get("")
