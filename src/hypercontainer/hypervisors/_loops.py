"""Loop devices: files as block devices of the host, for hypervisors that take nothing else.

A device that clears itself (LO_FLAGS_AUTOCLEAR) ends when its last user closes it, so none is left behind,
whoever is killed.  It keeps the open file that it was made of, and with that the file's lock: the lock is
held as long as the device is used.  Source: loop(4), include/uapi/linux/loop.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from hypercontainer.errors import HypervisorError
from hypercontainer.model.machine import Disk

CONTROL = Path("/dev/loop-control")
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
# struct loop_config: descriptor, block size, struct loop_info64 (its flags are 52 bytes in), reserved.
_CONFIG = struct.Struct("=II 52xI 176x 64x")
_TRIES = 100  # somebody else may take the device that was free
_OFD_SETLK = 37  # F_OFD_SETLK (fcntl(2)), which Python 3.11 does not name
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, length, pid


def attach(disk: Disk) -> tuple[Path, int]:
    """A new loop device of ``disk``, and a descriptor that keeps it until another user has opened it.

    Raises HypervisorError, when another machine writes to the disk, too.
    """
    mode = os.O_RDONLY if disk.read_only else os.O_RDWR
    try:
        file = os.open(disk.path, mode | os.O_CLOEXEC)
    except OSError as error:
        raise HypervisorError(f"cannot open the disk {disk.path}: {error.strerror}") from error
    try:
        if not disk.read_only:
            _lock(file, disk.path)
        return _configure(file, _AUTOCLEAR | (_READ_ONLY if disk.read_only else 0))
    except OSError as error:
        raise HypervisorError(f"cannot make a loop device of {disk.path}: {error.strerror}") from error
    finally:
        os.close(file)


def _lock(file: int, path: Path) -> None:
    try:
        fcntl.fcntl(file, _OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError as error:
        raise HypervisorError(
            f"another machine writes to the disk {path}",
            hint="stop it first, or use the disk read-only in both",
        ) from error


def _configure(file: int, flags: int) -> tuple[Path, int]:
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES - 1):
            try:
                return _configure_free(control, file, flags)
            except BlockingIOError:
                raise
            except OSError as error:
                if error.errno != 16:  # EBUSY
                    raise
        return _configure_free(control, file, flags)
    finally:
        os.close(control)


def _configure_free(control: int, file: int, flags: int) -> tuple[Path, int]:
    path = Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
    device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(file, 0, flags))
    except BaseException:
        os.close(device)
        raise
    return path, device
