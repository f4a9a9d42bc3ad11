"""A container's output as JSON lines in a file of the user's, as Docker's ``json-file`` has them.

    {"log":"Hello\\n","stream":"stdout","time":"2026-05-01T10:00:00.123456789Z"}

It is a copy of the output log, and the time of its last line says how far it has come: so a daemon that
died, or a disk that was full, leaves no gap and no line twice.  A line that the process wrote in pieces
may stand in pieces, of which the last ends with a newline: readers of Docker's files know them from long
lines.  Bytes that are no UTF-8 become U+FFFD.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from hypercontainer.engine.segments import Entry, Segment
from hypercontainer.errors import Unavailable
from hypercontainer.guest.protocol import Stream
from hypercontainer.model.pod import LogSpec

logger = logging.getLogger(__name__)

_LAST_LINE = 1 << 20  # bytes in which the last line surely begins: a record is far smaller


class JsonLines:
    """The file at ``spec.path``, with older ones beside it as PATH.1, PATH.2, ..."""

    def __init__(self, spec: LogSpec) -> None:
        self.path = Path(spec.path)
        self._max_size = spec.max_size
        self._max_files = spec.max_files
        self._file = -1
        self._size = 0
        self._position = 0  # in the output log: all before it is copied
        self._is_failing = False

    def open(self, segments: Sequence[Segment]) -> None:
        """Go on behind the last whole line; Unavailable when the file cannot be written."""
        if self._file >= 0:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            last_ns = self._recover()
        except OSError as error:
            self.close()
            raise Unavailable(
                f"cannot write the log {self.path}: {error.strerror}",
                hint="see the log path of the container",
            ) from error
        self._position = next(
            (e.position for s in segments for e in s.entries() if e.time_ns > last_ns),
            segments[-1].end if segments else 0,
        )

    def copy(self, segments: Sequence[Segment]) -> None:
        """Write what the log has more than the file.  What cannot be written now is tried again."""
        try:
            self.open(segments)
            for segment in segments:
                if segment.end > self._position:
                    self._copy_entries(segment.entries(self._position))
            self._is_failing = False
        except (OSError, Unavailable) as error:
            if not self._is_failing:
                logger.warning("the log %s is behind: %s", self.path, error)
            self._is_failing = True

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _copy_entries(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.stream:
                self._write(json_lines(entry))
            self._position = entry.end

    def _write(self, lines: bytes) -> None:
        if self._max_size and self._size and self._size + len(lines) > self._max_size:
            self._rotate()
        written = os.write(self._file, lines)
        if written != len(lines):
            os.ftruncate(self._file, self._size)
            raise Unavailable(f"no room for {self.path}")
        self._size += written

    def _rotate(self) -> None:
        if self._max_files == 1:
            os.ftruncate(self._file, 0)
            self._size = 0
            return
        for number in range(self._max_files - 1, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        self.close()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = 0

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path

    def _recover(self) -> int:
        """Cut off a torn last line; the time of the one before, or 0."""
        self._size = os.fstat(self._file).st_size
        start = max(0, self._size - _LAST_LINE)
        end = os.pread(self._file, _LAST_LINE, start)
        whole = end.rfind(b"\n") + 1
        os.ftruncate(self._file, start + whole)
        self._size = start + whole
        lines = end[:whole].splitlines()
        return _time_ns(lines[-1]) if lines else self._rotated_ns()

    def _rotated_ns(self) -> int:
        """hyperd may have died between the rotation and the first line of the new file."""
        rotated = self._numbered(1)
        if self._max_files == 1 or not rotated.exists():
            return 0
        lines = rotated.read_bytes()[-_LAST_LINE:].splitlines()
        return _time_ns(lines[-1]) if lines else 0


def json_lines(entry: Entry) -> bytes:
    """A line for each line of the record."""
    head = '{"log":'
    tail = f',"stream":"{Stream(entry.stream).name.lower()}","time":"{_rfc3339(entry.time_ns)}"}}\n'
    pieces = entry.data.decode(errors="replace").split("\n")
    lines = [f"{piece}\n" for piece in pieces[:-1]] + [pieces[-1]] * bool(pieces[-1])
    return "".join(f"{head}{json.dumps(line, ensure_ascii=False)}{tail}" for line in lines).encode()


def _rfc3339(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def _time_ns(line: bytes) -> int:
    """The time of a line; 0 when it is none of ours."""
    try:
        seconds, _, fraction = json.loads(line)["time"].removesuffix("Z").partition(".")
        whole = int(datetime.fromisoformat(f"{seconds}+00:00").timestamp())
        return whole * 1_000_000_000 + int(fraction or 0)
    except (ValueError, KeyError, TypeError):
        return 0
