"""What a VMM costs the host in memory, from ``/proc/PID/smaps_rollup`` (proc(5))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"^(Rss|Pss|Private_Clean|Private_Dirty):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes.  ``pss`` counts a page that n processes share as 1/n; ``private`` is nobody else's."""

    rss: int = 0
    pss: int = 0
    private: int = 0


def of_session(leader: int) -> Memory:
    """The sum over every process of the session that ``leader`` leads: a VMM and its helpers."""
    rss = pss = private = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _session(int(entry.name)) == leader:
            memory = of_process(int(entry.name))
            rss, pss, private = rss + memory.rss, pss + memory.pss, private + memory.private
    return Memory(rss, pss, private)


def of_process(pid: int) -> Memory:
    """One process; zeros when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return Memory()
    found = {name: int(size) << 10 for name, size in _LINE.findall(text)}
    private = found.get("Private_Clean", 0) + found.get("Private_Dirty", 0)
    return Memory(found.get("Rss", 0), found.get("Pss", 0), private)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1
