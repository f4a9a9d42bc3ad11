"""Pages of a file in the host's memory (Documentation/admin-guide/mm/pagemap.rst of Linux)."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_IS_DIRTY = 1 << 4  # KPF_DIRTY
_NUMBER = (1 << 55) - 1  # of a page, in an entry of pagemap


def is_dirty(path: Path) -> bool:
    """Whether the first page of ``path`` is still to be written to the disk; for root only."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE) as pages:
        assert pages[0] >= 0  # a page that was not touched has no entry
        entry = _entry(Path("/proc/self/pagemap"), _address(path) // mmap.PAGESIZE)
    return bool(_entry(Path("/proc/kpageflags"), entry & _NUMBER) & _IS_DIRTY)


def _address(path: Path) -> int:
    """Where this process has ``path`` mapped."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(f" {path}"):
            return int(line.partition("-")[0], 16)
    raise AssertionError(f"{path} is not mapped")


def _entry(table: Path, number: int) -> int:
    with table.open("rb") as file:
        file.seek(number * 8)
        return int(struct.unpack("=Q", file.read(8))[0])
