"""hyperstart as the protocol describes it, in memory: the peer of the tests.  It speaks real bytes.

Its processes are toys: "cat" copies stdin to stdout and, in capitals, to stderr, and exits with 17 when
stdin ends; "print" writes ``argv[1]`` to stdout ``argv[2]`` times, and exits with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from hypercontainer.guest.channel import Channel
from hypercontainer.guest.protocol import (
    PROTOCOL_VERSION,
    STREAM_BUFFER,
    STREAM_CHUNK,
    Done,
    Exited,
    Failed,
    ForgetProcess,
    GetStatistics,
    Hello,
    Input,
    InputEnd,
    InputWindow,
    Message,
    Output,
    OutputEnd,
    OutputWindow,
    Ping,
    ProcessState,
    Started,
    StartProcess,
    Statistics,
    Stream,
    Welcome,
)
from hypercontainer.guest.session import NOBODY_READS
from hypercontainer.guest.wire import FrameParser, encode


@dataclass
class FakeStream:
    """An output stream: what is kept, from ``acknowledged`` on."""

    acknowledged: int = 0
    kept: bytearray = field(default_factory=bytearray)
    sent: int = 0
    limit: int = 0
    is_asked: bool = False
    is_ended: bool = False
    is_end_sent: bool = False

    @property
    def produced(self) -> int:
        return self.acknowledged + len(self.kept)

    @property
    def room(self) -> int:
        return STREAM_BUFFER - len(self.kept)

    def on_window(self, window: OutputWindow) -> None:
        assert self.acknowledged <= window.received <= self.produced
        del self.kept[: window.received - self.acknowledged]
        self.acknowledged = window.received
        self.sent = self.sent if self.is_asked else window.received
        self.limit = window.limit
        self.is_asked = True


@dataclass
class FakeProcess:
    program: tuple[str, ...]
    stdin: bool
    outputs: dict[int, FakeStream] = field(default_factory=lambda: {1: FakeStream(), 2: FakeStream()})
    received: bytearray = field(default_factory=bytearray)  # all of stdin, ever
    consumed: int = 0
    has_input_ended: bool = False
    left: bytes = b""  # of what "print" prints
    status: int | None = None
    is_exit_sent: bool = False

    def __post_init__(self) -> None:
        if self.program[0] == "print":
            self.left = self.program[1].encode() * int(self.program[2])

    def run(self) -> None:
        if self.status is not None:
            return
        if self.program[0] == "print":
            self._print()
        else:
            self._copy()

    def _print(self) -> None:
        count = min(self.outputs[1].room, len(self.left))
        self.outputs[1].kept += self.left[:count]
        self.left = self.left[count:]
        if not self.left:
            self._exit(0)

    def _copy(self) -> None:
        room = min(output.room for output in self.outputs.values())
        data = bytes(self.received[self.consumed :][:room])
        self.consumed += len(data)
        self.outputs[1].kept += data
        self.outputs[2].kept += data.upper()
        if self.has_input_ended and self.consumed == len(self.received):
            self._exit(17)

    def _exit(self, status: int) -> None:
        self.status = status
        for output in self.outputs.values():
            output.is_ended = True


class FakeGuest:
    """Bytes of hyperd in, bytes for hyperd out; its state outlives each connection."""

    def __init__(self, *, chunk: int = STREAM_CHUNK, input_room: int = STREAM_BUFFER) -> None:
        self.chunk = chunk
        self.input_room = input_room
        self.processes: dict[int, FakeProcess] = {}
        self.started: list[int] = []
        self.silent: set[type[Message]] = set()  # requests that it does not answer
        self._parser = FrameParser()
        self._outgoing: list[bytes] = []
        self._is_welcomed = False

    def feed(self, data: bytes) -> bytes:
        for message, request_id in self._parser.feed(data):
            self._handle(message, request_id)
        for number, process in self.processes.items():
            self._work(number, process)
        outgoing, self._outgoing = b"".join(self._outgoing), []
        return outgoing

    def _send(self, message: Message, request_id: int = 0) -> None:
        self._outgoing.append(encode(message, request_id))

    def _handle(self, message: Message, request_id: int) -> None:
        if type(message) in self.silent:
            return
        match message:
            case Hello():
                self._hello(message, request_id)
            case StartProcess(process=number):
                self._start(number, message, request_id)
            case ForgetProcess(process=number):
                self.processes.pop(number, None)
                self._send(Done(), request_id)
            case Ping():
                self._send(Done(), request_id)
            case GetStatistics():
                self._send(Statistics(1, 2, 3, 4, (), 1, 5, (), ()), request_id)
            case Input() | InputEnd() | OutputWindow():
                if message.process in self.processes:
                    self._stream(self.processes[message.process], message)
            case _:
                self._send(Failed(errno.ENOSYS, "answer", type(message).__name__), request_id)

    def _hello(self, hello: Hello, request_id: int) -> None:
        self._outgoing.clear()
        states = tuple(_state(number, process) for number, process in self.processes.items())
        self._send(Welcome(PROTOCOL_VERSION, hello.session, "6.12.0", 1, 2, False, (), states), request_id)
        for number, process in self.processes.items():
            process.is_exit_sent = False
            for output in process.outputs.values():
                output.is_asked = output.is_end_sent = False
            self._grant(number, process)
        self._is_welcomed = True

    def _start(self, number: int, message: StartProcess, request_id: int) -> None:
        if message.argv[0] not in {"cat", "print"}:
            self._send(Failed(errno.ENOENT, "execve", message.argv[0]), request_id)
            return
        self.started.append(number)
        self.processes[number] = FakeProcess(message.argv, message.stdin)
        self._send(Started(7, 8), request_id)
        self._grant(number, self.processes[number])

    def _stream(self, process: FakeProcess, message: Input | InputEnd | OutputWindow) -> None:
        match message:
            case OutputWindow(stream=stream):
                process.outputs[stream].on_window(message)
            case Input(offset=offset, data=data):
                assert offset <= len(process.received) <= process.consumed + self.input_room
                process.received += data[len(process.received) - offset :]
            case InputEnd(offset=offset):
                assert offset == len(process.received)
                process.has_input_ended = True

    def _grant(self, number: int, process: FakeProcess) -> None:
        limit = (
            process.consumed + self.input_room if process.stdin and process.status is None else NOBODY_READS
        )
        self._send(InputWindow(number, len(process.received), limit))

    def _work(self, number: int, process: FakeProcess) -> None:
        consumed = process.consumed
        process.run()
        if self._is_welcomed and process.consumed != consumed:
            self._grant(number, process)
        for stream, output in process.outputs.items():
            self._send_output(number, stream, output)
        is_drained = all(output.is_end_sent for output in process.outputs.values())
        if process.status is not None and is_drained and not process.is_exit_sent:
            process.is_exit_sent = True
            self._send(Exited(number, process.status, False, 9))

    def _send_output(self, number: int, stream: int, output: FakeStream) -> None:
        while output.is_asked and output.sent < min(output.limit, output.produced):
            start = output.sent - output.acknowledged
            data = bytes(output.kept[start : start + min(self.chunk, output.limit - output.sent)])
            self._send(Output(number, stream, output.sent, data))
            output.sent += len(data)
        if output.is_asked and output.is_ended and output.sent == output.produced and not output.is_end_sent:
            output.is_end_sent = True
            self._send(OutputEnd(number, stream, output.produced))


def _state(number: int, process: FakeProcess) -> ProcessState:
    return ProcessState(
        number,
        "c",
        process.status is None,
        process.status or 0,
        len(process.received),
        process.outputs[Stream.STDOUT].produced,
        process.outputs[Stream.STDERR].produced,
    )


def start(number: int, *argv: str, stdin: bool = True) -> StartProcess:
    """A StartProcess with good defaults."""
    return StartProcess(number, "c", True, argv, (), "/", "", (), False, 0, 0, stdin, (), False, False)


@contextlib.asynccontextmanager
async def connected(guest: FakeGuest) -> AsyncIterator[Channel]:
    """A channel to ``guest`` over a socket pair, served while the block lasts."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    async with asyncio.TaskGroup() as tasks:
        server = tasks.create_task(_serve(guest, theirs))
        try:
            yield Channel(reader, writer)
        finally:
            server.cancel()
            await _end(writer)


async def _serve(guest: FakeGuest, connection: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        while data := await reader.read(1 << 18):
            writer.write(guest.feed(data))
            await writer.drain()
    except ConnectionError:
        pass  # hyperd died
    finally:
        await _end(writer)


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
