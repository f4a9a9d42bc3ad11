"""``logs``: times as people write them, and frames as lines."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import repeat

from hypercontainer.cli.output import timestamp_ns
from hypercontainer.cli.terminal import write_all
from hypercontainer.client.streams import LogFrame
from hypercontainer.errors import HyperError, InvalidRequest

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def moment(text: str, *, now: float) -> float:
    """Seconds since the epoch for ``1h30m`` (that long ago), RFC 3339, or seconds; 0 for nothing."""
    if not text:
        return 0.0
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return float(text)
    if re.fullmatch(f"({_PART.pattern})+", text):
        return now - sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"invalid time {text!r}",
            hint="for example 10m, 1h30m, 2026-05-01T10:00:00Z, or seconds since 1970",
        ) from error
    return (parsed if parsed.tzinfo else parsed.astimezone(UTC)).timestamp()


def merged(logs: Mapping[str, Iterator[LogFrame]], *, follow: bool) -> Iterator[tuple[str, LogFrame]]:
    """The frames of several logs: by time, or with ``follow`` as they come."""
    if len(logs) > 1 and follow:
        yield from _as_they_come(logs)
        return
    named = [zip(repeat(name), frames, strict=False) for name, frames in logs.items()]
    yield from heapq.merge(*named, key=lambda each: each[1].time_ns)


def _as_they_come(logs: Mapping[str, Iterator[LogFrame]]) -> Iterator[tuple[str, LogFrame]]:
    import queue
    import threading

    arrived: queue.Queue[tuple[str, LogFrame | HyperError | None]] = queue.Queue(1000)

    def read(name: str, frames: Iterator[LogFrame]) -> None:
        end = None
        try:
            for frame in frames:
                arrived.put((name, frame))
        except HyperError as error:
            end = error
        arrived.put((name, end))

    for name, frames in logs.items():
        threading.Thread(target=read, args=(name, frames), daemon=True).start()
    running = len(logs)
    while running:
        name, what = arrived.get()
        if isinstance(what, HyperError):
            raise what
        if what is None:
            running -= 1
        else:
            yield name, what


class LogPrinter:
    """Prints frames to the stream that they are of, with what is asked for before each line."""

    def __init__(self, *, timestamps: bool, prefix: str = "") -> None:
        self._timestamps = timestamps
        self._prefix = prefix.encode()
        self._at_line_start = {1: True, 2: True}

    def show(self, frame: LogFrame) -> None:
        data = self._headed(frame) if self._timestamps or self._prefix else frame.data
        write_all(2 if frame.stream == 2 else 1, data)

    def _headed(self, frame: LogFrame) -> bytes:
        stamp = timestamp_ns(frame.time_ns).encode() + b" " if self._timestamps else b""
        out = []
        for line in re.findall(rb"[^\n]*\n|[^\n]+", frame.data):  # splitlines would split at \r too
            out += [self._prefix + stamp if self._at_line_start[frame.stream] else b"", line]
            self._at_line_start[frame.stream] = line.endswith(b"\n")
        return b"".join(out)
