"""hyperd's session against a fake hyperstart, with the connection cut anywhere, again and again.

The invariant: whatever is cut where, every byte of stdin reaches the process and every byte of its output
is stored, once and in order; the process is started once; its status arrives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercontainer.guest.protocol import Exited, ForgetProcess, Output, Started, Stream, Welcome
from hypercontainer.guest.session import Event, Reply, Session
from tests.protocol.fake_guest import FakeGuest, start


@dataclass
class Host:
    """A hyperd that runs one "cat": what is in ``stored`` and ``status`` survives it, the rest may not."""

    stdin: bytes
    is_reborn: bool  # whether each connection is a new hyperd's
    stored: dict[int, bytearray] = field(default_factory=lambda: {1: bytearray(), 2: bytearray()})
    status: int | None = None
    is_done: bool = False
    session: Session = field(default_factory=Session)
    unstored: Output | None = None  # received, and not yet safe
    written: int = 0
    forgetting: int = 0

    def connect(self) -> bytes:
        self.unstored = None
        if self.is_reborn:
            self.session = Session()
        self.session.connect({1: {Stream(stream): len(data) for stream, data in self.stored.items()}})
        return b"".join(self.session.take())

    def feed(self, data: bytes) -> bytes:
        for event in self.session.receive(data):
            self._on(event)
        self._write()
        return b"".join(self.session.take())

    def _on(self, event: Event) -> None:
        match event:
            case Welcome():
                self._on_welcome(event)
            case Output():
                self._store()
                self.unstored = event
            case Exited():
                self._store()
                self.status = event.status
                self.forgetting = self.session.request(ForgetProcess(1))
            case Reply(request_id=self.forgetting):
                self.is_done = True
            case Reply(message=message):
                assert isinstance(message, Started)

    def _on_welcome(self, welcome: Welcome) -> None:
        if not welcome.processes and self.status is None:
            self.written = 0
            self.session.request(start(1, "cat"))
        elif not welcome.processes:
            self.is_done = True
        else:
            if self.is_reborn:
                self.written = welcome.processes[0].stdin_received
            self.session.ask(1)

    def _store(self) -> None:
        if self.unstored is not None:
            output, self.unstored = self.unstored, None
            stored = self.stored[output.stream]
            assert output.offset == len(stored)
            stored += output.data
            self.session.stored(1, Stream(output.stream), len(stored))

    def _write(self) -> None:
        if self.session.welcome and not self.session.is_dropped(1):
            self.written += self.session.write(1, self.stdin[self.written :])
            if self.written == len(self.stdin):
                self.session.write_end(1)


def converse(host: Host, guest: FakeGuest, cuts: Iterator[int], *, keeps_stale: bool) -> int:
    """Connect, cut after as many bytes as ``cuts`` says, and again; the bytes of the last connection.

    With ``keeps_stale``, bytes on their way when the connection was cut arrive after the next one began.
    """
    to_guest, to_host = bytearray(), bytearray()
    for _ in range(1000):
        if not keeps_stale:
            to_guest.clear()
            to_host.clear()
        to_guest += host.connect()
        left = budget = next(cuts, 1 << 30)
        while left and (to_guest or to_host) and not host.is_done:
            left -= _deliver(to_guest, to_host, guest.feed, left)
            left -= _deliver(to_host, to_guest, host.feed, left)
        if host.is_done:
            return budget - left
        assert not left, "both sides wait for each other"
    raise AssertionError("no end")


def _deliver(source: bytearray, target: bytearray, feed: object, most: int) -> int:
    data = bytes(source[:most])
    del source[: len(data)]
    if data:
        assert callable(feed)
        target += feed(data)
    return len(data)


def check(host: Host, guest: FakeGuest) -> None:
    assert host.stored == {1: host.stdin, 2: host.stdin.upper()}
    assert host.status == 17
    assert guest.started == [1]
    assert not guest.processes


def a_conversation(cuts: list[int], *, is_reborn: bool, keeps_stale: bool) -> int:
    host, guest = Host(b"stdin \xc0\xdb bytes", is_reborn), FakeGuest(chunk=5, input_room=7)
    size = converse(host, guest, iter(cuts), keeps_stale=keeps_stale)
    check(host, guest)
    return size


@pytest.mark.parametrize("keeps_stale", [False, True], ids=["bytes on the way are lost", "they come late"])
@pytest.mark.parametrize("is_reborn", [False, True], ids=["hyperd lives on", "hyperd is a new one"])
def test_a_cut_at_any_byte_loses_nothing_and_doubles_nothing(is_reborn: bool, keeps_stale: bool) -> None:
    size = a_conversation([], is_reborn=is_reborn, keeps_stale=keeps_stale)
    assert size > 500
    for cut in range(1, size):
        a_conversation([cut], is_reborn=is_reborn, keeps_stale=keeps_stale)


@settings(max_examples=150, deadline=None)
@given(
    stdin=st.binary(max_size=3000),
    chunk=st.integers(1, 400),
    room=st.integers(1, 1000),
    cuts=st.lists(st.integers(1, 2000), max_size=12),
    is_reborn=st.booleans(),
    keeps_stale=st.booleans(),
)
def test_many_cuts_lose_nothing_and_double_nothing(
    stdin: bytes, chunk: int, room: int, cuts: list[int], is_reborn: bool, keeps_stale: bool
) -> None:
    host, guest = Host(stdin, is_reborn), FakeGuest(chunk=chunk, input_room=room)
    converse(host, guest, iter(cuts), keeps_stale=keeps_stale)
    check(host, guest)
