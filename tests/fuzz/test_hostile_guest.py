"""A guest that says anything, in any order: hyperd's FrameParser and Session; FUZZ_SECONDS for each.

Invariants: nothing but GuestError is raised; what is handed on of a stream is contiguous and inside the
granted window; what the session holds is bounded, whatever comes.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest import schema, wire
from hypercontainer.guest.protocol import (
    FRAME_SIZE,
    PROTOCOL_VERSION,
    STREAM_BUFFER,
    ForgetProcess,
    Message,
    Output,
    OutputEnd,
    Ping,
    ProcessState,
    Started,
    Stream,
    Welcome,
)
from hypercontainer.guest.schema import Boolean, Data, Integer, Kind, Record, Sequence, Text
from hypercontainer.guest.session import Event, Session
from tests.fuzz.test_c import SECONDS
from tests.protocol.fake_guest import FakeGuest, start

NUMBERS = (0, 1, 2, 3, 5, 100, STREAM_BUFFER, STREAM_BUFFER + 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1)
FROM_GUEST = (2, 3, 4, 6, 31, 34, 42, 43, 43, 43, 44, 51, 53)  # message numbers, Output more often


def fuzz(play: Callable[[random.Random], None]) -> None:
    """Play seeded rounds until the time is up; a failure tells its seed."""
    stop = time.monotonic() + SECONDS
    seed = random.SystemRandom().randrange(1 << 32)
    while time.monotonic() < stop:
        seed += 1
        try:
            with contextlib.suppress(GuestError):
                play(random.Random(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def any_value(kind: Kind, dice: random.Random) -> object:
    match kind:
        case Integer(name):
            low, high = (-(2**31), 2**31) if name == "i32" else (0, 1 << 8 * schema.INTEGER_SIZES[name])
            number = dice.choice(NUMBERS)
            return number if low <= number < high else dice.randrange(min(high, 4))
        case Boolean():
            return dice.random() < 0.5
        case Text():
            return "".join(dice.choices("ab\n\x1b\u00e9", k=dice.randrange(5)))
        case Data():
            return dice.randbytes(dice.choice((0, 1, 1, 5, 5, 1000, 40000)))
        case Record(cls):
            return cls(*(any_value(inner, dice) for _, inner in schema.fields(cls)))
        case Sequence(item):
            return tuple(any_value(item, dice) for _ in range(dice.randrange(3)))


@dataclass
class Witness:
    """A hyperd that trusts nothing that it is handed."""

    session: Session = field(default_factory=Session)
    next: dict[tuple[int, int], int] = field(default_factory=dict)
    stored: dict[tuple[int, int], int] = field(default_factory=dict)
    nonce: int = 0

    def connect(self) -> None:
        self.session.connect({})
        self.next.clear()
        self.nonce = self.session._nonce

    def receive(self, data: bytes, dice: random.Random) -> None:
        for event in self.session.receive(data):
            self.witness(event, dice)
        self.check_memory()

    def witness(self, event: Event, dice: random.Random) -> None:
        match event:
            case Output(process, stream, offset, data):
                key = (process, stream)
                assert data
                assert offset == self.next.get(key, offset)
                self.next[key] = offset + len(data)
                assert self.next[key] - self.stored.setdefault(key, offset) <= STREAM_BUFFER
                if dice.random() < 0.5:
                    self.stored[key] = self.next[key]
                    self.session.stored(process, Stream(stream), self.next[key])
            case OutputEnd(process, stream, offset):
                assert offset == self.next.get((process, stream), offset)

    def check_memory(self) -> None:
        held = sum(len(piece) for piece in self.session._parser._pieces)
        assert held <= 2 * FRAME_SIZE
        for process in self.session._processes.values():
            assert sum(map(len, process.input.kept)) <= STREAM_BUFFER
        assert len(self.session._processes) <= 8
        assert sum(map(len, self.session._outgoing)) <= 8 * 2 * STREAM_BUFFER


def a_message(witness: Witness, dice: random.Random) -> tuple[Message, int]:
    """Something that a guest might say, often nearly right."""
    message = any_value(Record(Message.registry[dice.choice(FROM_GUEST)]), dice)
    assert isinstance(message, Message)
    pending = list(witness.session._pending) or [0]
    if isinstance(message, Output) and dice.random() < 0.8:
        stream = dice.choice((1, 2))
        offset = witness.next.get((1, stream), 0) + dice.choice((0, 0, 0, 0, 0, 1, -1))
        message = Output(1, stream, max(0, offset), dice.randbytes(dice.choice((1, 9, 32768))))
    if isinstance(message, Welcome):
        states = tuple(any_value(Record(ProcessState), dice) for _ in range(dice.randrange(3)))
        assert all(isinstance(state, ProcessState) for state in states)
        message = Welcome(PROTOCOL_VERSION, witness.nonce, "", 0, 0, True, (), states)  # type: ignore[arg-type]
    return message, dice.choice((*pending, 0, 7))


def hyperd_does_something(witness: Witness, dice: random.Random) -> None:
    session = witness.session
    match dice.randrange(8):
        case 0:
            session.request(dice.choice((Ping(), ForgetProcess(1), start(2, "x"))))
        case 1 if session.knows(1):
            session.write(1, bytes(dice.choice((1, 100, STREAM_BUFFER))))
        case 2 if session.knows(1):
            session.ask(1)
        case 3 if session.knows(1):
            session.write_end(1)


def say_anything(dice: random.Random) -> None:
    witness = Witness()
    witness.connect()
    witness.receive(wire.encode(Welcome(PROTOCOL_VERSION, witness.nonce, "", 0, 0, True, (), ())), dice)
    request = witness.session.request(start(1, "x"))
    witness.receive(wire.encode(Started(1, 1), request), dice)
    for _ in range(100):
        hyperd_does_something(witness, dice)
        witness.session.take()
        witness.receive(wire.encode(*a_message(witness, dice)), dice)


def damage_a_conversation(dice: random.Random) -> None:
    guest, witness = FakeGuest(chunk=dice.choice((3, 1000))), Witness()
    witness.connect()
    for step in range(30):
        answer = bytearray(guest.feed(b"".join(witness.session.take())))
        for _ in range(dice.choice((0, 0, 0, 1, 5)) if answer else 0):
            answer[dice.randrange(len(answer))] = dice.choice((0xC0, 0xDB, 0xDC, dice.randrange(256)))
        witness.receive(bytes(answer), dice)
        if step == 0 and witness.session.welcome:
            witness.session.request(start(1, dice.choice(("cat", "nonsense"))))
        hyperd_does_something(witness, dice)


def send_junk(dice: random.Random) -> None:
    parser = wire.FrameParser()
    for _ in range(20):
        body = dice.randbytes(dice.randrange(60))
        if dice.random() < 0.5:
            body = dice.choice(list(Message.registry)).to_bytes(2, "little") + body
        junk = wire.stuff(body) if dice.random() < 0.5 else body * dice.choice((1, 1, 20000))
        with contextlib.suppress(GuestError):
            parser.feed(junk)
            wire.decode(body.ljust(6, b"\0"))
        assert sum(map(len, parser._pieces)) <= 2 * FRAME_SIZE
    assert parser.feed(wire.encode(Ping(), 1))[-1:] == [(Ping(), 1)]


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize(
    "play", [say_anything, damage_a_conversation, send_junk], ids=lambda play: play.__name__
)
def test_nothing_that_a_guest_sends_makes_hyperd_fail_or_grow(play: Callable[[random.Random], None]) -> None:
    fuzz(play)
