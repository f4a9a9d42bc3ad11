"""Messages to bytes and back, in Python, in C, and between them.

The invariants: what one side writes the other reads as the same; both accept the same bodies; damage
never turns into another message; whatever came before, the next good frame is found.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypercontainer.errors import GuestError, InvalidRequest
from hypercontainer.guest import protocol, wire
from hypercontainer.guest.protocol import (
    FRAME_SIZE,
    Diagnostic,
    Failed,
    Hello,
    Message,
    Output,
    Ping,
    StartProcess,
    Welcome,
)
from hypercontainer.guest.wire import FrameParser, encode
from tests.protocol.fake_guest import start
from tests.protocol.messages import MESSAGES, REQUEST_IDS, any_message, messages
from tests.protocol.mirror import Mirror

quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
REFUSAL = Failed(errno.EBADMSG, "decode", "frame")  # of echo.c
each_message = pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)


def framed(body: bytes) -> bytes:
    """``body`` with its checksum, as a frame."""
    return wire.stuff(body + struct.pack("<I", zlib.crc32(body)))


def opened(frame: bytes) -> bytes:
    """The number, id and fields in a frame."""
    inside = wire.unstuff(frame[1:-1])
    assert inside is not None
    return inside[:-4]


def python_accepts(body: bytes) -> bool:
    try:
        wire.decode(body)
    except GuestError:
        return False
    return True


# --- Round trips ---


@each_message
def test_python_reads_what_python_wrote(cls: type[Message]) -> None:
    @quick
    @given(messages(cls), st.integers(0, 2**32 - 1))
    def check(message: Message, request_id: int) -> None:
        assert FrameParser().feed(encode(message, request_id)) == [(message, request_id)]

    check()


@each_message
def test_c_reads_what_python_wrote_and_python_what_c_wrote(cls: type[Message], mirror: Mirror) -> None:
    @quick
    @given(messages(cls), REQUEST_IDS)
    def check(message: Message, request_id: int) -> None:
        assert mirror.exchange(encode(message, request_id)) == [(message, request_id)]

    check()


@quick
@given(st.lists(st.tuples(any_message(), REQUEST_IDS), max_size=5), st.data())
def test_chunks_of_any_size_give_the_same_messages(
    sent: list[tuple[Message, int]], data: st.DataObject
) -> None:
    stream = b"".join(encode(message, request_id) for message, request_id in sent)
    parser, received = FrameParser(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += parser.feed(stream[:size])
        stream = stream[size:]
    assert received == sent
    assert parser.dropped == 0


def test_a_stream_byte_by_byte_gives_the_same_messages(mirror: Mirror) -> None:
    sent: list[tuple[Message, int]] = [(Output(1, 1, 2, bytes(range(256))), 0), (start(1, "\u00c0", "b"), 9)]
    stream = b"".join(encode(message, request_id) for message, request_id in sent)
    parser = FrameParser()
    assert [got for byte in stream for got in parser.feed(bytes([byte]))] == sent
    assert mirror.exchange(stream, chunk=1) == sent


@pytest.mark.parametrize("filler", [b"\0", b"\xc0", b"\xdb", b"\xdb\xdc\xdb\xdd"])
def test_the_largest_frame_passes_and_a_larger_one_does_not(filler: bytes, mirror: Mirror) -> None:
    head = 6 + 4 + 1 + 8 + 4 + 4
    largest = Output(1, 1, 0, (filler * FRAME_SIZE)[: FRAME_SIZE - head])
    assert FrameParser().feed(encode(largest)) == [(largest, 0)]
    assert mirror.exchange(encode(largest)) == [(largest, 0)]
    with pytest.raises(InvalidRequest, match="too large"):
        encode(Output(1, 1, 0, largest.data + b"x"))
    larger = framed(opened(encode(largest)) + b"x")
    assert mirror.exchange(larger) == []
    parser = FrameParser()
    assert parser.feed(larger + encode(Ping(), 1)) == [(Ping(), 1)]
    assert parser.dropped == 1


def test_the_fullest_lists_fit_the_arena(mirror: Mirror) -> None:
    """The most that a frame can make C allocate: lists of the smallest items."""
    room = FRAME_SIZE - 200
    for message in (
        start(1, *[""] * (room // 4)),
        protocol.SetUpPod("", 0, b"", (protocol.Setting("", ""),) * (room // 12), 0, "", ""),
        protocol.Timeline((protocol.Mark("", 0),) * (room // 16)),
    ):
        assert mirror.exchange(encode(message, 5)) == [(message, 5)]


# --- Damage ---


@each_message
def test_a_body_cut_or_changed_is_refused_by_both_or_by_none(cls: type[Message], mirror: Mirror) -> None:
    """UTF-8 is Python's affair alone: it replaces what is none, and C passes bytes on."""

    @quick
    @given(messages(cls), st.data())
    def check(message: Message, data: st.DataObject) -> None:
        body = opened(encode(message, 7))
        low = 10 if cls in (Hello, Welcome) else 6
        cut = body[: data.draw(st.integers(6, len(body)))]
        changed = bytearray(body)
        if len(changed) > low:
            changed[data.draw(st.integers(low, len(changed) - 1))] = data.draw(st.integers(0, 255))
        longer = body + data.draw(st.binary(min_size=1, max_size=9))
        for damaged in (cut, bytes(changed), longer):
            [(answer, _)] = mirror.exchange(framed(damaged))
            assert (answer != REFUSAL) == python_accepts(damaged)
        assert python_accepts(cut) == (cut == body)

    check()


@quick
@given(any_message(), st.data())
def test_a_flipped_bit_never_makes_another_message(
    mirror: Mirror, message: Message, data: st.DataObject
) -> None:
    frame = bytearray(encode(message, 1))
    position = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[position // 8] ^= 1 << position % 8
    assert mirror.exchange(bytes(frame)) in ([], [(message, 1)])
    parser = FrameParser()
    received = parser.feed(bytes(frame) + encode(Ping(), 2))
    assert received in ([(Ping(), 2)], [(message, 1), (Ping(), 2)])


@quick
@given(any_message(), st.data())
def test_a_frame_torn_by_a_dying_peer_never_takes_the_next_one_with_it(
    mirror: Mirror, message: Message, data: st.DataObject
) -> None:
    frame = encode(message, 1)
    torn = frame[: data.draw(st.integers(0, len(frame) - 2))]
    assert mirror.exchange(torn + encode(message, 2)) == [(message, 2)]
    assert FrameParser().feed(torn + encode(message, 2)) == [(message, 2)]


@quick
@given(st.binary(max_size=400))
def test_junk_is_no_message(mirror: Mirror, junk: bytes) -> None:
    assert mirror.exchange(junk) == []
    assert FrameParser().feed(junk + b"\xc0") == []


@quick
@given(st.binary(max_size=200), st.integers(0, 60))
def test_junk_with_a_good_checksum_is_refused_or_a_message(mirror: Mirror, junk: bytes, number: int) -> None:
    body = struct.pack("<HI", number, 3) + junk
    answers = mirror.exchange(framed(body))
    assert len(answers) == 1
    with contextlib.suppress(GuestError):
        assert wire.decode(body)[1] == 3


@pytest.mark.parametrize("escape", [b"\xdb", b"\xdb\xdb", b"\xdb\x00"])
def test_a_wrong_escape_drops_the_frame(escape: bytes, mirror: Mirror) -> None:
    good = encode(Output(1, 1, 0, b"\xdb"))
    bad = good.replace(b"\xdb\xdd", escape)
    parser = FrameParser()
    assert parser.feed(bad + good) == [(Output(1, 1, 0, b"\xdb"), 0)]
    assert parser.dropped == 1
    assert mirror.exchange(bad + escape) == []


def test_a_frame_without_end_is_bounded_and_counted() -> None:
    parser = FrameParser()
    for _ in range(64):
        assert parser.feed(os.urandom(65536).replace(b"\xc0", b"")) == []
        assert sum(len(piece) for piece in parser._pieces) <= 2 * FRAME_SIZE
    assert parser.dropped >= 7
    assert parser.feed(encode(Ping(), 1)) == [(Ping(), 1)]


# --- Values that no frame carries ---


@pytest.mark.parametrize(
    "message",
    [
        Diagnostic("a\0b"),
        Failed(2**31, "", ""),
        Output(1, 256, 0, b""),
        Output(-1, 1, 0, b""),
        start(2**32, "x"),
    ],
)
def test_a_value_out_of_range_is_an_invalid_request(message: Message) -> None:
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        encode(message)


def test_arguments_that_are_no_utf_8_reach_c_as_they_are(mirror: Mirror) -> None:
    argument = os.fsdecode(b"\xff\xfe")
    [(answer, _)] = mirror.exchange(encode(start(1, argument), 1))
    assert isinstance(answer, StartProcess)
    assert answer.argv == ("\ufffd\ufffd",)  # replaced on the way back: no lone surrogate gets in


@pytest.mark.parametrize("version", [0, 1 << 16, 0xFFFFFFFF])
def test_a_welcome_of_no_version_says_so(version: int) -> None:
    body = struct.pack("<HII", Welcome.number, 0, version) + b"who knows"
    with pytest.raises(GuestError, match="another protocol") as caught:
        FrameParser().feed(framed(body))
    assert "start it again" in caught.value.hint
