"""What people read: tables, sizes, times and states, in Docker's words and spacing; and errors.

The words are those of docker/go-units and moby's ``State.String``, so that whoever reads (or parses)
Docker's listings can read these.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from hypercontainer.errors import HyperError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

SHORT = 12  # digits of an id that people see
_MINIMUM_WIDTH = 10  # Docker's tabwriter: cells of at least ten, three spaces between
_PADDING = 3


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, file: TextIO | None = None) -> None:
    """Print columns as Go's text/tabwriter does with Docker's settings (10, 1, 3, ' ')."""
    file = file or sys.stdout
    lines = [tuple(header), *map(tuple, rows)]
    widths = [
        max(_MINIMUM_WIDTH, max(len(line[column]) for line in lines) + _PADDING)
        for column in range(len(header))
    ]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)]
        print("".join(cells) + line[-1], file=file)


def json_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """``--format json``: an object on each line, as Docker's listings have it."""
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))


def short(identifier: str) -> str:
    """The part of an id (or digest) that people see."""
    return identifier.removeprefix("sha256:")[:SHORT]


def size(number: float, *, digits: int = 4) -> str:
    """go-units' HumanSize: powers of 1000, significant ``digits``: ``4.27MB``."""
    unit = 0
    while number >= 1000 and unit < 8:
        number /= 1000
        unit += 1
    return f"{number:.{digits}g}" + ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")[unit]


def bytes_size(number: float, *, digits: int = 4) -> str:
    """go-units' BytesSize: powers of 1024: ``27.5MiB``."""
    unit = 0
    while number >= 1024 and unit < 8:
        number /= 1024
        unit += 1
    return f"{number:.{digits}g}" + ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")[unit]


def duration(seconds: float) -> str:
    """go-units' HumanDuration: about how long."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < 3600:
        return "About a minute" if whole < 120 else f"{whole // 60} minutes"
    return _long_duration(int(seconds / 3600 + 0.5), int(seconds // 3600))


def _long_duration(rounded_hours: int, hours: int) -> str:
    if rounded_hours == 1:
        return "About an hour"
    if rounded_hours < 48:
        return f"{rounded_hours} hours"
    if rounded_hours < 24 * 7 * 2:
        return f"{rounded_hours // 24} days"
    if rounded_hours < 24 * 30 * 2:
        return f"{rounded_hours // 24 // 7} weeks"
    if rounded_hours < 24 * 365 * 2:
        return f"{rounded_hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def ago(when: float, *, now: float | None = None) -> str:
    return duration((time.time() if now is None else now) - when) + " ago"


def timestamp(when: float) -> str:
    """RFC 3339 with nanoseconds, UTC, as ``docker logs -t`` prints it."""
    return timestamp_ns(round(when * 1e9))


def timestamp_ns(when_ns: int) -> str:
    seconds, nanoseconds = divmod(when_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def status(container: Mapping[str, Any], *, now: float | None = None) -> str:
    """A container's state in the words of ``docker ps``."""
    now = time.time() if now is None else now
    if container["state"] == "running":
        return f"Up {duration(now - container['started'])}" + (" (Paused)" if container["paused"] else "")
    if container["state"] == "exited":
        code = container["exit_code"]
        return f"Exited ({'?' if code is None else code}) {ago(container['finished'], now=now)}"
    if container["state"] == "restarting":
        return f"Restarting ({container['exit_code']}) {ago(container['finished'], now=now)}"
    return "Created"


def command(words: Sequence[str]) -> str:
    """A command line as moby joins it: the first word, then arguments, quoted when they have spaces."""
    if not words:
        return ""
    return " ".join([words[0], *(f"'{word}'" if " " in word else word for word in words[1:])])


def ellipsis(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def quoted(text: str) -> str:
    """Go's strconv.Quote, near enough: control characters are escaped, other languages are not."""
    return json.dumps(text, ensure_ascii=False)


def printable(text: str) -> str:
    """A stranger's words, fit for one line of a terminal: control characters are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def ports(mappings: Iterable[Mapping[str, Any]]) -> str:
    """``0.0.0.0:8080->80/tcp``; neighbours are joined to ranges as in ``docker ps``."""
    ordered = sorted(
        (m["protocol"], m["host_ip"] or "0.0.0.0", m["container_port"], m["host_port"])  # noqa: S104
        for m in mappings
    )
    runs: list[list[Any]] = []  # protocol, address, first container port, first host port, how many
    for protocol, address, inner, outer in ordered:
        last = runs[-1] if runs else None
        if last and [protocol, address, inner, outer] == [*last[:2], last[2] + last[4], last[3] + last[4]]:
            last[4] += 1
        else:
            runs.append([protocol, address, inner, outer, 1])
    return ", ".join(_port_run(*run) for run in runs)


def _port_run(protocol: str, address: str, inner: int, outer: int, count: int) -> str:
    address = f"[{address}]" if ":" in address else address
    return f"{address}:{_span(outer, count)}->{_span(inner, count)}/{protocol}"


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


def colours(file: TextIO) -> bool:
    """Whether ``file`` may get colours (no-color.org)."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


def styled(text: str, style: str, *, file: TextIO | None = None) -> str:
    return f"\033[{_STYLES[style]}m{text}\033[0m" if colours(file or sys.stdout) else text


def error(problem: HyperError | str) -> None:
    """``hyper: what failed`` on stderr, and what to do about it on the next line."""
    message, hint = (problem, "") if isinstance(problem, str) else (problem.message, problem.hint)
    print(f"{styled('hyper:', 'red', file=sys.stderr)} {message}", file=sys.stderr)
    if hint:
        print(f"{styled('hint:', 'cyan', file=sys.stderr)} {hint}", file=sys.stderr)


def note(text: str) -> None:
    """Something to know that is no error; stderr, so that scripts do not read it."""
    print(f"hyper: {text}", file=sys.stderr, flush=True)
