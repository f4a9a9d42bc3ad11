"""The files of an output log: records one after the other, cut into segments that can be dropped whole.

A record is ``u8 stream | u64 nanoseconds | u64 offset | u32 length | data``, little-endian.  Stream 0 is
a mark: it begins each segment and each run of the process, and says how far both streams had come and
where the run began, so that the newest segment alone tells where to go on.  A position counts all bytes
of all segments there ever were; a segment's name ends with the position that it begins at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.guest.protocol import Stream

HEADER = struct.Struct("<BQQI")
_MARK = struct.Struct("<QQQ")
MARK_SIZE = HEADER.size + _MARK.size
READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the streams of a run stand."""

    stdout: int
    stderr: int
    run_start: int  # position of the mark that began the run

    @property
    def offsets(self) -> dict[Stream, int]:
        return {Stream.STDOUT: self.stdout, Stream.STDERR: self.stderr}

    def encode(self, time_ns: int) -> bytes:
        body = _MARK.pack(self.stdout, self.stderr, self.run_start)
        return HEADER.pack(0, time_ns, 0, len(body)) + body


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it stands in a segment."""

    position: int
    stream: int  # 0: a mark
    time_ns: int
    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.position + HEADER.size + len(self.data)

    @property
    def mark(self) -> Mark:
        return Mark(*_MARK.unpack(self.data))


def read_entries(file: int, base: int, start: int, stop: int) -> Iterator[Entry]:
    """The whole records between two positions of a segment that begins at ``base``."""
    at = max(start, base)
    while at < stop:
        stretch = os.pread(file, min(READ_SIZE, stop - at), at - base)
        end = at
        for entry in _whole_entries(stretch, at):
            end = entry.end
            yield entry
        if end == at:
            return  # torn; a whole record is far smaller than a stretch
        at = end


def _whole_entries(stretch: bytes, position: int) -> Iterator[Entry]:
    at = 0
    while at + HEADER.size <= len(stretch):
        stream, time_ns, offset, length = HEADER.unpack_from(stretch, at)
        data = stretch[at + HEADER.size : at + HEADER.size + length]
        if len(data) < length:
            return
        yield Entry(position + at, stream, time_ns, offset, data)
        at += HEADER.size + length


def find_segments(path: Path) -> list[tuple[int, Path]]:
    """Where each segment of the log ``path`` begins, the oldest first."""
    prefix, found = f"{path.name}.", []
    for name in _names(path.parent):
        with contextlib.suppress(ValueError):
            if name.startswith(prefix):
                found.append((int(name.removeprefix(prefix), 16), path.with_name(name)))
    return sorted(found)


def _names(directory: Path) -> list[str]:
    """Of its entries.  Path.glob would compile a pattern for each log, half a millisecond of every start."""
    try:
        return os.listdir(directory)  # noqa: PTH208
    except FileNotFoundError:
        return []


class Segment:
    """One file; open for reading and appending until ``close``."""

    def __init__(self, path: Path, base: int) -> None:
        self.path = path
        self.base = base
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.file).st_size

    @property
    def end(self) -> int:
        return self.base + self.size

    @property
    def mark(self) -> Mark:
        """Where it began."""
        return next(iter(self.entries())).mark

    def write(self, record: bytes) -> None:
        """Append all of ``record``, or raise OSError and leave nothing of it."""
        written = 0
        try:
            written = os.write(self.file, record)
            if written != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as the next write would say
        except OSError:
            os.ftruncate(self.file, self.size)
            raise
        self.size += written

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """The whole records from position ``start`` on."""
        return read_entries(self.file, self.base, start, self.end)

    def cut(self, end: int) -> None:
        """Drop what a dying daemon left half-written behind position ``end``."""
        if end != self.end:
            os.ftruncate(self.file, end - self.base)
            self.size = end - self.base

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
