"""``logs``: times as people write them, and frames as lines."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from hypercontainer.cli.output import timestamp_ns
from hypercontainer.cli.terminal import write_all
from hypercontainer.client import LogFrame
from hypercontainer.errors import InvalidRequest

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


class LogPrinter:
    """Prints frames to the stream that they are of, with the time before each line if asked."""

    def __init__(self, *, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._at_line_start = {1: True, 2: True}

    def show(self, frame: LogFrame) -> None:
        data = self._stamped(frame) if self._timestamps else frame.data
        write_all(2 if frame.stream == 2 else 1, data)

    def _stamped(self, frame: LogFrame) -> bytes:
        stamp = timestamp_ns(frame.time_ns).encode() + b" "
        out = []
        for line in re.findall(rb"[^\n]*\n|[^\n]+", frame.data):  # splitlines would split at \r too
            out += [stamp if self._at_line_start[frame.stream] else b"", line]
            self._at_line_start[frame.stream] = line.endswith(b"\n")
        return b"".join(out)
