"""HTTP itself: what clients send that is odd, slow, large, cut off or hostile."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hypercontainer.api.app import Api
from hypercontainer.api.messages import Body, Request, Stream, Takeover, Upgrade
from hypercontainer.api.routing import Routes, Table
from hypercontainer.api.server import Limits, Server
from hypercontainer.errors import Conflict, HyperError
from hypercontainer.model.pod import PodSpec
from hypercontainer.model.rest import WaitView
from tests.api.serving import Serving, read_all, read_until, serving
from tests.support.waiting import PATIENCE_S, until

GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"
CLOSE = b"GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
IMPATIENT = Limits(head_s=0.3, idle_s=0.5, write_s=0.5, finish_s=1)


class Seen:
    """What the handlers of a test have met."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.finished = threading.Event()
        self.closed = threading.Event()
        self.received = 0


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def server(tmp_path: Path, seen: Seen) -> Iterator[Serving]:
    with serving(tmp_path, some_routes(seen)) as running:
        yield running


@pytest.fixture
def impatient(tmp_path: Path, seen: Seen) -> Iterator[Serving]:
    """For clients that are slow on purpose; on a busy host any client may be."""
    with serving(tmp_path, some_routes(seen), limits=IMPATIENT) as running:
        yield running


def some_routes(seen: Seen) -> Routes:
    routes = Routes()
    add_answers(routes)
    add_waits(routes, seen)
    add_bodies(routes, seen)
    add_streams(routes, seen)
    add_upgrade(routes, seen)
    return routes


def add_answers(routes: Routes) -> None:
    """What is answered at once: well, badly, or with much."""

    @routes.get("/number/{number}")
    def number(_: object, number: str) -> WaitView:
        return WaitView(exit_code=int(number))

    @routes.post("/pods", status=201)
    def pods(_: object, body: PodSpec) -> str:
        return body.containers[0].image

    @routes.get("/broken")
    def broken(_: object) -> str:
        raise ZeroDivisionError("secret of the inside")

    @routes.get("/large")
    def large(_: object) -> str:
        return "x" * (8 << 20)


def add_waits(routes: Routes, seen: Seen) -> None:
    """What takes its time; of these, reads end with their client, and verbs are finished."""

    @routes.get("/hold")
    async def hold(_: object) -> str:
        seen.started.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.cancelled.set()
            raise
        return "late"

    @routes.post("/work")
    async def work(_: object) -> str:
        seen.started.set()
        await asyncio.sleep(0.6)
        seen.finished.set()
        return "done"

    @routes.get("/pause")
    async def pause(_: object) -> str:
        await asyncio.sleep(0.3)
        return "rested"


def add_bodies(routes: Routes, seen: Seen) -> None:
    """What is sent in: read whole, not at all, or so slowly that the client has to wait."""

    @routes.post("/count")
    async def count(_: object, body: Body) -> int:
        async for chunk in body:
            seen.received += len(chunk)
        return seen.received

    @routes.post("/ignore")
    async def ignore(_: object, body: Body) -> str:
        seen.started.set()
        return "no need"

    @routes.post("/stuck")
    async def stuck(_: object, body: Body) -> str:
        async for chunk in body:
            seen.received += len(chunk)
            seen.started.set()
            await asyncio.sleep(30)
        return ""


def add_streams(routes: Routes, seen: Seen) -> None:
    """What comes in chunks: to its end, with an error, or for longer than anybody reads."""

    @routes.get("/ticks")
    def ticks(_: object) -> Stream:
        async def tick() -> AsyncIterator[bytes]:
            try:
                for each in range(1000):
                    seen.started.set()
                    yield b"tick %d\n" % each
                    await asyncio.sleep(0.01)
            finally:
                seen.closed.set()

        return Stream(chunks=tick(), content_type="text/plain")

    @routes.get("/three")
    def three(_: object) -> Stream:
        async def lines() -> AsyncIterator[bytes]:
            for each in (b"one", b"two", b"three"):
                yield each

        return Stream(chunks=lines(), content_type="text/plain")

    @routes.get("/breaks")
    def breaks(_: object) -> Stream:
        async def lines() -> AsyncIterator[bytes]:
            yield b"one"
            raise HyperError("no second line")

        return Stream(chunks=lines(), content_type="text/plain")

    @routes.get("/flood")
    def flood(_: object) -> Stream:
        async def zeros() -> AsyncIterator[bytes]:
            while True:
                seen.received += 1 << 16
                yield bytes(1 << 16)

        return Stream(chunks=zeros(), content_type="text/plain")


def add_upgrade(routes: Routes, seen: Seen) -> None:
    """A connection that changes hands: what comes goes back between < and >."""

    @routes.post("/echo", upgrade=True)
    async def echo(_: object, request: Request, *, refuse: bool = False) -> Upgrade:
        if refuse:
            raise Conflict("not now")

        async def serve(client: Takeover) -> None:
            while data := await client.read():
                await client.write(b"<", data, b">")
            await client.write(b"end")

        return Upgrade(protocol="hyper", serve=serve, close=seen.closed.set)


def test_requests_take_turns_on_one_connection(server: Serving) -> None:
    with server.connect() as connection:
        for number in (b"1", b"2", b"3"):
            connection.sendall(GET % (b"/number/" + number))
            assert read_until(connection, b"}").endswith(b'{"exit_code":' + number + b"}")


def test_pipelined_requests_are_answered_in_order(server: Serving) -> None:
    answers = server.ask((GET % b"/pause") + (GET % b"/number/1") + (CLOSE % b"/number/2"))
    assert answers.count(b"HTTP/1.1 200") == 3
    assert answers.index(b"rested") < answers.index(b'"exit_code":1') < answers.index(b'"exit_code":2')


def test_a_request_in_single_bytes_is_understood(server: Serving) -> None:
    with server.connect() as connection:
        for byte in CLOSE % b"/number/5":
            connection.sendall(bytes([byte]))
        assert b'{"exit_code":5}' in read_all(connection)


def test_a_client_that_has_ended_its_sending_side_gets_its_answer(server: Serving) -> None:
    assert server.ask(GET % b"/pause").endswith(b'"rested"')


def test_head_has_the_length_and_no_body(server: Serving) -> None:
    answer = server.ask(b"HEAD /number/7 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"Content-Length: 15" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_head_of_a_stream_reads_nothing_of_it(server: Serving) -> None:
    assert server.ask(b"HEAD /three HTTP/1.1\r\nHost: h\r\n\r\n").endswith(b"\r\n\r\n")


def test_a_stream_comes_in_chunks(server: Serving) -> None:
    answer = server.ask(CLOSE % b"/three")
    assert b"Transfer-Encoding: chunked" in answer
    assert answer.endswith(b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")


def test_a_stream_to_an_http_1_0_client_ends_with_the_connection(server: Serving) -> None:
    answer = server.ask(b"GET /three HTTP/1.0\r\n\r\n")
    assert b"chunked" not in answer
    assert answer.endswith(b"onetwothree")


def test_a_stream_that_fails_is_cut_and_not_ended(server: Serving) -> None:
    answer = server.ask(CLOSE % b"/breaks")
    assert b"3\r\none\r\n" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_the_absolute_form_of_a_target_is_understood(server: Serving) -> None:
    assert b'{"exit_code":9}' in server.ask(CLOSE % b"http://hyperd/number/9")


def test_an_unknown_path_is_404_and_a_wrong_method_405(server: Serving) -> None:
    assert b"404 Not Found\r\n" in server.ask(CLOSE % b"/nowhere")
    answer = server.ask(b"DELETE /pods HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert b"HTTP/1.1 405" in answer
    assert b"Allow: POST" in answer
    assert b'"code":"invalid_request"' in answer


def test_an_internal_error_tells_the_client_nothing_of_the_inside(server: Serving) -> None:
    answer = server.ask(CLOSE % b"/broken")
    assert b"HTTP/1.1 500" in answer
    assert b'"code":"internal"' in answer
    assert b"secret" not in answer
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELO localhost\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /number/1 HTTP/1.1\r\n\r\n",  # no Host
        b"GET /number/1 HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
        b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: ten\r\n\r\n",
        b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"POST /count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /number/1 HTTP/1.1\r\nHost: h\r\n bad: folded\r\n: empty\r\n\r\n",
        b"GET /num\x00ber/1 HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
def test_nonsense_is_refused_and_the_connection_closed(server: Serving, nonsense: bytes) -> None:
    answer = server.ask(nonsense)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501"))
    assert answer.count(b"HTTP/1.1 ") == 1


def test_huge_headers_are_refused(server: Serving) -> None:
    answer = server.ask(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * (1 << 20) + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431")


def test_a_head_that_comes_too_slowly_is_given_up(impatient: Serving) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /number/1 HTT")
        assert read_all(connection).startswith(b"HTTP/1.1 408")


def test_a_trickle_of_header_bytes_does_not_extend_the_time(impatient: Serving) -> None:
    with impatient.connect() as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        trickle(connection)


def trickle(connection: socket.socket) -> None:
    connection.sendall(b"GET /number/1 HTTP/1.1\r\nX: ")
    for _ in range(600):
        connection.sendall(b"y")
        time.sleep(0.05)


def test_an_idle_connection_is_closed_without_a_word(impatient: Serving) -> None:
    with impatient.connect() as connection:
        assert read_all(connection) == b""


def test_others_are_served_while_many_clients_dawdle(server: Serving) -> None:
    slow = [server.connect() for _ in range(100)]
    for connection in slow:
        connection.sendall(b"GET / HTTP/1.1\r\n")
    started = time.monotonic()
    assert b'{"exit_code":1}' in server.ask(CLOSE % b"/number/1")
    assert time.monotonic() - started < Limits().head_s
    for connection in slow:
        connection.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"containers": [{"image": "x", "comand": []}]}', "unknown field `comand` - at `$.containers[0]`"),
        (b'{"containers": [{"image": 3}]}', "Expected `str`, got `int` - at `$.containers[0].image`"),
        (b'{"vcpus": 0}', "Expected `int` >= 1 - at `$.vcpus`"),
        (b'{"containers": [{"image": "\xff"}]}', "not valid JSON"),
        (b"[" * 100_000, "Expected `object`, got `array`"),
    ],
)
def test_a_bad_body_is_refused_by_the_key(server: Serving, body: bytes, message: str) -> None:
    head = b"POST /pods HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = server.ask(head + body)
    assert b"HTTP/1.1 400" in answer
    assert message in answer.decode().replace("\\u0060", "`")


def test_a_body_that_is_too_large_for_json_is_refused(server: Serving) -> None:
    head = b"POST /pods HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (64 << 20)
    answer = server.ask(head + b" " * (40 << 20))
    assert b"HTTP/1.1 400" in answer
    assert b"larger than 32 MiB" in answer


def test_a_chunked_body_is_read_whole_and_the_connection_goes_on(server: Serving) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert read_until(connection, b"6553600").startswith(b"HTTP/1.1 200")
        connection.sendall(CLOSE % b"/number/1")
        assert b'{"exit_code":1}' in read_all(connection)


def test_a_body_that_nobody_wants_does_not_become_the_next_request(server: Serving) -> None:
    body = GET % b"/number/66"
    head = b"POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = server.ask(head + body + (CLOSE % b"/number/1"))
    assert b"66" not in answer
    assert b'{"exit_code":1}' in answer


def test_a_large_body_that_nobody_wants_ends_the_connection(server: Serving) -> None:
    head = b"POST /ignore HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (1 << 40)
    answer = server.ask(head + bytes(4 << 20))
    assert b'"no need"' in answer


def test_a_body_cut_off_in_the_middle_is_an_error(server: Serving) -> None:
    answer = server.ask(b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nfive!")
    assert b"HTTP/1.1 400" in answer
    assert b"body is broken" in answer


def test_an_upload_waits_while_the_handler_does(impatient: Serving, seen: Seen) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"POST /stuck HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        connection.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += connection.send(bytes(1 << 16))
    assert sent < 8 << 20


def test_a_client_that_asks_is_told_to_continue(server: Serving) -> None:
    with server.connect() as connection:
        head = b"POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head)
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        connection.sendall(b"abc")
        assert read_until(connection, b"\r\n\r\n3").startswith(b"HTTP/1.1 200")


def test_a_refusal_spares_the_client_the_body(server: Serving) -> None:
    answer = server.ask(
        b"POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 404")


def test_a_closed_connection_ends_a_held_read(server: Serving, seen: Seen) -> None:
    with server.connect() as connection:
        connection.sendall(GET % b"/hold")
        assert seen.started.wait(PATIENCE_S)
    assert seen.cancelled.wait(PATIENCE_S)


def test_a_half_closed_connection_does_not_but_its_close_does(server: Serving, seen: Seen) -> None:
    with server.connect() as connection:
        connection.sendall(GET % b"/hold")
        connection.shutdown(socket.SHUT_WR)
        assert seen.started.wait(PATIENCE_S)
        assert not seen.cancelled.wait(0.7)
    assert seen.cancelled.wait(PATIENCE_S)


def test_a_verb_is_finished_though_its_client_has_gone(server: Serving, seen: Seen) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /work HTTP/1.1\r\nHost: h\r\n\r\n")
        assert seen.started.wait(PATIENCE_S)
    assert seen.finished.wait(PATIENCE_S)


def test_a_closed_connection_ends_a_stream(server: Serving, seen: Seen) -> None:
    with server.connect() as connection:
        connection.sendall(GET % b"/ticks")
        read_until(connection, b"tick 3")
    assert seen.closed.wait(PATIENCE_S)


def test_a_stream_waits_for_a_client_that_does_not_read(server: Serving, seen: Seen) -> None:
    with server.connect() as connection:
        connection.sendall(GET % b"/flood")
        until(lambda: seen.received > 0)
        stored = 0
        while stored < seen.received < 8 << 20:  # to where it stands still
            stored = seen.received
            time.sleep(0.5)
        assert seen.received < 8 << 20


def test_a_client_that_never_reads_its_answer_is_dropped(impatient: Serving) -> None:
    with impatient.connect() as connection:
        connection.sendall(GET % b"/large")
        poll = select.poll()
        poll.register(connection, 0)  # a hang-up is always told
        assert poll.poll(PATIENCE_S * 1000)
        assert len(read_all(connection)) < 8 << 20


def test_an_upgrade_hands_over_the_bytes_that_were_sent_along(server: Serving, seen: Seen) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /echo HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: hyper\r\n\r\nearly"
        )
        answer = read_until(connection, b">")
        assert answer.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert b"Upgrade: hyper\r\n" in answer
        assert answer.endswith(b"\r\n\r\n<early>")
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_until(connection, b">") == b"<GET / HTTP/1.1\r\n\r\n>"
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"end"
    assert seen.closed.wait(PATIENCE_S)


def test_an_upgrade_that_is_not_asked_for_is_426(server: Serving, seen: Seen) -> None:
    answer = server.ask(b"POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 426")
    assert b"Upgrade: hyper" in answer
    assert not seen.closed.is_set()


def test_an_error_before_an_upgrade_is_an_ordinary_answer(server: Serving) -> None:
    answer = server.ask(
        b"POST /echo?refuse=true HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: hyper\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 409")
    assert b'"message":"not now"' in answer


def test_an_upgrade_with_a_large_body_is_refused_and_let_go(server: Serving, seen: Seen) -> None:
    answer = server.ask(
        b"POST /echo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: hyper\r\n"
        b"Content-Length: 999999999\r\n\r\n" + bytes(1 << 20)
    )
    assert answer.startswith(b"HTTP/1.1 400")
    assert seen.closed.wait(PATIENCE_S)


def test_a_wish_to_upgrade_is_ignored_where_there_is_none(server: Serving) -> None:
    answer = server.ask(b"GET /number/4 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_stop_finishes_verbs_and_ends_what_is_held(server: Serving, seen: Seen) -> None:
    with server.connect() as holder, server.connect() as worker:
        holder.sendall(GET % b"/hold")
        assert seen.started.wait(PATIENCE_S)
        seen.started.clear()
        worker.sendall(b"POST /work HTTP/1.1\r\nHost: h\r\n\r\n")
        assert seen.started.wait(PATIENCE_S)
        server.stop()
        assert b'"done"' in read_all(worker)
        assert read_all(holder) == b""
    assert seen.cancelled.is_set()


# One turn is asyncio's: it closes its server under what it has accepted, and drops that in silence.
@pytest.mark.parametrize("turns", [0, 2, 3, 4])
def test_who_connects_at_the_last_moment_is_turned_away_in_order(
    tmp_path: Path, seen: Seen, turns: int
) -> None:
    complaints: list[object] = []
    assert asyncio.run(_connect_and_stop(tmp_path / "socket", some_routes(seen), turns, complaints)) == b""
    assert complaints == []


async def _connect_and_stop(path: Path, routes: Routes, turns: int, complaints: list[object]) -> bytes:
    """What a client reads when the server stops so many turns of the loop after it has connected."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    stop = asyncio.Event()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(path))
        listener.listen()
        server = Server(Api(None, Table(routes.all)))
        running = loop.create_task(server.run([listener], stop=stop))
        await asyncio.sleep(0.1)
        client.connect(str(path))
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        stop.set()
        try:
            return await asyncio.wait_for(loop.sock_recv(client, 100), PATIENCE_S)
        except ConnectionResetError:  # not even accepted
            return b""
        finally:
            await running
