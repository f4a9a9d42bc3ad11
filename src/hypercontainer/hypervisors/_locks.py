"""Who has a disk's file: VMMs lock what they write to, so that no two machines write to one file.

QEMU takes open file description locks on single bytes (docs/devel/style of its block/file-posix.c:
RAW_LOCK_PERM_BASE is 100), UML a lock of the whole file; both are seen by one question for all of it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_OFD_GETLK = 36  # F_OFD_GETLK (fcntl(2)), which Python 3.11 does not name
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, length, pid


def is_held(path: Path) -> bool:
    """Whether a lock would keep a VMM from writing to ``path``.  A file that cannot be opened is not."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # the VMM will say why
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, _OFD_GETLK, asked)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)
