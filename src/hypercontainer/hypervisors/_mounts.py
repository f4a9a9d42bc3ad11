"""System calls that Python does not have: unshare(2), mount(2) and personality(2), for the calling thread.

What they change belongs to the thread alone, and to what it executes.
"""

from __future__ import annotations

import ctypes
import os

# Source: include/uapi/linux/sched.h, include/uapi/linux/mount.h, include/uapi/linux/personality.h
CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_NOSYMFOLLOW = 1, 2, 4, 32, 256
MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19
ADDR_NO_RANDOMIZE = 0x0040000

_libc = ctypes.CDLL(None, use_errno=True)


def unshare_mounts() -> None:
    """Give the thread a mount namespace of its own, which the host's mounts go on to reach (a slave).

    Raises OSError, as all of these do.
    """
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None), "/")


def bind(source: str, target: str, flags: int) -> None:
    """Mount ``source`` at ``target`` once more, and with ``flags``, which the first call would ignore."""
    for asked in (MS_BIND, MS_REMOUNT | MS_BIND | flags):
        done = _libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(asked), None)
        _check(done, target)


def fix_addresses() -> None:
    """Let what the thread executes have its memory where it has it every time."""
    _check(min(_libc.personality(ctypes.c_ulong(ADDR_NO_RANDOMIZE)), 0), "personality")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
