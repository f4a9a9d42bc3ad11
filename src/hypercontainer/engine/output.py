"""What a process printed, on disk: the one place that attached clients, ``logs`` and recovery read from.

A log is a file of records, ``u8 stream | u64 nanoseconds | u64 offset | u32 length | data``,
little-endian.  The guest is told to forget bytes only once they are here, and ``offset`` says how far
each stream has come, so that a new daemon asks the guest for what follows: nothing is lost, nothing
is stored twice.  A record that a dying daemon left half-written is cut off when the log is opened.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.errors import Unavailable
from hypercontainer.faults import point
from hypercontainer.guest.protocol import Stream

_HEADER = struct.Struct("<BQQI")
_READ_SIZE = 1 << 20
FOLLOWER_LAG = 8 << 20  # bytes that an attached client may be behind before the process has to wait


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A piece of output; ``time_ns`` is since the epoch, when hyperd stored it."""

    stream: Stream
    time_ns: int
    data: bytes


class OutputLog:
    """The output of one process, appended by one writer and read by any number of followers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._offsets = {Stream.STDOUT: 0, Stream.STDERR: 0}
        self._size = self._recover()
        self.followers: set[Follower] = set()
        self._room = asyncio.Event()
        self._room.set()
        self.is_finished = False

    @property
    def offsets(self) -> dict[Stream, int]:
        """For each stream, how many bytes are stored."""
        return dict(self._offsets)

    @property
    def size(self) -> int:
        """Where the next record will begin: a position to follow from."""
        return self._size

    def restart(self) -> None:
        """Another run of the container: its streams count from 0 again, behind what is stored."""
        self._offsets = {Stream.STDOUT: 0, Stream.STDERR: 0}
        marker = _HEADER.pack(0, time.time_ns(), 0, 0)
        self._write(marker)
        self.is_finished = False

    def append(self, stream: Stream, data: bytes) -> None:
        """Store ``data``; Unavailable when the disk is full, and then nothing of it is stored."""
        header = _HEADER.pack(stream, time.time_ns(), self._offsets[stream], len(data))
        self._write(header + data)
        self._offsets[stream] += len(data)

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
                follower.end = self._size
        self._wake()

    def close(self) -> None:
        self.finish()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def follow(self, *, start: int = 0, throttle: bool = False) -> Follower:
        """A reader from position ``start`` on; with ``throttle``, the process waits for it."""
        return Follower(self, os.dup(self._file), start, throttle=throttle)

    def _write(self, record: bytes) -> None:
        point("storing output")
        try:
            written = os.write(self._file, record)
        except OSError as error:
            written, cause = 0, error
        else:
            cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if written != len(record):
            os.ftruncate(self._file, self._size)
            raise Unavailable(f"cannot store output in {self.path}: {cause.strerror}") from cause
        point("output stored")
        self._size += written
        self.update_room()
        self._wake()

    def _wake(self) -> None:
        for follower in self.followers:
            follower.news.set()

    def update_room(self) -> None:
        behind = any(f.throttle and self._size - f.position > FOLLOWER_LAG for f in self.followers)
        if behind:
            self._room.clear()
        else:
            self._room.set()

    def _recover(self) -> int:
        """Read the offsets, cut off a torn record, and return the size."""
        size = os.fstat(self._file).st_size
        at = 0
        while at + _HEADER.size <= size:
            stream, _, offset, length = _HEADER.unpack(os.pread(self._file, _HEADER.size, at))
            if at + _HEADER.size + length > size:
                break
            if stream == 0:
                self._offsets = {Stream.STDOUT: 0, Stream.STDERR: 0}
            else:
                self._offsets[Stream(stream)] = offset + length
            at += _HEADER.size + length
        if at != size:
            os.ftruncate(self._file, at)
        return at


class Follower:
    """A reader of a log; it holds the file, so it reads on when the pod is removed meanwhile."""

    def __init__(self, log: OutputLog, file: int, start: int, *, throttle: bool) -> None:
        self._log = log
        self._file = file
        self.position = start
        self.throttle = throttle
        self.end: int | None = None  # the position where it ends, if that is before the log's end
        self.news = asyncio.Event()
        log.followers.add(self)

    async def records(self, *, follow: bool) -> AsyncIterator[LogRecord]:
        """What is stored, and with ``follow`` what comes, until the process has ended."""
        while True:
            self.news.clear()
            for record in self._stretch():
                yield record
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
        if self in self._log.followers:
            self._log.followers.discard(self)
            self._log.update_room()
            os.close(self._file)

    def _stretch(self) -> Iterator[LogRecord]:
        """The next whole records; ``position`` moves past each as it is taken."""
        end = self._log.size if self.end is None else self.end
        stretch = os.pread(self._file, min(_READ_SIZE, end - self.position), self.position)
        at = 0
        while at + _HEADER.size <= len(stretch):
            stream, time_ns, _, length = _HEADER.unpack_from(stretch, at)
            stop = at + _HEADER.size + length
            if stop > len(stretch):
                return  # the next stretch begins with it: a record is far smaller than a stretch
            at = stop
            self.position += _HEADER.size + length
            if stream:
                yield LogRecord(Stream(stream), time_ns, stretch[stop - length : stop])


def stored_offsets(path: Path) -> dict[Stream, int]:
    """For each stream, how many bytes the log at ``path`` holds."""
    log = OutputLog(path)
    log.close()
    return log.offsets


def tail_position(path: Path, lines: int) -> tuple[int, int]:
    """Where the last ``lines`` lines of the log begin: a record's position, and a number of its bytes.

    Lines are counted over both streams in the order they were stored; the last may lack its newline.
    """
    if not lines:
        return path.stat().st_size, 0
    counts: list[tuple[int, int]] = []  # of each record: position, newlines
    with path.open("rb") as file:
        data = b""
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            position = file.tell() - _HEADER.size
            data = file.read(_HEADER.unpack(header)[3]) or data  # a record of a new start is empty
            counts.append((position, data.count(b"\n")))
        wanted = lines + data.endswith(b"\n")  # newlines to go back: what follows that one is wanted
        for position, newlines in reversed(counts):
            if wanted <= newlines:
                file.seek(position)
                length = _HEADER.unpack(file.read(_HEADER.size))[3]
                return position, len(b"\n".join(file.read(length).split(b"\n")[: newlines + 1 - wanted])) + 1
            wanted -= newlines
    return 0, 0
