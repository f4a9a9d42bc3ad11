"""The engine's client of hyperstart: a Session over a Channel, for asyncio.

An Agent is one connection.  It owns one task, which reads; ``close``, or leaving ``async with``, ends it
and leaves the machine running.  Cancelling any call leaves the agent as good as before.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import logging
import os
from collections import deque
from collections.abc import Mapping
from typing import Self

from hypercontainer.errors import GuestError, HyperError, InvalidState, Unavailable, Unsupported
from hypercontainer.faults import point
from hypercontainer.guest.channel import Channel
from hypercontainer.guest.protocol import (
    Diagnostic,
    Exited,
    Failed,
    ForgetProcess,
    InputWindow,
    Message,
    Output,
    OutputEnd,
    StartArchive,
    StartProcess,
    Stream,
    Welcome,
)
from hypercontainer.guest.session import OLDER_HINT, OLDER_MACHINE, OUTPUT_STREAMS, Event, Reply, Session

log = logging.getLogger(__name__)

READ_SIZE = 1 << 18  # bytes taken from the channel at once
CLOSE_TIMEOUT_S = 1.0  # for what is still to be sent
SEND_LIMIT = 1 << 26  # bytes waiting for a guest that does not read; then it is given up
MERGE_SIZE = 1 << 12  # smaller outputs of one stream that wait together become one


class Agent:
    """hyperstart of one machine, through one connection.  Made by ``connect``."""

    welcome: Welcome

    def __init__(self, channel: Channel, session: Session) -> None:
        self.failure: HyperError | None = None  # why the channel has ended
        self._channel = channel
        self._session = session
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._processes: dict[int, Process] = {}
        self._welcomed = asyncio.Event()
        self._closed = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        channel: Channel,
        *,
        resume: Mapping[int, Mapping[Stream, int]] | None = None,
        previous: Agent | None = None,
    ) -> Self:
        """Say Hello and wait for Welcome, as long as the guest takes to boot.

        ``resume`` gives for each process the offsets before which its output is stored; what is behind
        them comes (again) from ``Process.read``.  Of a process that it does not name, what was written
        until now is skipped.  ``previous`` is this hyperd's agent of a connection that has ended: the
        input that the guest did not acknowledge then is sent again.
        Raises Unavailable when the channel ends, GuestError when the guest breaks the protocol.
        """
        if previous is not None:
            await previous.close()
        agent = cls(channel, previous._session if previous else Session())
        agent._session.connect(resume or {})
        agent._reader = asyncio.create_task(agent._read())
        try:
            agent._flush()
            await agent._welcomed.wait()
            agent._check()
        except BaseException:
            await agent.close()
            raise
        return agent

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def request(self, message: Message) -> Message:
        """Send ``message`` and wait for its answer: Done, or the reply that its docstring names.

        Raises GuestError with the guest's errno for Failed, Unsupported for what an older guest cannot do,
        and Unavailable when the channel has gone.
        """
        self._check()
        point("asking guest")
        request_id = self._session.request(message)
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._replies[request_id] = reply
        try:
            await self._drain()
            answer = await reply
        finally:
            del self._replies[request_id]
            reply.cancel()
        point("guest answered")
        if isinstance(answer, Failed):
            raise _refusal(answer)
        return answer

    async def start_process(self, message: StartProcess | StartArchive) -> Process:
        """Start a process; GuestError with the errno of execve, or of opening the archive's path, if not."""
        if message.process in self._processes:
            raise InvalidState(f"process number {message.process} is in use")
        process = self._processes[message.process] = Process(self, message.process)
        try:
            await self.request(message)
        except HyperError:
            self._processes.pop(message.process, None)
            raise
        return process

    def process(self, number: int) -> Process:
        """A process that Welcome named, or that was started here; its output flows from now on.

        Always the same object for a number, also when the channel has ended meanwhile.
        """
        if number in self._processes:
            return self._processes[number]
        self._check()
        if not self._session.knows(number):
            raise GuestError(f"the guest has no process {number}", errno=errno.ESRCH)
        process = self._processes[number] = Process(self, number)
        self._session.ask(number)
        self._flush()
        return process

    def processes(self) -> frozenset[int]:
        """The numbers of those that hyperstart was not told to forget: of Welcome, and started since."""
        return self._session.processes()

    async def forget(self, number: int) -> None:
        """Its end is recorded, or nobody waits for that: hyperstart and this agent need not know it."""
        await self.request(ForgetProcess(number))
        self._processes.pop(number, None)

    async def closed(self) -> None:
        """Until the channel has ended; ``failure`` says why."""
        await self._closed.wait()

    async def close(self) -> None:
        """End the connection.  The machine and its processes run on."""
        self._fail(Unavailable("the channel to the guest was closed"))
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._channel.writer.wait_closed()
        except (OSError, TimeoutError):  # broken, or a guest that does not read
            self._channel.writer.transport.abort()

    # --- Inside ---

    async def _read(self) -> None:
        """The one task: bytes in, until the channel ends or the guest breaks the protocol."""
        try:
            while data := await self._channel.reader.read(READ_SIZE):
                for event in self._session.receive(data):
                    self._deliver(event)
                self._flush()
            self._fail(Unavailable("the guest's channel has ended", hint="the machine may have stopped"))
        except HyperError as error:
            self._fail(error)
        except OSError as error:
            self._fail(Unavailable(f"the guest's channel broke: {error.strerror or error}"))
        except Exception as error:
            log.exception("reading from the guest")
            self._fail(GuestError(f"reading from the guest failed: {error!r}"))

    def _deliver(self, event: Event) -> None:
        match event:
            case Output() | OutputEnd() | InputWindow() | Exited():
                if process := self._processes.get(event.process):
                    process._deliver(event)
            case Reply():
                future = self._replies.get(event.request_id)
                if future and not future.done():
                    future.set_result(event.message)
            case Welcome():
                self.welcome = event
                self._welcomed.set()
            case Diagnostic():
                log.warning("hyperstart: %s", clean(event.text))

    def _fail(self, error: HyperError) -> None:
        if self.failure is not None:
            return
        self.failure = error
        self._channel.writer.close()
        for future in self._replies.values():
            if not future.done():
                future.set_exception(copy.copy(error))
        for process in self._processes.values():
            process._wake()
        self._welcomed.set()
        self._closed.set()

    def _check(self) -> None:
        if self.failure is not None:
            raise copy.copy(self.failure)  # each raise its own traceback

    def _flush(self) -> None:
        """Hand what the session wants sent to the transport."""
        frames = self._session.take()
        if not frames or self.failure is not None:
            return
        writer = self._channel.writer
        writer.writelines(frames)
        if writer.transport.get_write_buffer_size() > SEND_LIMIT:
            self._fail(GuestError("the guest does not read its channel"))

    async def _drain(self) -> None:
        """Flush, and wait while the transport is full."""
        self._flush()
        try:
            await self._channel.writer.drain()
        except OSError as error:
            self._fail(Unavailable(f"the guest's channel broke: {error.strerror or error}"))
        self._check()


class Process:
    """A process in the guest, by its number.  One reader and any number of writers."""

    def __init__(self, agent: Agent, number: int) -> None:
        self.number = number
        self._agent = agent
        self._session = agent._session
        self._outputs: deque[Output] = deque()
        self._ended: set[int] = set()  # streams
        self._exit: Exited | None = None
        self._arrived = asyncio.Event()  # something for ``read`` or ``exited``
        self._room = asyncio.Event()  # something for ``write``
        self._writing = asyncio.Lock()

    async def read(self) -> Output | None:
        """The next output of either stream in the order of arrival; None once both have ended for good.

        Small outputs of one stream may come merged.  What the guest sent before the channel ended is
        still given; then this raises why it ended.
        """
        while not self._outputs:
            if len(self._ended) == len(OUTPUT_STREAMS):
                return None
            await self._wait(self._arrived)
        return self._outputs.popleft()

    def stored(self, stream: Stream, offset: int) -> None:
        """All output before ``offset`` is safe: the guest may forget it, and send more.

        Cheap: the guest hears of it once in a quarter of STREAM_BUFFER, and at the stream's end.
        """
        if self._agent.failure is None:
            self._session.stored(self.number, stream, offset)
            self._agent._flush()

    async def write(self, data: bytes) -> None:
        """Write to stdin, as fast as the process reads; dropped once nobody reads it.

        Cancelled, it has written some of ``data``, or all, or nothing.
        """
        async with self._writing:
            rest = memoryview(data)
            while rest and not self._is_deaf():
                rest = rest[self._session.write(self.number, rest) :]
                await self._agent._drain()
                if rest and not self._is_deaf():
                    await self._wait(self._room)

    async def write_end(self) -> None:
        """End stdin after all that was written; Ctrl-D for a terminal."""
        async with self._writing:
            if not self._is_deaf():
                self._session.write_end(self.number)
                await self._agent._drain()

    @property
    def input_accepted(self) -> int:
        """Bytes of stdin that were taken from whomever so far, by this hyperd and those before it."""
        return self._session.input_accepted(self.number)

    async def taken(self, offset: int) -> int:
        """Wait until the guest has more than ``offset`` bytes of stdin: how many; NOBODY_READS at its end."""
        while (received := self._session.input_received(self.number)) <= offset:
            await self._wait(self._room)
        return received

    async def exited(self) -> Exited:
        """How the process ended, once its streams have ended too: somebody must ``read`` them."""
        while self._exit is None:
            await self._wait(self._arrived)
        return self._exit

    async def forget(self) -> None:
        """As ``Agent.forget``."""
        await self._agent.forget(self.number)

    def _is_deaf(self) -> bool:
        self._agent._check()
        return self._session.is_dropped(self.number)

    async def _wait(self, event: asyncio.Event) -> None:
        self._agent._check()
        event.clear()
        await event.wait()

    def _wake(self) -> None:
        self._arrived.set()
        self._room.set()

    def _deliver(self, event: Output | OutputEnd | InputWindow | Exited) -> None:
        match event:
            case Output():
                self._append(event)
            case OutputEnd():
                self._ended.add(event.stream)
            case InputWindow():
                self._room.set()
                return
            case Exited():
                self._exit = event
                self._room.set()
        self._arrived.set()

    def _append(self, output: Output) -> None:
        """Keep ``output``, with the one before when both are small: so many a byte costs no object each."""
        last = self._outputs[-1] if self._outputs else None
        if last and last.stream == output.stream and len(last.data) + len(output.data) <= MERGE_SIZE:
            output = Output(self.number, output.stream, last.offset, last.data + output.data)
            self._outputs.pop()
        self._outputs.append(output)


def _refusal(failed: Failed) -> GuestError | Unsupported:
    if failed.errno == errno.ENOSYS and failed.operation == "take":
        return Unsupported(f"{OLDER_MACHINE}, which cannot do that", hint=OLDER_HINT)
    reason = os.strerror(failed.errno) if 0 < failed.errno < 4096 else f"error {failed.errno}"
    what = " ".join(clean(part) for part in (failed.operation, failed.subject) if part)
    return GuestError(f"the guest refused: {what}: {reason}", errno=failed.errno, operation=failed.operation)


def clean(text: str) -> str:
    """The guest's words, fit for one line of a log or a terminal."""
    short = text if len(text) <= 500 else f"{text[:500]}..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in short)
