"""An attached process, with a real socket to a peer that speaks the frames, and a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.cli.terminal import Detached, DetachKeys, parse_detach_keys
from hypercontainer.errors import InvalidRequest
from hypercontainer.model import frames
from hypercontainer.model.rest import StreamKind

# What hyper does with an attached process, given the socket's number and what `carry` is told.
ATTACHED = """
import json
import socket
import sys
from hypercontainer.cli.attachment import carry
from hypercontainer.cli import output
from hypercontainer.client.streams import Attached
from hypercontainer.errors import HyperError
how = json.loads(sys.argv[2])
connection = socket.socket(fileno=int(sys.argv[1]))
try:
    status, timeline = carry(Attached(connection, b""), detach_keys="ctrl-p,ctrl-q", **how)
except HyperError as problem:
    output.error(problem)
    status = problem.exit_status
sys.exit(status)
"""


class Peer:
    """hyperd's end: what came is in ``seen``; ``on`` reacts to a frame."""

    def __init__(self) -> None:
        self.connection, self.theirs = socket.socketpair()
        self.seen: list[tuple[int, bytes]] = []
        self.on: Callable[[int, bytes], None] = lambda kind, payload: None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._arrived = threading.Condition()

    def attach(
        self, *, terminal: bool = False, reads_stdin: bool = False, stdin: Any = subprocess.DEVNULL,
        stdout: Any = subprocess.PIPE, stderr: Any = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """hyper's end, in a process of its own."""
        how = {"terminal": terminal, "stdin": reads_stdin, "owns_process": True}
        child = subprocess.Popen(
            [sys.executable, "-c", ATTACHED, str(self.theirs.fileno()), json.dumps(how)],
            pass_fds=[self.theirs.fileno()],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.theirs.close()
        self._thread.start()
        return child

    def close(self) -> None:
        self.connection.close()
        self.theirs.close()

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.connection.sendall(frames.encode(kind, payload))

    def exit(self, code: int) -> None:
        self.send(StreamKind.EXIT, json.dumps({"exit_code": code}).encode())

    def _read(self) -> None:
        decoder = frames.Decoder()
        taken = 0
        with contextlib.suppress(OSError):
            while data := self.connection.recv(1 << 18):
                for kind, payload in decoder.feed(data):
                    if kind == StreamKind.STDIN:
                        taken += len(payload)
                        self.send(StreamKind.STDIN_TAKEN, taken.to_bytes(8, "big"))
                    with self._arrived:
                        self.seen.append((kind, payload if kind != StreamKind.STDIN else payload[:100]))
                        self._arrived.notify_all()
                    self.on(kind, payload)

    def wait_for(self, kind: int, *, count: int = 1) -> list[bytes]:
        """The payloads of ``kind`` once there are ``count`` of them."""

        def found() -> list[bytes]:
            return [payload for seen, payload in self.seen if seen == kind]

        with self._arrived:
            assert self._arrived.wait_for(lambda: len(found()) >= count, timeout=20), self.seen
        return found()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


def echo(peer: Peer) -> Callable[[int, bytes], None]:
    """A process like cat."""

    def react(kind: int, payload: bytes) -> None:
        if kind == StreamKind.STDIN:
            peer.send(StreamKind.STDOUT, payload)
        elif kind == StreamKind.STDIN_END:
            peer.exit(0)

    return react


# --- without a terminal ---


def test_stdout_and_stderr_stay_apart_and_the_exit_code_is_passed_on(peer: Peer) -> None:
    child = peer.attach()
    peer.send(StreamKind.STDOUT, b"out")
    peer.send(StreamKind.STDERR, b"err")
    peer.exit(17)
    assert child.communicate(timeout=20) == (b"out", b"err")
    assert child.returncode == 17


def test_much_of_stdin_comes_back_whole_and_its_end_is_sent(peer: Peer, tmp_path: Path) -> None:
    peer.on = echo(peer)
    block = os.urandom(1 << 20)
    source = tmp_path / "source"
    source.write_bytes(block * 50)
    with source.open("rb") as file:
        child = peer.attach(reads_stdin=True, stdin=file)
        output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert hashlib.sha256(output).digest() == hashlib.sha256(source.read_bytes()).digest()


def test_stdin_waits_while_hyperd_does_not_read(peer: Peer) -> None:
    """The writer is held up, and hyper does not keep what it cannot send."""
    reading = threading.Event()
    peer.on = lambda kind, payload: bool(reading.wait(30))  # type: ignore[assignment]
    child = peer.attach(reads_stdin=True, stdin=subprocess.PIPE)
    assert child.stdin is not None
    os.set_blocking(child.stdin.fileno(), False)
    sent, deadline = 0, time.monotonic() + 1
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            sent += os.write(child.stdin.fileno(), bytes(1 << 16))
    assert sent < 8 << 20  # what sockets and pipes hold, and no more
    reading.set()
    os.set_blocking(child.stdin.fileno(), True)
    child.stdin.close()
    child.stdin = None  # for communicate
    peer.wait_for(StreamKind.STDIN_END)
    peer.exit(0)
    child.communicate(timeout=20)
    assert child.returncode == 0


def test_both_ways_may_be_full_at_once(peer: Peer) -> None:
    """hyperd sends much before it reads anything: no deadlock."""
    child = peer.attach(reads_stdin=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert child.stdin is not None
    go = threading.Event()

    def react(kind: int, payload: bytes) -> None:
        if not go.is_set():
            go.set()
            for _ in range(200):
                peer.send(StreamKind.STDOUT, bytes(1 << 16))
        if kind == StreamKind.STDIN_END:
            peer.exit(3)

    peer.on = react
    child.stdin.write(bytes(8 << 20))
    child.stdin.close()
    assert child.wait(timeout=30) == 3
    assert child.stderr is not None
    child.stderr.close()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT]
)
def test_signals_are_passed_on(peer: Peer, number: signal.Signals) -> None:
    child = peer.attach(reads_stdin=True, stdin=subprocess.PIPE)
    peer.send(StreamKind.STDOUT, b"up")
    assert child.stdout is not None
    assert child.stdout.read(2) == b"up"
    child.send_signal(number)
    assert peer.wait_for(StreamKind.SIGNAL) == [bytes([number])]
    peer.exit(128 + number)
    child.communicate(timeout=20)
    assert child.returncode == 128 + number


def test_the_third_interrupt_ends_hyper_itself(peer: Peer) -> None:
    child = peer.attach()
    peer.send(StreamKind.STDOUT, b"up")
    assert child.stdout is not None
    assert child.stdout.read(2) == b"up"
    for count in (1, 2):
        child.send_signal(signal.SIGINT)
        peer.wait_for(StreamKind.SIGNAL, count=count)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130
    assert b"may still run" in errors


def test_nobody_reading_the_output_ends_hyper_quietly_and_the_process_with_sigpipe(peer: Peer) -> None:
    child = peer.attach()
    assert child.stdout is not None
    child.stdout.close()
    with contextlib.suppress(OSError):
        for _ in range(50):
            peer.send(StreamKind.STDOUT, bytes(1 << 16))
    assert child.wait(timeout=20) == 128 + signal.SIGPIPE
    assert peer.wait_for(StreamKind.SIGNAL) == [bytes([signal.SIGPIPE])]
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()


def test_an_error_that_hyperd_reports_is_raised_with_its_status(peer: Peer) -> None:
    child = peer.attach()
    view = {"code": "command_not_found", "message": "no 'nope'", "hint": "try"}
    peer.send(StreamKind.ERROR, json.dumps(view).encode())
    assert child.communicate(timeout=20) == (b"", b"hyper: no 'nope'\nhint: try\n")
    assert child.returncode == 127


def test_a_hyperd_that_dies_is_an_error_with_advice(peer: Peer) -> None:
    child = peer.attach()
    peer.send(StreamKind.STDOUT, b"some")
    peer.connection.shutdown(socket.SHUT_RDWR)
    output, errors = child.communicate(timeout=20)
    assert (output, child.returncode) == (b"some", 125)
    assert b"hyper ps -a" in errors


# --- on a terminal ---


class Terminal:
    """A pseudo terminal: ``outer`` is the user's side."""

    def __init__(self) -> None:
        self.outer, self.inner = pty.openpty()
        self.resize(24, 80)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.outer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.inner)[3] & termios.ICANON

    def wait_until_raw(self) -> None:
        deadline = time.monotonic() + 20
        while not self.is_raw():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def wait_for(self, text: bytes) -> None:
        """Until the user has seen it, in however many pieces."""
        shown = b""
        while text not in shown:
            shown += os.read(self.outer, 1000)

    def type(self, keys: bytes) -> None:
        os.write(self.outer, keys)

    def close(self) -> None:
        os.close(self.outer)
        os.close(self.inner)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def on_terminal(peer: Peer, terminal: Terminal) -> subprocess.Popen[bytes]:
    inner = terminal.inner
    child = peer.attach(terminal=True, reads_stdin=True, stdin=inner, stdout=inner, stderr=inner)
    terminal.wait_until_raw()
    return child


def test_keys_go_through_and_the_terminal_is_restored(peer: Peer, terminal: Terminal) -> None:
    child = on_terminal(peer, terminal)
    terminal.type(b"ls\r\x03\x1a\x04")
    assert peer.wait_for(StreamKind.STDIN) == [b"ls\r\x03\x1a\x04"]
    peer.exit(0)
    assert child.wait(timeout=20) == 0
    assert not terminal.is_raw()


def test_the_window_size_is_sent_first_and_at_each_change(peer: Peer, terminal: Terminal) -> None:
    terminal.resize(30, 100)
    child = on_terminal(peer, terminal)
    assert peer.wait_for(StreamKind.RESIZE) == [struct.pack(">HH", 30, 100)]
    terminal.resize(50, 132)
    child.send_signal(signal.SIGWINCH)  # the kernel's goes to the terminal's own session
    assert peer.wait_for(StreamKind.RESIZE, count=2)[1] == struct.pack(">HH", 50, 132)
    peer.exit(0)
    assert child.wait(timeout=20) == 0


def test_the_detach_keys_leave_the_process_alone(peer: Peer, terminal: Terminal) -> None:
    child = on_terminal(peer, terminal)
    terminal.type(b"x")
    peer.wait_for(StreamKind.STDIN)
    terminal.type(b"\x10")
    terminal.type(b"\x11")
    assert child.wait(timeout=20) == 0
    assert not terminal.is_raw()
    assert [kind for kind, _ in peer.seen if kind == StreamKind.SIGNAL] == []
    terminal.wait_for(b"read escape sequence")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_does_not_leave_the_terminal_raw(peer: Peer, terminal: Terminal, number: int) -> None:
    child = on_terminal(peer, terminal)
    child.send_signal(number)
    peer.wait_for(StreamKind.SIGNAL)
    peer.exit(143)
    assert child.wait(timeout=20) == 143
    assert not terminal.is_raw()


def test_an_error_does_not_leave_the_terminal_raw(peer: Peer, terminal: Terminal) -> None:
    child = on_terminal(peer, terminal)
    peer.connection.shutdown(socket.SHUT_RDWR)
    assert child.wait(timeout=20) == 125
    assert not terminal.is_raw()


# --- detach keys ---


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-],x", b"\x1dx"),
        ("a", b"a"),
        ("ctrl-@", b"\0"),
        ("CTRL-A", b"\x01"),
    ],
)
def test_detach_keys_are_written_as_for_docker(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-ab", "abc", "a,,b", "é", "ctrl-1"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown detach key"):
        parse_detach_keys(text)


def test_the_beginning_of_detach_keys_is_held_back_and_sent_when_it_is_none() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert [keys.filter(data) for data in (b"ab\x10", b"c", b"\x10", b"\x10", b"d")] == [
        b"ab", b"\x10c", b"", b"\x10", b"\x10d",
    ]  # fmt: skip
    keys.filter(b"e\x10")
    with pytest.raises(Detached):
        keys.filter(b"\x11")
