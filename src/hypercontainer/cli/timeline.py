"""``--timeline``: where each millisecond of a start went, from hyper's first instruction on.

All moments are on the host's CLOCK_MONOTONIC: hyper's own, hyperd's, and the guest's as hyperd maps them.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping

from hypercontainer.cli import output
from hypercontainer.cli.parser import columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

_BAR = 30  # columns
_START_FIELD = 22  # of /proc/PID/stat, counted from 1 (proc(5)): clock ticks since boot


class Moment:
    """What happened ``where``: in "hyper", "hyperd" or "guest"."""

    def __init__(self, at_ns: int, where: str, name: str) -> None:
        self.at_ns = at_ns
        self.where = where
        self.name = name


class ClientMarks:
    """The moments of this process."""

    def __init__(self, moments: list[Moment]) -> None:
        self._moments = moments

    @classmethod
    def begin(cls) -> ClientMarks:
        """With the birth of the process, and main.py's first line."""
        from hypercontainer.cli.main import STARTED_NS

        born = min(_process_start_ns(), STARTED_NS)
        marks = cls([Moment(born, "hyper", "process starts"), Moment(STARTED_NS, "hyper", "Python is up")])
        marks.mark("command line read")
        return marks

    def mark(self, name: str) -> None:
        self._moments.append(Moment(time.monotonic_ns(), "hyper", name))

    def show(self, timeline: Mapping[str, Any], *, file: TextIO | None = None) -> None:
        """Print them with those of hyperd and the guest to ``file``, by default stderr."""
        theirs = [
            Moment(mark["at_ns"], "guest" if mark["inside"] else "hyperd", _shortened(mark["name"]))
            for mark in timeline["marks"]
        ]
        render(sorted(self._moments + theirs, key=_at_ns), file=file or sys.stderr)


def _at_ns(moment: Moment) -> int:
    return moment.at_ns


def _shortened(name: str) -> str:
    """Ids as people see them everywhere else."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}", r"\1", name)


def render(moments: list[Moment], *, file: TextIO) -> None:
    """A line for each moment: ms since the first, ms since the one before, where, what, and a bar."""
    first, last = moments[0].at_ns, moments[-1].at_ns
    total = max(last - first, 1)
    width = max(len(moment.name) for moment in moments)
    bar = _BAR if columns() >= width + _BAR + 30 else 0
    print(f"{'at ms':>9} {'step':>8}  {'where':<6}  {'what':<{width}}".rstrip(), file=file)
    before = first
    for moment in moments:
        at, step = (moment.at_ns - first) / 1e6, (moment.at_ns - before) / 1e6
        drawn = _drawn(before - first, moment.at_ns - first, total, bar)
        line = f"{at:9.1f} {step:8.1f}  {moment.where:<6}  {moment.name:<{width}}  {drawn}".rstrip()
        print(output.styled(line, _COLOURS[moment.where], file=file), file=file)
        before = moment.at_ns


_COLOURS = {"hyper": "cyan", "hyperd": "blue", "guest": "green"}


def _drawn(start: int, end: int, total: int, width: int) -> str:
    """The step as a part of a bar that is ``width`` columns for ``total``."""
    if not width:
        return ""
    left = round(start / total * width)
    right = max(round(end / total * width), left)
    return " " * left + ("█" * (right - left) or "▏")


def _process_start_ns() -> int:
    """When the kernel made this process, on CLOCK_MONOTONIC; exact to a clock tick, 10 ms."""
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123  # pathlib is not needed for this
        fields = file.read().rpartition(b")")[2].split()
    since_boot = int(fields[_START_FIELD - 3]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    asleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    return since_boot - asleep
