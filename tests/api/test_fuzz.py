"""Bytes of any kind at the server: it answers or closes, soon, and it is never its own fault."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypercontainer.api.server import Limits
from hypercontainer.client import Client
from hypercontainer.errors import HyperError
from hypercontainer.model import frames
from tests.api.serving import Serving, read_all, serving
from tests.support.waiting import PATIENCE_S

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

METHODS = st.sampled_from([b"GET", b"POST", b"DELETE", b"HEAD", b"PUT", b"get", b"\x00"])
TARGETS = st.one_of(
    st.sampled_from(
        [
            b"/v1/ping",
            b"/v1/openapi.json",
            b"/v1/pods",
            b"/v1/images/tag",
            b"/v1/images/a:b/c",
            b"*",
            b"//",
            b"/%",
        ]
    ),
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: b"/v1/pods/" + text.encode(errors="replace")),
)
HEADERS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"Host: h",
                b"Content-Length: 5",
                b"Content-Length: 99999999999999999999",
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: chunked, gzip",
                b"Connection: Upgrade",
                b"Upgrade: hyper",
                b"Expect: 100-continue",
                b"Connection: close",
                b"X-Registry-Auth: !!!",
            ]
        ),
        st.binary(max_size=30),
    ),
    max_size=6,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"5\r\nhello\r\n0\r\n\r\n",
            b"{}",
            b'{"containers":[{}]}',
            b"fffffffff\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ]
    ),
)
REQUESTS = st.builds(
    lambda method, target, headers, body: (
        b"%b %b HTTP/1.1\r\n" % (method, target) + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body
    ),
    METHODS,
    TARGETS,
    HEADERS,
    BODIES,
)

NAMES = st.text(min_size=1, max_size=40)
QUERIES = st.dictionaries(st.text(max_size=10), st.text(max_size=10))


class NoEngine:
    """What has no engine behind it fails as one that is down would."""

    def __getattr__(self, name: str) -> object:
        raise HyperError("no engine here")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    limits = Limits(head_s=1, idle_s=1, write_s=1)
    with serving(tmp_path_factory.mktemp("fuzz"), limits=limits, engine=NoEngine()) as running:
        yield running


def exchange(server: Serving, data: bytes) -> bytes:
    with server.connect() as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def check(server: Serving, answer: bytes) -> None:
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert b"internal error of hyperd" not in answer
    assert b"Traceback" not in answer
    assert Client(server.path, timeout_s=PATIENCE_S).system.ping() == "OK"


@FUZZ
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_politely(server: Serving, data: bytes) -> None:
    check(server, exchange(server, data))


@FUZZ
@given(requests=st.lists(REQUESTS, min_size=1, max_size=3))
def test_requests_that_are_nearly_right_are_no_fault_of_ours(server: Serving, requests: list[bytes]) -> None:
    check(server, exchange(server, b"".join(requests)))


@FUZZ
@given(
    name=st.text(min_size=1, max_size=40), query=st.dictionaries(st.text(max_size=10), st.text(max_size=10))
)
def test_any_name_and_query_reach_the_engine_or_are_refused(
    server: Serving, name: str, query: dict[str, str]
) -> None:
    client = Client(server.path, timeout_s=PATIENCE_S)
    for verb in (lambda: client.images.get(name), lambda: client.call("GET", "/v1/pods", query=query)):
        with pytest.raises(HyperError) as refusal:
            verb()
        assert "internal error" not in refusal.value.message


@FUZZ
@given(data=st.binary(max_size=100), cut=st.integers(0, 100))
def test_any_bytes_are_frames_or_refused(data: bytes, cut: int) -> None:
    expected = _decoded([data])
    assert _decoded([data[:cut], data[cut:]]) == expected


def _decoded(pieces: list[bytes]) -> list[tuple[int, bytes]] | None:
    """None: these are no frames."""
    decoder = frames.Decoder()
    try:
        return [frame for piece in pieces for frame in decoder.feed(piece)]
    except HyperError:
        return None
