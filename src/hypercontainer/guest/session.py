"""hyperd's side of the guest protocol as pure state: bytes in, events out, bytes to send kept ready.

One Session is one machine, over as many connections as it takes.  It does no I/O and no waiting.
The guest is not trusted: whatever ``protocol.py`` does not allow raises GuestError, and the caller
gives the machine up.  Nothing grows by what the guest sends alone: output is bounded by the windows
that hyperd granted, and input by STREAM_BUFFER for each process, whatever window the guest grants.

A reply to a request that is not pending is dropped: it answers an earlier connection's request, and
request ids begin anywhere, so that one of those does not match by chance.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hypercontainer.errors import GuestError, Unsupported
from hypercontainer.guest import schema
from hypercontainer.guest.protocol import (
    PROTOCOL_VERSION,
    STREAM_BUFFER,
    STREAM_CHUNK,
    Diagnostic,
    Done,
    Exited,
    Failed,
    ForgetProcess,
    GetProcesses,
    GetStatistics,
    GetTimeline,
    Hello,
    Input,
    InputEnd,
    InputWindow,
    Message,
    Output,
    OutputEnd,
    OutputWindow,
    Processes,
    StartArchive,
    Started,
    StartProcess,
    Statistics,
    Stream,
    Timeline,
    Welcome,
)
from hypercontainer.guest.wire import FrameParser, encode

OUTPUT_STREAMS = (Stream.STDOUT, Stream.STDERR)
NOBODY_READS = 2**64 - 1  # the limit of an InputWindow for a stdin that is closed
WINDOW_STEP = STREAM_BUFFER // 4  # bytes stored before the window is widened again
DROPPED_FRAMES = 64  # on one connection; a dying peer leaves one or two
DIAGNOSTICS = 1000  # lines on one connection; the rest is not worth the log

OLDER_MACHINE = "this machine was started by an older hyper"
OLDER_HINT = "stop and start the pod"

REPLIES: dict[type[Message], type[Message]] = {
    StartProcess: Started,
    StartArchive: Started,
    GetStatistics: Statistics,
    GetProcesses: Processes,
    GetTimeline: Timeline,
}  # of each other request: Done


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to ``request_id``, which was pending."""

    request_id: int
    message: Message


@dataclass(slots=True)
class _Output:
    received: int = 0  # all before it came in
    stored: int = 0  # all before it was acknowledged, or will be at the next step
    limit: int = 0  # as granted
    end: int | None = None

    @property
    def is_complete(self) -> bool:
        return self.end is not None and self.received == self.end

    def restart(self, offset: int) -> None:
        self.received = self.stored = self.limit = offset
        self.end = None


@dataclass(slots=True)
class _Input:
    accepted: int = 0  # all before it is in ``kept`` or acknowledged
    sent: int = 0  # on this connection
    received: int = 0  # by the guest
    limit: int = 0
    end: int | None = None
    is_end_sent: bool = False
    is_dropped: bool = False  # nobody reads it any more
    kept: deque[bytes] = field(default_factory=deque)  # from ``received`` on

    def acknowledge(self, offset: int) -> None:
        while self.kept and offset - self.received >= len(self.kept[0]):
            self.received += len(self.kept.popleft())
        if self.kept and offset > self.received:
            self.kept[0] = self.kept[0][offset - self.received :]
        self.received = offset

    def unsent(self) -> Iterator[tuple[int, bytes]]:
        """What is kept behind ``sent``, with its offsets, within the window."""
        at = self.received
        for chunk in self.kept:
            start, stop = max(self.sent, at), min(self.limit, at + len(chunk))
            if start < stop:
                yield start, chunk[start - at : stop - at]
            at += len(chunk)


@dataclass(slots=True)
class _Process:
    outputs: dict[Stream, _Output] = field(default_factory=lambda: {s: _Output() for s in OUTPUT_STREAMS})
    input: _Input = field(default_factory=_Input)
    is_asked: bool = False  # whether OutputWindows went out on this connection
    is_exited: bool = False


Event = Welcome | Reply | Output | OutputEnd | Exited | InputWindow | Diagnostic


class Session:
    """See the module.  After each call that may send, ``take`` gives the bytes."""

    def __init__(self) -> None:
        self.welcome: Welcome | None = None  # of this connection
        self._processes: dict[int, _Process] = {}
        self._starting: set[int] = set()  # those of which Started has not come
        self._pending: dict[int, Message] = {}
        self._resume: Mapping[int, Mapping[Stream, int]] = {}
        self._last_request = secrets.randbits(32)
        self._nonce = 0
        self._outgoing: list[bytes] = []
        self._parser = FrameParser()
        self._diagnostics = 0

    # --- Connection ---

    def connect(self, resume: Mapping[int, Mapping[Stream, int]]) -> None:
        """A new connection: say Hello, and forget what was half-said on the one before.

        ``resume`` gives, for each process, the offsets before which all output is stored; a stream that
        is not named begins at 0.  A process that is not named goes on where this session left it, or
        where the guest is when this session never saw it.
        """
        self.welcome = None
        self._resume = resume
        self._starting.clear()
        self._pending.clear()
        self._outgoing.clear()
        self._parser = FrameParser()
        self._diagnostics = 0
        self._nonce = secrets.randbits(64)
        self._send(Hello(version=PROTOCOL_VERSION, session=self._nonce))

    def take(self) -> list[bytes]:
        """The frames to send, which the session then forgets."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def receive(self, data: bytes) -> list[Event]:
        """What ``data`` from the guest means; raises GuestError when it breaks the protocol."""
        events: list[Event] = []
        for message, request_id in self._parser.feed(data):
            event = self._handle(message, request_id)
            if event is not None:
                events.append(event)
        if self._parser.dropped > DROPPED_FRAMES:
            raise GuestError(f"the guest sent {self._parser.dropped} broken frames on one connection")
        return events

    def _handle(self, message: Message, request_id: int) -> Event | None:
        match message:
            case Welcome():
                return self._on_welcome(message)
            case _ if self.welcome is None:
                return None  # left over from the connection before
            case Output():
                return self._on_output(message)
            case OutputEnd():
                return self._on_output_end(message)
            case Exited():
                return self._on_exited(message)
            case InputWindow():
                return self._on_input_window(message)
            case Diagnostic():
                self._diagnostics += 1
                return message if self._diagnostics <= DIAGNOSTICS else None
            case Done() | Failed() | Started() | Statistics() | Timeline() | Processes():
                return self._on_reply(message, request_id)
            case _:
                raise GuestError(f"the guest sent {type(message).__name__}, which only hyperd may send")

    def _on_welcome(self, welcome: Welcome) -> Welcome | None:
        if welcome.session != self._nonce:
            return None  # to an earlier Hello
        if self.welcome is not None:
            raise GuestError("the guest sent Welcome twice")
        self.welcome = welcome
        self._parser.exact = welcome.version == PROTOCOL_VERSION
        known, self._processes = self._processes, {}
        for state in welcome.processes:
            process = known.get(state.process)
            is_new = process is None
            process = self._processes[state.process] = process or _Process()
            produced = {Stream.STDOUT: state.stdout_produced, Stream.STDERR: state.stderr_produced}
            self._resume_output(state.process, process, produced, is_new=is_new)
            _resume_input(process.input, state.stdin_received, is_new=is_new)
        return welcome

    def _resume_output(
        self, number: int, process: _Process, produced: Mapping[Stream, int], *, is_new: bool
    ) -> None:
        process.is_asked = process.is_exited = False
        for stream, output in process.outputs.items():
            offset = produced[stream] if is_new else output.stored
            if number in self._resume:
                offset = self._resume[number].get(stream, 0)
            if offset > produced[stream]:
                raise GuestError(
                    f"process {number} is said to have written {produced[stream]} bytes to {stream.name}, "
                    f"of which {offset} are stored already"
                )
            output.restart(offset)

    # --- Requests ---

    def request(self, message: Message) -> int:
        """Send a request; its Reply event carries the id that this returns.

        Raises Unsupported for what the guest's version cannot do.
        """
        self._check_version(message)
        self._last_request = self._last_request % (2**32 - 1) + 1  # never 0
        self._send(message, self._last_request)
        self._pending[self._last_request] = message
        if isinstance(message, StartProcess | StartArchive) and message.process not in self._processes:
            self._processes[message.process] = _Process()
            self._starting.add(message.process)
        return self._last_request

    def _check_version(self, message: Message) -> None:
        """An older guest would do as if a field that it does not know were not there."""
        version = self.welcome.version if self.welcome else PROTOCOL_VERSION
        if version < PROTOCOL_VERSION and (unknown := next(schema.newer_fields(message, version), None)):
            raise Unsupported(f"{OLDER_MACHINE}: it knows no {unknown}", hint=OLDER_HINT)

    def _on_reply(self, message: Message, request_id: int) -> Reply | None:
        request = self._pending.pop(request_id, None)
        if request is None:
            return None
        expected = REPLIES.get(type(request), Done)
        if not isinstance(message, Failed | expected):
            raise GuestError(f"the guest answered {type(request).__name__} by {type(message).__name__}")
        self._after(request, message)
        return Reply(request_id, message)

    def _after(self, request: Message, reply: Message) -> None:
        match request, reply:
            case StartProcess(process=number) | StartArchive(process=number), Started() if (
                number in self._starting
            ):
                self._starting.discard(number)
                self.ask(number)
            case StartProcess(process=number) | StartArchive(process=number), Failed() if (
                number in self._starting
            ):
                self._drop(number)  # a refusal because the number is in use is not its end
            case ForgetProcess(process=number), Done():
                self._drop(number)

    def _drop(self, number: int) -> None:
        self._starting.discard(number)
        self._processes.pop(number, None)

    # --- Output ---

    def knows(self, number: int) -> bool:
        return number in self._processes

    def processes(self) -> frozenset[int]:
        return frozenset(self._processes)

    def ask(self, number: int) -> None:
        """Let the output of a process flow, once on each connection."""
        process = self._processes[number]
        if process.is_asked:
            return
        process.is_asked = True
        for stream in process.outputs:
            self._grant(number, stream, process.outputs[stream])

    def stored(self, number: int, stream: Stream, offset: int) -> None:
        """All before ``offset`` is safe.  The guest hears of it now and then, and at the stream's end."""
        process = self._processes.get(number)
        if process is None:
            return
        output = process.outputs[stream]
        if not output.stored <= offset <= output.received:
            raise ValueError(f"{offset} bytes stored of {output.received}, after {output.stored}")
        is_news = offset > output.stored
        output.stored = offset
        if offset + STREAM_BUFFER - output.limit >= WINDOW_STEP or (is_news and offset == output.end):
            self._grant(number, stream, output)

    def _grant(self, number: int, stream: Stream, output: _Output) -> None:
        output.limit = output.stored + STREAM_BUFFER
        self._send(OutputWindow(number, stream, output.stored, output.limit))

    def _on_output(self, message: Output) -> Output | None:
        output = self._output(message)
        end = message.offset + len(message.data)
        if not 0 < len(message.data) <= STREAM_CHUNK:
            raise GuestError(f"the guest sent {len(message.data)} bytes of output at once")
        if message.offset > output.received or end > output.limit or output.end is not None:
            raise GuestError(
                f"output of process {message.process} at {message.offset}..{end}, where "
                f"{output.received}..{output.limit} was due"
            )
        if end <= output.received:
            return None
        repeated = output.received - message.offset
        output.received = end
        if repeated == 0:
            return message
        return Output(
            message.process, message.stream, end - len(message.data) + repeated, message.data[repeated:]
        )

    def _on_output_end(self, message: OutputEnd) -> OutputEnd:
        output = self._output(message)
        if message.offset != output.received or output.end is not None:
            raise GuestError(f"process {message.process} ended a stream at a wrong place or twice")
        output.end = message.offset
        if output.stored == output.end:
            self._grant(message.process, Stream(message.stream), output)
        return message

    def _output(self, message: Output | OutputEnd) -> _Output:
        process = self._process(message.process)
        if message.stream not in OUTPUT_STREAMS or not process.is_asked:
            raise GuestError(f"output of process {message.process} that was not asked for")
        return process.outputs[Stream(message.stream)]

    def _on_exited(self, message: Exited) -> Exited:
        process = self._process(message.process)
        if process.is_exited or not all(output.is_complete for output in process.outputs.values()):
            raise GuestError(f"process {message.process} exited twice, or before its output ended")
        process.is_exited = True
        process.input.is_dropped = True
        process.input.kept.clear()
        return message

    def _process(self, number: int) -> _Process:
        process = self._processes.get(number)
        if process is None:
            raise GuestError(f"the guest spoke of process {number}, which there is not")
        return process

    # --- Input ---

    def is_dropped(self, number: int) -> bool:
        """Whether nobody reads the process's stdin any more."""
        process = self._processes.get(number)
        return process is None or process.input.is_dropped or process.input.end is not None

    def input_accepted(self, number: int) -> int:
        """How many bytes of stdin were written, by this hyperd and those before it."""
        process = self._processes.get(number)
        return process.input.accepted if process else 0

    def input_received(self, number: int) -> int:
        """How many of them the guest has; NOBODY_READS once it matters no more."""
        process = self._processes.get(number)
        return process.input.received if process and not process.input.is_dropped else NOBODY_READS

    def write(self, number: int, data: bytes | memoryview) -> int:
        """Take as much of ``data`` for stdin as there is room for; the number of bytes taken."""
        entry = self._processes[number].input
        room = min(entry.limit, entry.received + STREAM_BUFFER) - entry.accepted
        count = max(0, min(room, len(data)))
        for at in range(0, count, STREAM_CHUNK):
            entry.kept.append(bytes(data[at : min(count, at + STREAM_CHUNK)]))
        entry.accepted += count
        self._send_input(number, entry)
        return count

    def write_end(self, number: int) -> None:
        """stdin ends after what was written."""
        if not self.is_dropped(number):
            entry = self._processes[number].input
            entry.end = entry.accepted
            self._send_input(number, entry)

    def _send_input(self, number: int, entry: _Input) -> None:
        for offset, data in entry.unsent():
            self._send(Input(number, offset, data))
            entry.sent = offset + len(data)
        if entry.end == entry.sent and not entry.is_end_sent:
            entry.is_end_sent = True
            self._send(InputEnd(number, entry.sent))

    def _on_input_window(self, message: InputWindow) -> InputWindow:
        entry = self._process(message.process).input
        if entry.is_dropped:
            return message
        if message.limit == NOBODY_READS:
            entry.is_dropped = True
            entry.kept.clear()
            return message
        if not entry.received <= message.received <= entry.sent:
            raise GuestError(
                f"process {message.process} acknowledged input up to {message.received}, "
                f"of {entry.received}..{entry.sent} sent"
            )
        entry.acknowledge(message.received)
        entry.limit = max(entry.limit, message.limit)
        self._send_input(message.process, entry)
        return message

    def _send(self, message: Message, request_id: int = 0) -> None:
        self._outgoing.append(encode(message, request_id))


def _resume_input(entry: _Input, received: int, *, is_new: bool) -> None:
    """Go on where the guest is; what this hyperd sent and the guest does not have is sent again."""
    if is_new:
        entry.accepted = entry.received = received
    elif not entry.is_dropped:
        if not entry.received <= received <= entry.accepted:
            raise GuestError(f"the guest has {received} bytes of input, of {entry.accepted} that were sent")
        entry.acknowledge(received)
    entry.sent = entry.limit = entry.received
    entry.is_end_sent = False
