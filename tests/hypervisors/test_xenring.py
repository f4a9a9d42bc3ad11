"""The host's end of a Xen domain's channel, on pages that a test has in the guest's place."""

from __future__ import annotations

import mmap
import random
import secrets

import pytest

from hypercontainer.hypervisors import _xenring
from hypercontainer.hypervisors._xenring import PAGES, RING, Ring, RingError

HOST_WRITTEN, GUEST_READ, GUEST_WRITTEN, HOST_READ, HOST_TURN, GUEST_TURN = range(6)
MASK = 0xFFFFFFFF
NEAR_THE_END = MASK - 5000  # of what a position counts


class Guest:
    """What guest/kernel/drivers/hyper_xen.c does with the pages."""

    def __init__(self) -> None:
        self.pages = mmap.mmap(-1, PAGES * mmap.PAGESIZE)
        self.state = memoryview(self.pages)[: mmap.PAGESIZE].cast("I")
        self.knocks = 0

    def knock(self) -> None:
        self.knocks += 1

    def write(self, data: bytes) -> bytes:
        """What of ``data`` there is room for."""
        position = self.state[GUEST_WRITTEN]
        taken = data[: RING - ((position - self.state[HOST_READ]) & MASK)]
        for i, byte in enumerate(taken):
            self.pages[mmap.PAGESIZE + RING + (position + i) % RING] = byte
        self.state[GUEST_WRITTEN] = (position + len(taken)) & MASK
        return taken

    def read(self, size: int) -> bytes:
        position = self.state[GUEST_READ]
        count = min(size, (self.state[HOST_WRITTEN] - position) & MASK)
        self.state[GUEST_READ] = (position + count) & MASK
        return bytes(self.pages[mmap.PAGESIZE + (position + i) % RING] for i in range(count))


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def ring(guest: Guest) -> Ring:
    return Ring(guest.pages, guest.knock)


def test_what_the_guest_writes_comes_in_order_across_every_end(guest: Guest, ring: Ring) -> None:
    guest.state[GUEST_WRITTEN] = guest.state[HOST_READ] = NEAR_THE_END
    sent = came = b""
    for _ in range(30):
        sent += guest.write(secrets.token_bytes(random.randint(0, 2 * RING // 3)))
        came += ring.read()
    assert came == sent
    assert len(sent) > 3 * RING


def test_what_the_host_writes_comes_in_order_across_every_end(guest: Guest, ring: Ring) -> None:
    guest.state[HOST_WRITTEN] = guest.state[GUEST_READ] = NEAR_THE_END
    sent = came = b""
    for _ in range(60):
        data = secrets.token_bytes(random.randint(0, ring.room()))
        ring.write(data)
        sent += data
        came += guest.read(random.randint(0, RING))
    assert came + guest.read(RING) == sent
    assert len(sent) > 3 * RING


def test_the_guest_is_told_of_every_change(guest: Guest, ring: Ring) -> None:
    ring.begin()
    ring.write(b"x")
    guest.write(b"y")
    ring.read()
    ring.end()
    assert guest.knocks == 4


def test_a_connection_begins_only_when_the_guest_has_come_to_the_end_of_the_last(
    guest: Guest, ring: Ring
) -> None:
    assert ring.is_free
    ring.begin()
    assert ring.is_served
    guest.state[GUEST_TURN] = guest.state[HOST_TURN]
    ring.end()
    assert not ring.is_served
    assert not ring.is_free
    guest.write(b"for the one that is gone")
    guest.state[GUEST_TURN] = guest.state[HOST_TURN]
    assert ring.is_free
    ring.begin()
    assert ring.read() == b""


@pytest.mark.parametrize("position", [GUEST_WRITTEN, GUEST_READ])
def test_a_guest_that_claims_the_impossible_is_found_out(guest: Guest, ring: Ring, position: int) -> None:
    guest.state[position] = RING + 1
    look = ring.room if position == GUEST_READ else ring.read
    with pytest.raises(RingError):
        look()


def test_a_guest_that_grants_another_number_of_pages_is_found_out() -> None:
    with pytest.raises(RingError, match="2 pages"):
        _xenring.map_pages(1, [8, 9])
