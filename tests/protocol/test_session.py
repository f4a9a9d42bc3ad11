"""What a hostile or broken guest may try on hyperd, one by one; tests/fuzz tries them in any order."""

from __future__ import annotations

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest import schema
from hypercontainer.guest.protocol import (
    PROTOCOL_VERSION,
    STREAM_BUFFER,
    STREAM_CHUNK,
    Diagnostic,
    Done,
    Exited,
    Failed,
    ForgetProcess,
    Hello,
    Input,
    InputEnd,
    InputWindow,
    Message,
    Output,
    OutputEnd,
    OutputWindow,
    Ping,
    ProcessState,
    Started,
    StartProcess,
    Stream,
    Welcome,
)
from hypercontainer.guest.session import DIAGNOSTICS, NOBODY_READS, Event, Reply, Session
from hypercontainer.guest.wire import FrameParser, encode
from tests.protocol.fake_guest import start


class Wire:
    """A session with the guest's side held by the test."""

    def __init__(self, *states: ProcessState, session: Session | None = None) -> None:
        self.session = session or Session()
        self.session.connect({})
        [(hello, _)] = self.sent()
        assert isinstance(hello, Hello)
        self.welcome = Welcome(PROTOCOL_VERSION, hello.session, "6.12", 1, 2, True, (), states)
        self.receive(self.welcome)

    def sent(self) -> list[tuple[Message, int]]:
        return FrameParser().feed(b"".join(self.session.take()))

    def receive(self, *messages: Message, request_id: int = 0) -> list[Event]:
        return self.session.receive(b"".join(encode(message, request_id) for message in messages))

    def run(self, message: Message, reply: Message) -> list[Event]:
        request_id = self.session.request(message)
        return self.receive(reply, request_id=request_id)

    def start(self) -> None:
        self.run(start(1, "cat"), Started(1, 1))
        self.receive(InputWindow(1, 0, STREAM_BUFFER))
        self.session.take()


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.start()
    return wire


ENDED = (OutputEnd(1, 1, 0), OutputEnd(1, 2, 0))


@pytest.mark.parametrize(
    "messages",
    [
        [Output(1, 1, 1, b"x")],
        [Output(1, 1, 0, b"")],
        [Output(1, 1, 0, b"x" * (STREAM_CHUNK + 1))],
        [Output(1, 1, n * STREAM_CHUNK, bytes(STREAM_CHUNK)) for n in range(9)],
        [Output(1, 1, STREAM_BUFFER, b"x")],
        [Output(1, 1, 2**64 - 1, b"x")],
        [Output(1, 0, 0, b"x")],
        [Output(1, 3, 0, b"x")],
        [Output(2, 1, 0, b"x")],
        [OutputEnd(1, 1, 0), Output(1, 1, 0, b"x")],
        [OutputEnd(1, 1, 1)],
        [OutputEnd(1, 1, 0), OutputEnd(1, 1, 0)],
        [OutputEnd(1, 0, 0)],
        [OutputEnd(2, 1, 0)],
        [Exited(1, 0, False, 0)],
        [OutputEnd(1, 1, 0), Exited(1, 0, False, 0)],
        [*ENDED, Exited(1, 0, False, 0), Exited(1, 0, False, 0)],
        [Exited(2, 0, False, 0)],
        [InputWindow(1, 1, 10)],
        [InputWindow(2, 0, 10)],
        [Hello(1, 2)],
        [start(3, "x")],
        [Ping()],
        [Input(1, 0, b"x")],
        [InputEnd(1, 0)],
        [OutputWindow(1, 1, 0, 1)],
        [ForgetProcess(1)],
    ],
    ids=lambda messages: " ".join(type(message).__name__ for message in messages[:3]),
)
def test_a_guest_that_breaks_the_protocol_is_an_error(wire: Wire, messages: list[Message]) -> None:
    with pytest.raises(GuestError):
        wire.receive(*messages)


def test_a_second_welcome_is_an_error_and_one_to_another_hello_is_nothing(wire: Wire) -> None:
    other = Welcome(PROTOCOL_VERSION, wire.welcome.session ^ 1, "6.12", 1, 2, True, (), ())
    assert wire.receive(other) == []
    with pytest.raises(GuestError, match="twice"):
        wire.receive(wire.welcome)


def test_what_comes_before_welcome_is_left_over_from_before() -> None:
    session = Session()
    session.connect({})
    stale = [Output(9, 9, 9, b"x"), Exited(9, 9, False, 9), Done(), Diagnostic("x")]
    assert session.receive(b"".join(encode(message, 5) for message in stale)) == []


@pytest.mark.parametrize(
    ("request_", "reply"),
    [(Ping(), Started(1, 1)), (start(9, "x"), Done()), (ForgetProcess(1), Started(1, 1))],
    ids=["Ping", "StartProcess", "ForgetProcess"],
)
def test_a_reply_of_the_wrong_kind_is_an_error(wire: Wire, request_: Message, reply: Message) -> None:
    with pytest.raises(GuestError, match="answered"):
        wire.run(request_, reply)


def test_a_reply_to_nothing_is_dropped_and_a_second_reply_too(wire: Wire) -> None:
    assert wire.receive(Done(), request_id=0) == []
    request_id = wire.session.request(Ping())
    assert wire.receive(Done(), Done(), request_id=request_id) == [Reply(request_id, Done())]


def test_request_ids_are_never_0_and_begin_anywhere() -> None:
    wire = Wire()
    wire.session._last_request = 2**32 - 1
    assert [wire.session.request(Ping()) for _ in range(3)] == [1, 2, 3]
    assert Wire().session.request(Ping()) != Wire().session.request(Ping())


def test_output_that_came_before_is_dropped_and_its_new_part_kept(wire: Wire) -> None:
    assert wire.receive(Output(1, 1, 0, b"abc")) == [Output(1, 1, 0, b"abc")]
    assert wire.receive(Output(1, 1, 0, b"abc"), Output(1, 1, 1, b"b")) == []
    assert wire.receive(Output(1, 1, 1, b"bcdef")) == [Output(1, 1, 3, b"def")]


def test_windows_are_widened_in_steps_and_at_the_end_of_a_stream(wire: Wire) -> None:
    wire.receive(*[Output(1, 1, n * 1000, bytes(1000)) for n in range(200)])
    for offset in range(0, 200_001, 1000):
        wire.session.stored(1, Stream.STDOUT, offset)
    windows = [message for message, _ in wire.sent()]
    assert windows == [OutputWindow(1, 1, at, at + STREAM_BUFFER) for at in (66000, 132000, 198000)]
    wire.receive(OutputEnd(1, 1, 200_000))
    assert [message for message, _ in wire.sent()] == [OutputWindow(1, 1, 200_000, 200_000 + STREAM_BUFFER)]


def test_more_cannot_be_stored_than_came_nor_less_than_before(wire: Wire) -> None:
    wire.receive(Output(1, 1, 0, b"abc"))
    wire.session.stored(1, Stream.STDOUT, 2)
    for offset in (1, 4):
        with pytest.raises(ValueError, match="stored"):
            wire.session.stored(1, Stream.STDOUT, offset)


def test_input_waits_for_a_window_and_no_window_makes_hyperd_keep_more_than_a_buffer() -> None:
    wire = Wire()
    wire.run(start(1, "cat"), Started(1, 1))
    assert wire.session.write(1, b"x") == 0
    wire.receive(InputWindow(1, 0, NOBODY_READS - 1))
    assert wire.session.write(1, bytes(10 * STREAM_BUFFER)) == STREAM_BUFFER
    assert wire.session.write(1, b"x") == 0
    wire.receive(InputWindow(1, 5, NOBODY_READS - 1))
    assert wire.session.write(1, bytes(100)) == 5


def test_input_acknowledged_twice_or_backwards_is_an_error(wire: Wire) -> None:
    wire.session.write(1, b"x" * 10)
    wire.receive(InputWindow(1, 7, 20), InputWindow(1, 7, 20))
    with pytest.raises(GuestError, match="acknowledged"):
        wire.receive(InputWindow(1, 6, 20))


def test_input_for_nobody_is_dropped_for_good(wire: Wire) -> None:
    wire.session.write(1, b"x" * 10)
    wire.receive(InputWindow(1, 0, NOBODY_READS))
    assert wire.session.is_dropped(1)
    wire.receive(InputWindow(1, 10, 20))
    assert wire.session.is_dropped(1)
    assert not wire.session._processes[1].input.kept


def test_a_process_that_is_forgotten_or_did_not_start_is_not_known(wire: Wire) -> None:
    wire.run(start(2, "x"), Failed(2, "execve", "x"))
    assert not wire.session.knows(2)
    wire.run(ForgetProcess(1), Done())
    assert not wire.session.knows(1)
    with pytest.raises(GuestError, match="there is not"):
        wire.receive(Output(1, 1, 0, b"x"))


def test_a_number_that_is_refused_because_it_is_in_use_stays_in_use(wire: Wire) -> None:
    wire.run(start(1, "x"), Failed(17, "start", "1"))
    assert wire.receive(Output(1, 1, 0, b"x")) == [Output(1, 1, 0, b"x")]


def a_state(*, stdin: int = 0, stdout: int = 0) -> ProcessState:
    return ProcessState(1, "c", True, 0, stdin, stdout, 0)


def test_a_guest_that_lost_stored_output_is_an_error() -> None:
    session = Session()
    session.connect({1: {Stream.STDOUT: 10}})
    [(hello, _)] = FrameParser().feed(b"".join(session.take()))
    assert isinstance(hello, Hello)
    welcome = Welcome(PROTOCOL_VERSION, hello.session, "", 1, 2, True, (), (a_state(stdout=9),))
    with pytest.raises(GuestError, match="stored already"):
        session.receive(encode(welcome))


@pytest.mark.parametrize("received", [4, 11])
def test_a_guest_that_lost_or_invented_input_is_an_error(wire: Wire, received: int) -> None:
    wire.session.write(1, b"x" * 10)
    wire.receive(InputWindow(1, 5, 20))
    with pytest.raises(GuestError, match="bytes of input"):
        Wire(a_state(stdin=received), session=wire.session)


def test_output_of_a_process_from_before_comes_only_when_asked_for() -> None:
    wire = Wire(a_state(stdout=100))
    with pytest.raises(GuestError, match="not asked for"):
        wire.receive(Output(1, 1, 100, b"x"))
    wire = Wire(a_state(stdout=100))
    wire.session.ask(1)
    assert [message for message, _ in wire.sent()] == [
        OutputWindow(1, 1, 100, 100 + STREAM_BUFFER),
        OutputWindow(1, 2, 0, STREAM_BUFFER),
    ]
    assert wire.receive(Output(1, 1, 100, b"x")) == [Output(1, 1, 100, b"x")]


def test_diagnostics_without_end_are_dropped_after_a_while(wire: Wire) -> None:
    events = [event for _ in range(20) for event in wire.receive(*[Diagnostic("x")] * 100)]
    assert len(events) == DIAGNOSTICS


def test_junk_without_end_is_given_up(wire: Wire) -> None:
    def flood() -> None:
        for _ in range(1000):
            wire.session.receive(bytes(1 << 18))

    with pytest.raises(GuestError, match="broken frames"):
        flood()


def test_every_request_has_a_reply_of_its_kind() -> None:
    """A new message with a reply of its own must be known to the session."""
    from hypercontainer.guest.session import REPLIES

    for cls in schema.messages():
        named = [other for other in schema.messages() if f"Reply: {other.__name__}" in (cls.__doc__ or "")]
        for reply in named:
            assert REPLIES.get(cls, Done) is reply or cls is Hello, cls
    assert REPLIES[StartProcess] is Started
