"""Streams of the API: attached processes over a connection taken over, logs and progress as bodies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator
from typing import Any, cast

from hypercontainer.api.messages import Stream, Takeover, Upgrade
from hypercontainer.engine.streams import Attachment
from hypercontainer.errors import HyperError, InvalidRequest
from hypercontainer.model import frames
from hypercontainer.model.json import encode
from hypercontainer.model.rest import ErrorView, StreamKind, WaitView

log = logging.getLogger(__name__)

UPGRADE = "hyper"
FRAMES = "application/vnd.hyper.frames"
JSON_LINES = "application/jsonl"

NOBODY_READS = 2**64 - 1  # the process has stdin, or has closed it: what is sent is dropped
_SIZE = struct.Struct(">HH")
_BATCH = 1 << 16  # bytes of small pieces that are sent as one


def attached(attachment: Attachment, *, timeline: bool = False) -> Upgrade:
    """The answer that ties ``attachment`` to the client's connection, until either ends.

    ``timeline``: send the pod's before the end.  The headers are what a client needs to go on with the
    next daemon when this one dies: Hyper-Run says which run it is, and Hyper-Stdin, -Stdout and -Stderr
    at which bytes of its streams this client begins.
    """

    async def serve(client: Takeover) -> None:
        with contextlib.suppress(ConnectionError):  # detached: the process goes on
            await _Session(attachment, client, timeline=timeline).run()

    headers = (
        ("Content-Type", FRAMES),
        ("Hyper-Run", str(attachment.begin.run)),
        ("Hyper-Stdin", str(attachment.stdin)),
        ("Hyper-Stdout", str(attachment.begin.stdout)),
        ("Hyper-Stderr", str(attachment.begin.stderr)),
    )
    return Upgrade(protocol=UPGRADE, serve=serve, close=attachment.close, headers=headers)


class _Session:
    """A client and a process: output and the end one way, input the other, both at once."""

    def __init__(self, attachment: Attachment, client: Takeover, *, timeline: bool) -> None:
        self._attachment = attachment
        self._client = client
        self._timeline = timeline

    async def run(self) -> None:
        """Until the process has ended and all is said, or the client has gone."""
        tasks = [
            asyncio.create_task(work)
            for work in (self._tell_all(), self._client.gone(), self._take_input(), self._tell_taken())
        ]
        told, gone, *_ = tasks
        try:
            await asyncio.wait({told, gone}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                await told
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell_all(self) -> None:
        try:
            await self._send_output()
            code = await self._attachment.exit_code()
            if self._timeline:
                await self._send(StreamKind.TIMELINE, encode(self._attachment.timeline()))
            await self._send(StreamKind.EXIT, encode(WaitView(exit_code=code)))
        except HyperError as error:
            await self._send_error(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # the edge: after the 101 nobody else can tell the client
            log.exception("an attached stream failed")
            await self._send_error(HyperError("an internal error of hyperd", hint="its log says more"))

    async def _send_output(self) -> None:
        async with contextlib.aclosing(cast("Any", self._attachment.output())) as output:
            async for stream, data in output:
                for at in range(0, len(data), frames.MAX_PAYLOAD):
                    await self._send(int(stream), data[at : at + frames.MAX_PAYLOAD])

    async def _send(self, kind: int, payload: bytes) -> None:
        await self._client.write(frames.header(kind, len(payload)), payload)

    async def _send_error(self, error: HyperError) -> None:
        view = ErrorView(code=error.code, message=error.message, hint=error.hint)
        await self._send(StreamKind.ERROR, encode(view))

    async def _take_input(self) -> None:
        """What the client sends, to its end; nonsense ends the input and is told."""
        decoder = frames.Decoder()
        try:
            while data := await self._client.read():
                for kind, payload in decoder.feed(data):
                    await self._take(kind, payload)
            if not self._client.is_gone():
                await self._attachment.write_end()
        except HyperError as error:
            await self._send_error(error)
        except ConnectionError:
            pass

    async def _tell_taken(self) -> None:
        """How much of stdin need not be sent again should this daemon die."""
        taken = self._attachment.stdin
        with contextlib.suppress(HyperError, ConnectionError):
            while taken < NOBODY_READS:
                taken = await self._attachment.taken(taken)
                await self._send(StreamKind.STDIN_TAKEN, taken.to_bytes(8, "big"))

    async def _take(self, kind: int, payload: bytes) -> None:
        match kind:
            case StreamKind.STDIN:
                if payload:
                    await self._attachment.write(payload)
            case StreamKind.STDIN_END:
                await self._attachment.write_end()
            case StreamKind.RESIZE if len(payload) == _SIZE.size:
                rows, columns = _SIZE.unpack(payload)
                await self._attachment.resize(rows=rows, columns=columns)
            case StreamKind.SIGNAL if len(payload) == 1:
                await self._attachment.signal(payload[0])
            case _:
                raise InvalidRequest(f"a client cannot send a frame of kind {kind} and {len(payload)} bytes")


async def begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, its first piece made: what fails before that is raised here, where it has a status."""
    try:
        first = await anext(pieces)
    except StopAsyncIteration:
        first = b""

    async def all_of_it() -> AsyncIterator[bytes]:
        async with contextlib.aclosing(cast("Any", pieces)):
            yield first
            async for piece in pieces:
                yield piece

    return all_of_it()


async def in_batches(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in fewer pieces when they come fast, and at once when they come slowly."""
    batch = _Batch()
    reader = asyncio.create_task(batch.fill(pieces))
    try:
        while data := await batch.take():
            yield data
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


class _Batch:
    def __init__(self) -> None:
        self._data = bytearray()
        self._changed = asyncio.Condition()
        self._is_over = False

    async def fill(self, pieces: AsyncIterator[bytes]) -> None:
        try:
            async with contextlib.aclosing(cast("Any", pieces)) as source:
                async for piece in source:
                    await self._add(piece)
        finally:
            self._is_over = True
            async with self._changed:
                self._changed.notify_all()

    async def _add(self, piece: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._data) < _BATCH)
            self._data += piece
            self._changed.notify_all()

    async def take(self) -> bytes:
        """All that is there, once there is something; empty at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._data or self._is_over)
            data = bytes(self._data)
            self._data.clear()
            self._changed.notify_all()
            return data


async def progress_lines(steps: AsyncIterator[Any]) -> Stream:
    """A body of JSON lines.  What fails before the first line is raised, later it is the last line."""
    try:
        first = await anext(steps)
    except StopAsyncIteration:
        first = None

    async def lines() -> AsyncIterator[bytes]:
        try:
            async with contextlib.aclosing(cast("Any", steps)):
                if first is not None:
                    yield encode(first) + b"\n"
                async for step in steps:
                    yield encode(step) + b"\n"
        except HyperError as error:
            view = ErrorView(code=error.code, message=error.message, hint=error.hint)
            yield encode({"error": view}) + b"\n"

    return Stream(chunks=in_batches(lines()), content_type=JSON_LINES)
