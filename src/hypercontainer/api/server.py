"""HTTP/1.1 on stream sockets: h11 decides what the bytes mean, this moves them.

A thin server of our own because attached streams take the connection over, with what was already read
of it, which no ASGI server can hand out (docs/decisions/0001-http-server.md).

A client that goes away ends what only it waits for: reads (GET), streams and attached connections.
A verb that changes something is finished all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar, cast

import h11

from hypercontainer.api.messages import Answer, Application, Request, Stream, Upgrade
from hypercontainer.errors import HyperError, InvalidRequest
from hypercontainer.model.json import encode
from hypercontainer.model.rest import ERROR_TRAILER, ErrorView

log = logging.getLogger(__name__)

T = TypeVar("T")

_READ_SIZE = 1 << 18
_HALF_CLOSED_POLL_S = 0.5
_OPEN_POLL_S = 30.0
_DISCARD = 1 << 18  # bytes of an unread body that are worth reading to keep the connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may take of us; seconds and bytes."""

    head_size: int = 32 << 10
    head_s: float = 10.0  # from a request's first byte to the end of its head
    idle_s: float = 75.0  # between requests
    write_s: float = 60.0  # for a client to take a whole answer
    finish_s: float = 10.0  # for verbs at work when the server stops


class _Gone(Exception):
    """The client has closed the connection."""


class Server:
    """Serves ``application`` on listening sockets until it is told to stop."""

    def __init__(self, application: Application, *, limits: Limits | None = None) -> None:
        self.application = application
        self.limits = limits or Limits()
        self._connections: set[_Connection] = set()
        self._is_stopping = False

    async def run(self, listeners: Sequence[socket.socket], *, stop: asyncio.Event) -> None:
        """Accept on ``listeners``, which are closed in the end; verbs at work then have time to finish."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            servers = [
                await loop.create_server(lambda: _Protocol(self, group, loop), sock=listener)
                for listener in listeners
            ]
            await stop.wait()
            self._is_stopping = True
            for server in servers:
                server.close()
            await self._end_connections()

    async def _end_connections(self) -> None:
        tasks = {connection.task for connection in self._connections}
        for connection in tuple(self._connections):
            connection.stop()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self.limits.finish_s)
            for task in late:
                task.cancel()

    def connected(self, protocol: _Protocol, group: asyncio.TaskGroup) -> None:
        if self._is_stopping:  # accepted in the same turn of the loop: nobody is left to wait for it
            protocol.writer.close()
            return
        connection = _Connection(self, protocol)
        connection.task = group.create_task(connection.run())
        self._connections.add(connection)
        connection.task.add_done_callback(lambda _: self._ended(connection))

    def _ended(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        connection.drop()


class _Protocol(asyncio.StreamReaderProtocol):
    """asyncio's streams, which also say when the client has ended its side, read or not."""

    def __init__(self, server: Server, group: asyncio.TaskGroup, loop: asyncio.AbstractEventLoop) -> None:
        self.reader = asyncio.StreamReader(limit=_READ_SIZE, loop=loop)
        self.ended = asyncio.Event()
        self._server = server
        self._group = group
        super().__init__(self.reader, self._connected, loop=loop)

    def _connected(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        writer.transport.set_write_buffer_limits(high=_READ_SIZE)
        self._server.connected(self, self._group)

    def eof_received(self) -> bool | None:
        self.ended.set()
        return super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()
        super().connection_lost(error)


class _Connection:
    """One client: requests and answers in turn, until either side has enough."""

    task: asyncio.Task[None]

    def __init__(self, server: Server, protocol: _Protocol) -> None:
        self._application = server.application
        self._limits = server.limits
        self._protocol = protocol
        self._reader = protocol.reader
        self._writer = protocol.writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.head_size)
        self._is_finishing = False  # runs a verb that is not broken off
        self._is_stopping = False
        self._first = b""  # bytes that came before the takeover

    async def run(self) -> None:
        try:
            while not self._is_stopping and await self._exchange():
                pass
        except (_Gone, ConnectionError, TimeoutError):
            pass
        except Exception:  # the edge of a connection: it alone ends
            log.exception("a connection failed")
        finally:
            await self._close()

    def stop(self) -> None:
        """End as soon as no verb is broken off by it."""
        self._is_stopping = True
        if not self._is_finishing:
            self.task.cancel()

    def drop(self) -> None:
        """Close, where `run` was cancelled before it began."""
        self._writer.close()

    async def _exchange(self) -> bool:
        """One request and its answer; whether there may be another on this connection."""
        try:
            request = await self._next_request()
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint, f"this is no HTTP request: {error}")
            return False
        except TimeoutError:
            await self._refuse(408, "the request did not come in time")
            return False
        if request is None:
            return False
        try:
            answer = await self._respond(request)
            if isinstance(answer, Answer):
                await self._send(answer, request)
        finally:
            self._is_finishing = False
        if isinstance(answer, Upgrade):
            await self._upgrade(answer)
            return False
        if isinstance(answer, Stream):
            await self._while_connected(self._send_stream(answer, request))
        return await self._next_cycle()

    async def _next_request(self) -> Request | None:
        """None: the client has left, or has asked nothing for long.  TimeoutError: it dawdles."""
        deadline: float | None = None
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if deadline is None and self._http.trailing_data[0]:
                deadline = time.monotonic() + self._limits.head_s
            try:
                async with asyncio.timeout(
                    self._limits.idle_s if deadline is None else max(0.0, deadline - time.monotonic())
                ):
                    self._http.receive_data(await self._reader.read(_READ_SIZE))
            except TimeoutError:
                if deadline is None:
                    return None
                raise
        return self._request(event) if isinstance(event, h11.Request) else None

    def _request(self, event: h11.Request) -> Request:
        target = event.target.decode("ascii", "replace")
        path = target
        if not target.startswith("/") and "://" in target:  # absolute form, RFC 9112 section 3.2.2
            path = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query = path.partition("?")
        return Request(
            method=event.method.decode("ascii"),
            target=target,
            path=path,
            query=query,
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers),
            body=_Body(self),
        )

    async def _respond(self, request: Request) -> Answer | Stream | Upgrade:
        if request.method in {"GET", "HEAD"}:
            return await self._while_connected(self._application(request))
        self._is_finishing = True
        return await self._application(request)

    async def _while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work``; raises _Gone, with ``work`` cancelled, when the client closes the connection."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self.gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _Gone
            return task.result()
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def gone(self) -> None:
        """Until the client has closed both directions."""
        while not self.is_gone():
            if self._protocol.ended.is_set():
                await asyncio.sleep(_HALF_CLOSED_POLL_S)
                continue
            with contextlib.suppress(TimeoutError):  # reading may be paused: then nobody sees the end
                async with asyncio.timeout(_OPEN_POLL_S):
                    await self._protocol.ended.wait()

    def is_gone(self) -> bool:
        """poll(2) of a unix socket says hang-up when the peer has closed, and not when it half-closed."""
        connection = self._writer.get_extra_info("socket")
        if self._writer.transport.is_closing() or connection.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(connection.fileno(), 0)  # POLLHUP and POLLERR are always told
        return bool(poll.poll(0))

    async def _send(self, answer: Answer, request: Request | None) -> None:
        headers = [("Content-Type", answer.content_type), *answer.headers]
        if answer.status not in {204, 304}:
            headers.append(("Content-Length", str(len(answer.body))))
        is_head = request is not None and request.method == "HEAD"
        head = h11.Response(
            status_code=answer.status,
            headers=self._headers(headers),
            reason=HTTPStatus(answer.status).phrase,
        )
        data = self._bytes(head)
        if answer.body and not is_head:
            data += self._bytes(h11.Data(data=answer.body))
        async with asyncio.timeout(self._limits.write_s):
            await self.write(data + self._bytes(h11.EndOfMessage()))

    async def _send_stream(self, answer: Stream, request: Request) -> None:
        headers = self._headers([("Content-Type", answer.content_type)])
        trailers: list[tuple[bytes, bytes]] = []
        async with contextlib.aclosing(cast("Any", answer.chunks)) as chunks:
            await self.write(self._bytes(h11.Response(status_code=200, headers=headers, reason="OK")))
            if request.method != "HEAD" and not self._is_stopping:
                try:
                    async for chunk in chunks:
                        await self.write(self._bytes(h11.Data(data=chunk)))
                except HyperError as error:
                    trailers = self._failure(error, request)
        await self.write(self._bytes(h11.EndOfMessage(headers=trailers)))

    def _failure(self, error: HyperError, request: Request) -> list[tuple[bytes, bytes]]:
        """What failed after the status was sent is told behind the body (RFC 9112 section 7.1.2)."""
        log.warning("%s %s failed on the way: %s", request.method, request.path, error.message)
        if self._http.their_http_version == b"1.0":
            raise ConnectionResetError("HTTP/1.0 can only be cut off") from error
        view = ErrorView(code=error.code, message=error.message, hint=error.hint)
        return [(ERROR_TRAILER.encode(), encode(view))]

    async def _upgrade(self, answer: Upgrade) -> None:
        try:
            if not self._is_stopping:
                await self._hand_over(answer)
        finally:
            answer.close()

    async def _hand_over(self, answer: Upgrade) -> None:
        await self._discard_body()
        if self._http.next_event() is not h11.PAUSED:
            await self._refuse(400, "a request for an upgrade has no body of this size")
            return
        headers = [("Connection", "Upgrade"), ("Upgrade", answer.protocol), *answer.headers]
        event = h11.InformationalResponse(status_code=101, headers=self._headers(headers), reason="UPGRADED")
        await self.write(self._bytes(event))
        self._first = self._http.trailing_data[0]
        await answer.serve(self)

    async def _refuse(self, status: int, message: str) -> None:
        """Answer what was no request; its rest cannot be told from the next one, so close then."""
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        view = ErrorView(code=InvalidRequest.code, message=message, hint="")
        answer = Answer(status=status, body=encode(view), headers=(("Connection", "close"),))
        with contextlib.suppress(h11.LocalProtocolError):
            await self._send(answer, None)

    async def _next_cycle(self) -> bool:
        with contextlib.suppress(InvalidRequest, TimeoutError):
            async with asyncio.timeout(1):
                await self._discard_body()
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _discard_body(self) -> None:
        size = 0
        async for chunk in _Body(self):
            size += len(chunk)
            if size > _DISCARD:
                return

    async def body_event(self) -> h11.Data | h11.EndOfMessage | None:
        """The next piece of the request's body; None at its end."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self.write(self._bytes(h11.InformationalResponse(status_code=100, headers=[])))
                self._http.receive_data(await self._reader.read(_READ_SIZE))
        except h11.RemoteProtocolError as error:
            raise InvalidRequest(f"the request's body is broken: {error}") from error
        return event if isinstance(event, h11.Data) else None

    @property
    def has_body(self) -> bool:
        return self._http.their_state is h11.SEND_BODY

    def _bytes(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""

    def _headers(self, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [*headers, ("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))]

    async def read(self) -> bytes:
        """The takeover's next bytes."""
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._reader.read(_READ_SIZE)

    async def write(self, *parts: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the client has gone")
        self._writer.writelines(parts)
        await self._writer.drain()

    async def _close(self) -> None:
        """Send what is left, to a client that takes it."""
        self._writer.close()
        try:
            async with asyncio.timeout(self._limits.write_s):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


class _Body:
    """A request's body, off the socket as it is asked for."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._connection.has_body:
            event = await self._connection.body_event()
            if isinstance(event, h11.Data) and event.data:
                yield bytes(event.data)
