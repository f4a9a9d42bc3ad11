"""How a client holds a process: one that runs, or one that ended while nobody could tell it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Iterator

from hypercontainer.engine.follower import Follower
from hypercontainer.engine.output import OutputLog
from hypercontainer.engine.process import ProcessRun, exit_code
from hypercontainer.engine.records import ProcessRecord
from hypercontainer.engine.streams import Attachment, Seen
from hypercontainer.engine.timeline import StartTimeline
from hypercontainer.errors import GuestError, InvalidState
from hypercontainer.guest.protocol import ResizeTerminal, Stream
from hypercontainer.model.rest import TimelineView


def follow_again(log: OutputLog, seen: Seen, name: str) -> Follower:
    """A reader of what the client lacks; InvalidState when that run is not the newest any more."""
    if seen.run != log.run_start:
        raise InvalidState(
            f"{name} was started again meanwhile", hint="hyper logs has what it printed, hyper attach goes on"
        )
    start = log.position_of(seen.offsets)
    return log.follow(start, throttle=True, seen=seen.offsets)


@contextlib.contextmanager
def _unless_ended(*refusals: int) -> Iterator[None]:
    """What a process was asked that has ended in the guest is no error, though its end was not told yet."""
    try:
        yield
    except GuestError as error:
        if error.errno not in {errno.ESRCH, *refusals}:
            raise


class ProcessAttachment(Attachment):
    """A client of a process, reading its log from a position taken before it started."""

    def __init__(
        self,
        process: ProcessRun | ProcessRecord,
        begin: Seen,
        follower: Follower,
        timeline: StartTimeline,
        *,
        terminal: bool,
        closed: Callable[[], None] | None = None,
    ) -> None:
        """``process`` is the run, or the record of one that has ended; ``closed`` is called at the end."""
        self._run = process if isinstance(process, ProcessRun) else None
        self._record = process if isinstance(process, ProcessRecord) else process.record
        self._follower = follower
        self._timeline = timeline
        self._closed = closed
        self.terminal = terminal
        self.begin = begin
        self.stdin = self._run.guest.input_accepted if self._run is not None else 0

    @property
    def _running(self) -> ProcessRun | None:
        return self._run if self._run is not None and self._run.is_running else None

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        async for record in self._follower.records(follow=self._run is not None):
            yield record.stream, record.data

    async def write(self, data: bytes) -> None:
        if run := self._running:
            await run.guest.write(data)

    async def write_end(self) -> None:
        if run := self._running:
            await run.guest.write_end()

    async def taken(self, offset: int) -> int:
        if self._run is None:
            return await super().taken(offset)
        return await self._run.guest.taken(offset)

    async def resize(self, *, rows: int, columns: int) -> None:
        if run := self._running:
            with _unless_ended(errno.ENOTTY if self.terminal else 0):
                await run.agent.request(ResizeTerminal(run.record.number, rows, columns))

    async def signal(self, number: int) -> None:
        if run := self._running:
            with _unless_ended():
                await run.signal(number)

    async def exit_code(self) -> int:
        return exit_code(self._record if self._run is None else await self._run.wait())

    def timeline(self) -> TimelineView:
        return self._timeline.view()

    def close(self) -> None:
        self._follower.close()
        if self._closed is not None:
            self._closed()
