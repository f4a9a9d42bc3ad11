"""The host's end of a Xen domain's channel: pages that the guest grants, and an event channel.

The guest's end and the layout of the first page are guest/kernel/drivers/hyper_xen.c.  Numbers of the
devices: include/uapi/xen/gntdev.h and evtchn.h of Linux.  Everything that the guest writes is hostile:
positions are checked, and bytes are taken as bytes.

An aligned 32-bit number is stored by one instruction, and x86 keeps the order of stores and of loads.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Callable

RING = 4 * mmap.PAGESIZE  # bytes of each direction
PAGES = 1 + 2 * RING // mmap.PAGESIZE
_MASK = 0xFFFFFFFF
# Positions in the first page, as numbers of 32 bits.
_HOST_WRITTEN, _GUEST_READ, _GUEST_WRITTEN, _HOST_READ, _HOST_TURN, _GUEST_TURN = range(6)


class RingError(Exception):
    """The guest broke the ring's rules."""


class EventChannel:
    """By which each side tells the other that something has changed."""

    def __init__(self, domain: int, port: int) -> None:
        self._device = os.open("/dev/xen/evtchn", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        asked = bytearray(struct.pack("=II", domain, port))
        self._port = int(fcntl.ioctl(self._device, _request("E", 1, 8), asked))

    def fileno(self) -> int:
        """Readable when the guest has knocked: call ``heard``, then look at everything."""
        return self._device

    def heard(self) -> None:
        """Take the guest's knocks, and listen for the next."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._device, os.read(self._device, 4096))

    def knock(self) -> None:
        fcntl.ioctl(self._device, _request("E", 4, 4), struct.pack("=I", self._port))


class Ring:
    """Bytes to and from the guest, and the turns of connections: odd while one is served."""

    def __init__(self, pages: mmap.mmap, knock: Callable[[], None]) -> None:
        self._pages = pages
        self._state = memoryview(pages)[: mmap.PAGESIZE].cast("I")
        self._knock = knock

    @property
    def is_served(self) -> bool:
        return bool(self._state[_HOST_TURN] & 1)

    @property
    def is_free(self) -> bool:
        """The guest has come to the end of the connection before, and another may begin."""
        return not self.is_served and self._state[_GUEST_TURN] == self._state[_HOST_TURN]

    def begin(self) -> None:
        self.drop()
        self._turn()

    def end(self) -> None:
        self._turn()

    def _turn(self) -> None:
        self._state[_HOST_TURN] = (self._state[_HOST_TURN] + 1) & _MASK
        self._knock()

    def room(self) -> int:
        """How many bytes the guest's ring takes now."""
        return RING - self._distance(_HOST_WRITTEN, _GUEST_READ)

    def write(self, data: bytes) -> None:
        """Give the guest ``data``, for which there is room."""
        written = self._state[_HOST_WRITTEN]
        start = written % RING
        first = data[: RING - start]
        base = mmap.PAGESIZE
        self._pages[base + start : base + start + len(first)] = first
        self._pages[base : base + len(data) - len(first)] = data[len(first) :]
        self._state[_HOST_WRITTEN] = (written + len(data)) & _MASK
        self._knock()

    def unread(self) -> int:
        """How many bytes of the guest are still to be read."""
        return self._distance(_GUEST_WRITTEN, _HOST_READ)

    def read(self) -> bytes:
        """All that the guest has written."""
        unread = self.unread()
        if not unread:
            return b""
        position = self._state[_HOST_READ]
        start, base = position % RING, mmap.PAGESIZE + RING
        data = self._pages[base + start : base + min(start + unread, RING)]
        data += self._pages[base : base + unread - len(data)]
        self._state[_HOST_READ] = (position + unread) & _MASK
        self._knock()
        return data

    def drop(self) -> None:
        """Forget what the guest wrote to a connection that is over."""
        self._state[_HOST_READ] = self._state[_GUEST_WRITTEN]

    def _distance(self, ahead: int, behind: int) -> int:
        distance = (self._state[ahead] - self._state[behind]) & _MASK
        if distance > RING:
            raise RingError("the guest's positions are impossible")
        return distance


def _request(letter: str, number: int, size: int) -> int:
    """_IOC(_IOC_NONE, letter, number, size)."""
    return size << 16 | ord(letter) << 8 | number


def map_pages(domain: int, grants: list[int]) -> mmap.mmap:
    """The pages that ``domain`` grants, one behind the other."""
    if len(grants) != PAGES:
        raise RingError(f"the guest grants {len(grants)} pages, not {PAGES}")
    references = b"".join(struct.pack("=II", domain, grant) for grant in grants)
    asked = bytearray(struct.pack("=IIQ", len(grants), 0, 0) + references)
    device = os.open("/dev/xen/gntdev", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _request("G", 0, 24), asked)
        (index,) = struct.unpack_from("=Q", asked, 8)
        return mmap.mmap(device, len(grants) * mmap.PAGESIZE, offset=index)
    finally:
        os.close(device)  # the mapping keeps it
