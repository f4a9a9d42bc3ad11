"""An attached client's side of a process: its output as it comes, its stdin, its end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hypercontainer.guest.protocol import Stream
from hypercontainer.model.rest import TimelineView


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client has of a run, or does not want: the run by its position, and bytes of its streams."""

    run: int = 0
    stdout: int = 0
    stderr: int = 0

    @property
    def offsets(self) -> dict[Stream, int]:
        return {Stream.STDOUT: self.stdout, Stream.STDERR: self.stderr}


class Attachment(ABC):
    """One client's hold of a process of a container.  Dropping it leaves the process alone."""

    terminal: bool
    begin = (
        Seen()
    )  # the run, and the bytes of its streams that are not told; a client that comes back says so
    stdin: int = 0  # bytes of stdin that were accepted, from whomever, before this client's

    @abstractmethod
    def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """What the process prints, in order, until both its streams have ended."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """stdin; waits while the process does not read; dropped once it never will again."""

    async def taken(self, offset: int) -> int:
        """Waits until the process has more of stdin than ``offset`` bytes for good: how many it has.

        What is not taken yet may be lost when hyperd dies, and the client sends it again.
        """
        await asyncio.Event().wait()  # never, where nothing is kept to be taken
        return offset

    @abstractmethod
    async def write_end(self) -> None: ...

    @abstractmethod
    async def resize(self, *, rows: int, columns: int) -> None: ...

    @abstractmethod
    async def signal(self, number: int) -> None: ...

    @abstractmethod
    async def exit_code(self) -> int:
        """Waits for the end.  Raises HyperError when the process could not be started or was lost."""

    @abstractmethod
    def timeline(self) -> TimelineView:
        """How the pod's start went."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the process; it runs on."""
