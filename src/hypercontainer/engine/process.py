"""One run of a process in a guest: its output goes to a log, its end to whoever waits."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from hypercontainer.engine.output import OutputLog
from hypercontainer.engine.records import ProcessRecord
from hypercontainer.engine.timeline import StartTimeline
from hypercontainer.errors import HypervisorError, InvalidState, Unavailable
from hypercontainer.guest.agent import Agent, Process
from hypercontainer.guest.protocol import Exited, Output, SignalProcess, Stream

logger = logging.getLogger(__name__)

_FULL_DISK_PAUSE_S = 1.0


class ProcessRun:
    """A process that runs, or did; whoever holds this may wait for its end."""

    def __init__(
        self,
        record: ProcessRecord,
        *,
        agent: Agent,
        log: OutputLog,
        terminal: bool,
        timeline: StartTimeline | None = None,
    ) -> None:
        self.record = record
        self.log = log
        self.terminal = terminal
        self.agent = agent
        self.guest: Process = agent.process(record.number)
        self._timeline = timeline
        self._ended = asyncio.Event()

    @property
    def is_running(self) -> bool:
        return not self._ended.is_set()

    async def pump(self) -> ProcessRecord:
        """Store all the output, and return the record of the end; Unavailable when the guest is lost."""
        while (output := await self.guest.read()) is not None:
            if output.offset == 0 and self._timeline is not None:
                self._timeline.mark(f"first byte of {Stream(output.stream).name.lower()}")
            await self._store(output)
            self.guest.stored(Stream(output.stream), self.log.offsets[Stream(output.stream)])
            await self.log.room()
        return ended_record(self.record, await self.guest.exited())

    async def _store(self, output: Output) -> None:
        """A full disk makes the process wait for room, as a full pipe would."""
        while True:
            try:
                return self.log.append(Stream(output.stream), output.data)
            except Unavailable as error:
                logger.warning("%s; the process waits", error.message)
                await asyncio.sleep(_FULL_DISK_PAUSE_S)

    def finish(self, record: ProcessRecord, *, is_last: bool = True) -> None:
        """The end is recorded: tell everyone.  Unless it is the last run, the log goes on."""
        self.record = record
        self._ended.set()
        if is_last:
            self.log.finish()
        else:
            self.log.end_run()

    async def wait(self) -> ProcessRecord:
        await self._ended.wait()
        return self.record

    async def signal(self, number: int, *, whole_container: bool = False) -> None:
        if self.is_running:
            await self.agent.request(SignalProcess(self.record.number, number, whole_container))


def ended_record(record: ProcessRecord, exited: Exited) -> ProcessRecord:
    return msgspec.structs.replace(
        record, finished=time.time(), exit_code=exited.status, out_of_memory=exited.out_of_memory
    )


def lost_record(record: ProcessRecord, reason: str) -> ProcessRecord:
    """The end of a process whose machine went away under it: as if killed."""
    return msgspec.structs.replace(record, finished=time.time(), exit_code=137, error=reason)


def exit_code(record: ProcessRecord) -> int:
    """Raises HypervisorError when the process did not end by itself."""
    if record.error:
        raise HypervisorError(record.error, hint="hyper inspect shows the console log's path")
    if record.exit_code is None:
        raise InvalidState("the process has not been started")
    return record.exit_code
