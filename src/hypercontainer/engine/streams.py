"""An attached client's side of a process: its output as it comes, its stdin, its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from hypercontainer.guest.protocol import Stream
from hypercontainer.model.rest import TimelineView


class Attachment(ABC):
    """One client's hold of a process of a container.  Dropping it leaves the process alone."""

    terminal: bool

    @abstractmethod
    def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """What the process prints, in order, until both its streams have ended."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """stdin; waits while the process does not read; dropped once it never will again."""

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
