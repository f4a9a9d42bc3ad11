"""A reader of an output log: what is stored, and what comes, from a position on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypercontainer.engine.segments import Entry, Segment, read_entries
from hypercontainer.guest.protocol import Stream

if TYPE_CHECKING:
    from hypercontainer.engine.output import OutputLog

FOLLOWER_LAG = 8 << 20  # bytes that an attached client may be behind before the process has to wait


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A piece of output; ``time_ns`` is since the epoch, when hyperd stored it."""

    stream: Stream
    time_ns: int
    data: bytes


class Follower:
    """Holds the file that it reads, so it reads on when that is rotated away or the pod is removed."""

    def __init__(
        self,
        log: OutputLog,
        start: int = 0,
        *,
        throttle: bool = False,
        seen: Mapping[Stream, int] | None = None,
    ) -> None:
        """``throttle``: the process waits for it, and nothing that it has not read is rotated away.

        ``seen``: bytes of the run's streams that are left out.
        """
        self._log = log
        self._seen = dict(seen or {})
        self._segment: Segment | None = None
        self._file = -1
        self.position = start
        self.end: int | None = None  # the position where it ends, if that is before the log's end
        self.throttle = throttle
        self.news = asyncio.Event()
        log.followers.add(self)

    async def records(self, *, follow: bool) -> AsyncIterator[LogRecord]:
        """What is stored, and with ``follow`` what comes, until the process has ended."""
        while True:
            self.news.clear()
            for entry in self._stretch():
                if entry.stream and (data := self._unseen(entry)):
                    yield LogRecord(Stream(entry.stream), entry.time_ns, data)
            self._log.update_room()
            if self._is_at_end(follow=follow):
                return
            if self.position >= self._log.size:
                await self.news.wait()

    def _is_at_end(self, *, follow: bool) -> bool:
        if self.end is not None and self.position >= self.end:
            return True
        return self.position >= self._log.size and (not follow or self._log.is_finished)

    def close(self) -> None:
        if self not in self._log.followers:
            return
        self._log.followers.discard(self)
        self._let_go()
        self._log.update_room()
        self._log.close_unread()

    def _stretch(self) -> Iterator[Entry]:
        """The next whole records; ``position`` moves past each as it is taken."""
        segment = self._here()
        if segment is None:
            return
        self.position = max(self.position, segment.base)  # some may have been rotated away meanwhile
        end = segment.end if self.end is None else min(self.end, segment.end)
        for entry in read_entries(self._file, segment.base, self.position, end):
            self.position = entry.end
            yield entry

    def _here(self) -> Segment | None:
        """The segment to read from: the one held, as long as there is more in it."""
        if self._segment is None or self._segment.end <= self.position:
            self._let_go()
            self._segment = next((s for s in self._log.segments if s.end > self.position), None)
            self._file = os.dup(self._segment.file) if self._segment else -1
        return self._segment

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._segment, self._file = None, -1

    def _unseen(self, entry: Entry) -> bytes:
        skipped = self._seen.get(Stream(entry.stream), 0) - entry.offset
        return entry.data[skipped:] if skipped > 0 else entry.data
