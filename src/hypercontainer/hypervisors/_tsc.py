"""The rate of the host's time stamp counter, which a TCG guest reads as its own.

An emulated guest that calibrates its counter against an emulated timer takes 50 ms, and on a busy host
fails: it then keeps time by ticks of 10 ms.  Told the rate, it has a good clock from the start.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import time
from collections.abc import Callable
from pathlib import Path

# rdtsc; shl rdx, 32; or rax, rdx; ret
_CODE = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_INTERVAL = 0.01  # seconds; gives a few millionths


@functools.cache
def host_tsc_khz() -> int | None:
    """The rate in kHz; None when the counter is not steady, or the host forbids to look."""
    if platform.machine() != "x86_64" or not _is_steady():
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # memory that is writable and executable is refused
        return None
    page.write(_CODE)
    view = ctypes.c_char.from_buffer(page)  # keeps the page
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(view))
    began, first = _read_both(read)
    time.sleep(_INTERVAL)
    ended, last = _read_both(read)
    return round((last - first) * 1_000_000 / (ended - began))


def _is_steady() -> bool:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return {"constant_tsc", "nonstop_tsc"} <= set(line.split())
    return False


def _read_both(read: Callable[[], int]) -> tuple[int, int]:
    """Clock (ns) and counter at one moment: the try in which the least time passed between."""
    tries = []
    for _ in range(20):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        counter = read()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        tries.append((after - before, (before + after) // 2, counter))
    _, at, counter = min(tries)
    return at, counter
