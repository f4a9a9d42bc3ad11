"""What a process printed, on disk: the one place that attached clients, ``logs`` and recovery read from.

The guest is told to forget bytes only once they are here, and the newest records say how far each stream
has come, so that a new daemon asks the guest for what follows: nothing is lost, nothing is stored twice.
Records keep bytes as they are, with a time and an offset; JSON lines, which can hold neither binary
output nor a place to go on from, are written beside (`jsonlines`) where a user asked for a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypercontainer.engine.follower import FOLLOWER_LAG, Follower
from hypercontainer.engine.jsonlines import JsonLines
from hypercontainer.engine.segments import HEADER, MARK_SIZE, Entry, Mark, Segment, find_segments
from hypercontainer.engine.streams import Seen
from hypercontainer.errors import Unavailable
from hypercontainer.faults import point
from hypercontainer.guest.protocol import Stream
from hypercontainer.model.pod import LogSpec

_SMALLEST_SEGMENT = 16 << 10  # each is an open file


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept: ``files`` segments of ``size`` bytes, the oldest go first; ``files`` 0: all."""

    size: int
    files: int


EVERYTHING = Retention(size=64 << 20, files=0)
# For who is attached, and no longer: as much as one may be behind, also when hyperd dies.
TRANSIENT = Retention(size=FOLLOWER_LAG // 2, files=3)


def retention(spec: LogSpec) -> Retention:
    """What a container's log driver keeps."""
    if spec.driver == "none":
        return TRANSIENT
    if not spec.max_size:
        return EVERYTHING
    return Retention(size=max(spec.max_size, _SMALLEST_SEGMENT), files=spec.max_files)


class OutputLog:
    """The output of one process, appended by one writer and read by any number of followers."""

    def __init__(
        self, path: Path, *, keep: Retention = EVERYTHING, json_lines: JsonLines | None = None
    ) -> None:
        self.path = path
        self._keep = keep
        self._last_time_ns = 0
        self._offsets = {Stream.STDOUT: 0, Stream.STDERR: 0}
        self.run_start = 0  # position
        self.segments = [Segment(each, base) for base, each in find_segments(path)]
        self.followers: set[Follower] = set()
        self._room = asyncio.Event()
        self._room.set()
        self.is_finished = False
        self._is_closed = False
        self._recover()
        self._json_lines = json_lines
        self._copy()

    @property
    def offsets(self) -> dict[Stream, int]:
        """For each stream of this run, how many bytes are stored."""
        return dict(self._offsets)

    @property
    def seen(self) -> Seen:
        """All that is stored of this run."""
        return Seen(self.run_start, self._offsets[Stream.STDOUT], self._offsets[Stream.STDERR])

    @property
    def unkept(self) -> Seen:
        """What was stored of this run and is kept no more."""
        if self.start <= self.run_start:
            return Seen(self.run_start)
        mark = self.segments[0].mark
        return Seen(self.run_start, mark.stdout, mark.stderr)

    @property
    def start(self) -> int:
        """The oldest position that is kept."""
        return self.segments[0].base if self.segments else 0

    @property
    def size(self) -> int:
        """Where the next record will begin: a position to follow from."""
        return self.segments[-1].end if self.segments else 0

    def restart(self) -> None:
        """Another run of the container: its streams count from 0 again, behind what is stored.

        Unavailable when the file that a user asked for cannot be written.
        """
        if self._json_lines is not None:
            self._json_lines.open(self.segments)
        if self.segments:
            self._make_room(MARK_SIZE)
            mark = Mark(0, 0, self.size)
            self._write(mark.encode(self._now_ns()))
            self._offsets, self.run_start = mark.offsets, mark.run_start
        self.is_finished = False

    def append(self, stream: Stream, data: bytes) -> None:
        """Store ``data``; Unavailable when the disk is full, and then nothing of it is stored."""
        self._write(HEADER.pack(stream, self._now_ns(), self._offsets[stream], len(data)) + data)
        self._offsets[stream] += len(data)
        self._copy()

    async def room(self) -> None:
        """Waits while an attached client is too far behind."""
        await self._room.wait()

    def finish(self) -> None:
        """Nothing more will come: followers end."""
        self.is_finished = True
        self._wake()

    def end_run(self) -> None:
        """The process has ended, and another will be started: who is attached to this one ends here."""
        for follower in self.followers:
            if follower.throttle:
                follower.end = self.size
        self._wake()

    def close(self) -> None:
        """Finish it for good.  Those who follow read on to the end."""
        self.finish()
        self._is_closed = True
        if self._json_lines is not None:
            self._json_lines.close()
        self.close_unread()

    def close_unread(self) -> None:
        """Close the files, when this log is closed and the last follower has gone."""
        if self._is_closed and not self.followers:
            for segment in self.segments:
                segment.close()

    def remove(self) -> None:
        """Close it and remove its files; those who follow read on."""
        for segment in self.segments:
            segment.path.unlink(missing_ok=True)
        self.close()

    def follow(self, start: int = 0, **how: Any) -> Follower:
        """A reader from position ``start`` on; see Follower for the rest."""
        return Follower(self, start, **how)

    def position_of(self, offsets: Mapping[Stream, int]) -> int:
        """A position in this run before which nothing behind ``offsets`` stands."""
        for segment in reversed(self.segments):
            mark = segment.mark
            if mark.run_start != self.run_start:
                break
            if all(mark.offsets[stream] <= offset for stream, offset in offsets.items()):
                return segment.base
        return max(self.run_start, self.start)

    def tail(self, lines: int) -> tuple[int, int]:
        """Where the last ``lines`` lines begin: a record's position, and a number of its bytes.

        Lines are counted over both streams in the order they were stored; the last may lack its newline.
        """
        wanted = lines
        is_last = True
        for entry in self._newest_first() if lines else ():
            wanted += is_last and entry.data.endswith(b"\n")  # what follows that newline is wanted
            is_last = False
            newlines = entry.data.count(b"\n")
            if wanted <= newlines:
                before = entry.data.split(b"\n")[: newlines + 1 - wanted]
                return entry.position, len(b"\n".join(before)) + 1
            wanted -= newlines
        return (self.start if lines else self.size), 0

    def update_room(self) -> None:
        """A follower has come or gone, or has read on."""
        behind = any(f.throttle and self.size - f.position > FOLLOWER_LAG for f in self.followers)
        if behind:
            self._room.clear()
        else:
            self._room.set()
        self._trim()

    # --- Inside ---

    def _newest_first(self) -> Iterator[Entry]:
        for segment in reversed(self.segments):
            yield from reversed([entry for entry in segment.entries() if entry.stream])

    def _now_ns(self) -> int:
        """The time of the next record: later than that of the one before, whatever the clock does."""
        self._last_time_ns = max(time.time_ns(), self._last_time_ns + 1)
        return self._last_time_ns

    def _write(self, record: bytes) -> None:
        point("storing output")
        self._make_room(len(record))
        with self._unavailable():
            self.segments[-1].write(record)
        point("output stored")
        self.update_room()
        self._wake()

    def _make_room(self, size: int) -> None:
        newest = self.segments[-1] if self.segments else None
        if newest is None or (newest.size > MARK_SIZE and newest.size + size > self._keep.size):
            with self._unavailable():
                self._open_segment()

    @contextlib.contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(f"cannot store output in {self.path}: {error.strerror}") from error

    def _open_segment(self) -> None:
        mark = Mark(self._offsets[Stream.STDOUT], self._offsets[Stream.STDERR], self.run_start)
        segment = Segment(self.path.with_name(f"{self.path.name}.{self.size:016x}"), self.size)
        try:
            segment.write(mark.encode(self._now_ns()))
        except OSError:
            segment.remove()
            raise
        self.segments.append(segment)

    def _trim(self) -> None:
        """Drop the oldest segments that are too many, but for those that an attached client has to read."""
        while self._keep.files and len(self.segments) > self._keep.files:
            if any(f.throttle and f.position < self.segments[0].end for f in self.followers):
                return
            self.segments.pop(0).remove()

    def _copy(self) -> None:
        if self._json_lines is not None:
            self._json_lines.copy(self.segments)

    def _wake(self) -> None:
        for follower in self.followers:
            follower.news.set()

    def _recover(self) -> None:
        """Go on where the newest segment ends; what a dying daemon left half-written is cut off."""
        while self.segments and not self._read_newest(self.segments[-1]):
            self.segments.pop().remove()  # not even its mark was written

    def _read_newest(self, segment: Segment) -> bool:
        end = segment.base
        for entry in segment.entries():
            if entry.stream:
                self._offsets[Stream(entry.stream)] = entry.offset + len(entry.data)
            else:
                self._offsets, self.run_start = entry.mark.offsets, entry.mark.run_start
            self._last_time_ns = entry.time_ns
            end = entry.end
        segment.cut(end)
        return end > segment.base


def open_log(path: Path, spec: LogSpec) -> OutputLog:
    """A container's, as its spec says."""
    has_file = spec.path and spec.driver != "none"
    return OutputLog(path, keep=retention(spec), json_lines=JsonLines(spec) if has_file else None)


def remove_log(path: Path) -> None:
    """The files of a log that nobody has open."""
    for _, segment in find_segments(path):
        segment.unlink(missing_ok=True)


def stored_offsets(path: Path) -> dict[Stream, int]:
    """For each stream, how many bytes of the newest run the log at ``path`` holds."""
    log = OutputLog(path)
    log.close()
    return log.offsets
