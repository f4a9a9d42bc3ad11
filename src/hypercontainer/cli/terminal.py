"""The terminal and the streams of an attached process: raw mode, window size, detach keys, and the loop.

One thread and one poll(2) loop carry stdin to hyperd and output back.  What hyperd does not take yet
is kept, and stdin is left unread meanwhile, so that a fast writer waits instead of filling memory.
Signals come as bytes through a wake-up socket (signal.set_wakeup_fd), so nothing runs in a handler.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import struct
import termios
import time
import tty
from collections.abc import Iterator

from hypercontainer.cli.stdin import KeptInput
from hypercontainer.client import error_from, sockets
from hypercontainer.client.sockets import BareSocket
from hypercontainer.client.streams import Attached, Seen
from hypercontainer.errors import InvalidRequest, Unavailable
from hypercontainer.model import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# The kinds of model.rest.StreamKind, which the command line does not import: msgspec costs 25 ms.
STDIN, STDOUT, STDERR, EXIT, RESIZE, STDIN_END, SIGNAL, ERROR, TIMELINE, STDIN_TAKEN = range(10)

_PIPE_SIZE = 1 << 20
_NOT_FORWARDED = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGTSTP,
    signal.SIGTTIN, signal.SIGTTOU, signal.SIGSEGV, signal.SIGFPE, signal.SIGILL, signal.SIGBUS,
    signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS, signal.SIGPROF, signal.SIGVTALRM,
}  # fmt: skip
_LAST_WAIT_S = 2.0
_PATIENCE = 3  # SIGINT or SIGTERM so many times ends hyper itself, as in Docker
DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROLLED = "abcdefghijklmnopqrstuvwxyz@[\\]^_"


class Detached(Exception):
    """The user typed the detach keys."""


class Abandoned(Exception):
    """The user does not want to wait for the process any more."""


class ConnectionLost(Unavailable):
    """hyperd went away; the process need not have."""


class OutputClosed(Exception):
    """Nobody reads our output: ``hyper run IMAGE yes | head -1``."""


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` as bytes; raises InvalidRequest."""
    keys = bytearray()
    for key in text.split(","):
        control = key.lower().removeprefix("ctrl-")
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif key.lower().startswith("ctrl-") and len(control) == 1 and control in _CONTROLLED:
            keys.append(ord(control.upper()) & 0x1F)
        else:
            raise InvalidRequest(f"unknown detach key {key!r}", hint="for example ctrl-p,ctrl-q or ctrl-],x")
    return bytes(keys)


class DetachKeys:
    """Finds a key sequence in typed bytes; holds back what may be its beginning."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = b""

    def filter(self, data: bytes) -> bytes:
        """What of ``data`` is to be sent; raises Detached at the sequence."""
        data = self._held + data
        if self._sequence in data:
            raise Detached
        held = next(
            (n for n in range(len(self._sequence) - 1, 0, -1) if data.endswith(self._sequence[:n])), 0
        )
        self._held = data[len(data) - held :]
        return data[: len(data) - held]


def window_size(descriptor: int) -> tuple[int, int]:
    """Rows and columns of a terminal; 0, 0 when it does not know."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return 0, 0
    return rows, columns


@contextlib.contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """The terminal passes every key on until the block ends, however it ends."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal itself may be gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def signals_as_bytes() -> Iterator[BareSocket]:
    """A socket that gets a byte, its number, for each signal that arrives while the block lasts."""
    ours, wakeup = sockets.pair()
    wakeup.setblocking(False)
    forwarded = [number for number in signal.valid_signals() if number not in _NOT_FORWARDED]
    before = {number: signal.getsignal(number) for number in forwarded}
    wakeup_before = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    try:
        for number in forwarded:
            signal.signal(number, _ignore)
        yield ours
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(wakeup_before)
        ours.close()
        wakeup.close()


def _ignore(number: int, frame: object) -> None:
    """The byte in the wake-up socket says it all."""


class AttachedStreams:
    """An attached process, seen from the terminal: call `run` for its exit code."""

    def __init__(
        self,
        attached: Attached,
        *,
        terminal: bool,
        stdin: bool,
        detach_keys: str = DETACH_KEYS,
        forward_signals: bool = True,
    ) -> None:
        self._attached = attached
        self._connection = attached.connection
        self._unsent: list[memoryview] = []
        self._shown = {STDOUT: attached.place.stdout, STDERR: attached.place.stderr}  # bytes of the run
        self._kept = KeptInput(attached.place.stdin)
        self.terminal = terminal
        self._reads_stdin = stdin
        self._stdin_is_terminal = stdin and os.isatty(0)
        self._keys = DetachKeys(parse_detach_keys(detach_keys)) if terminal and detach_keys else None
        self._forwards_signals = forward_signals
        self._impatience = 0
        self._exit_code: int | None = None
        self.timeline: dict[str, Any] | None = None

    def run(self) -> int:
        """Carry the streams until the process ends; its exit code.

        Raises HyperError as hyperd reports it, Detached, Abandoned, OutputClosed.
        """
        self._connection.setblocking(False)
        with contextlib.ExitStack() as stack:
            wakeup = stack.enter_context(signals_as_bytes())
            if self.terminal and self._stdin_is_terminal:
                stack.enter_context(raw_mode(0))
            self._send_window_size()
            self._loop(wakeup)
        assert self._exit_code is not None
        return self._exit_code

    @property
    def seen(self) -> Seen:
        """What the next hyperd need not tell again."""
        return Seen(self._attached.place.run, self._shown[STDOUT], self._shown[STDERR])

    def resume(self, attached: Attached) -> None:
        """Go on with another connection, behind what was ``seen``; stdin that was lost is sent again."""
        self._attached = attached
        self._connection = attached.connection
        self._unsent.clear()
        for data in self._kept.again(attached.place.stdin):
            self._queue(STDIN, data)
        if self._kept.has_ended:
            self._queue(STDIN_END)

    def _loop(self, wakeup: BareSocket) -> None:
        self._widen_pipes()
        if self._attached.pending:
            self._receive()
        while self._exit_code is None:
            readable, writable = self._wait(wakeup)
            if wakeup in readable:
                self._take_signals(wakeup)
            if writable:
                self._flush()
            if self._connection in readable:
                self._receive()
            if 0 in readable:
                self._take_stdin()

    def _wait(self, wakeup: BareSocket) -> tuple[list[Any], bool]:
        """What can be read, and whether the connection takes more."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        poll.register(self._connection, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if self._reads_stdin and not self._unsent and not self._kept.is_full:  # back-pressure
            poll.register(0, select.POLLIN)
        events = dict(poll.poll())
        here: dict[int, Any] = {wakeup.fileno(): wakeup, self._connection.fileno(): self._connection, 0: 0}
        readable = [here[fd] for fd, event in events.items() if event & ~select.POLLOUT]
        return readable, bool(events.get(self._connection.fileno(), 0) & select.POLLOUT)

    # --- to hyperd ---

    def _send(self, kind: int, payload: bytes = b"") -> None:
        self._queue(kind, payload)
        self._flush()

    def _queue(self, kind: int, payload: bytes = b"") -> None:
        self._unsent += [memoryview(frames.header(kind, len(payload))), memoryview(payload)]

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self._connection.sendmsg(self._unsent[:16])
            except BlockingIOError:
                return
            except OSError:  # hyperd has closed it: its last words are still to be read
                self._unsent.clear()
                return
            self._drop_sent(sent)

    def _drop_sent(self, sent: int) -> None:
        while self._unsent and sent >= len(self._unsent[0]):
            sent -= len(self._unsent.pop(0))
        if sent:
            self._unsent[0] = self._unsent[0][sent:]

    def _take_stdin(self) -> None:
        try:
            data = os.read(0, frames.CHUNK)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EINTR}:
                return
            data = b""  # EIO: the terminal has gone
        if not data:
            self._reads_stdin = False
            self._kept.has_ended = True
            self._send(STDIN_END)
            return
        if self._keys is not None:
            data = self._keys.filter(data)
        if data:
            self._kept.add(data)
            self._send(STDIN, data)

    def _take_signals(self, wakeup: BareSocket) -> None:
        for number in wakeup.recv(256):
            if number == signal.SIGWINCH:
                self._send_window_size()
            elif number == signal.SIGCONT and self.terminal and self._stdin_is_terminal:
                tty.setraw(0, termios.TCSANOW)  # whoever stopped us has the shell's settings back
                self._send_window_size()
            else:
                self._take_signal(number)

    def _take_signal(self, number: int) -> None:
        if number in {signal.SIGINT, signal.SIGTERM}:
            self._impatience += 1
            if self._impatience >= _PATIENCE or not self._forwards_signals:
                raise Abandoned
        if self._forwards_signals:
            self._send(SIGNAL, bytes([number]))

    def _send_window_size(self) -> None:
        if not self.terminal:
            return
        rows, columns = next((size for fd in (1, 0, 2) if (size := window_size(fd)) != (0, 0)), (0, 0))
        if rows and columns:
            self._send(RESIZE, struct.pack(">HH", rows, columns))

    def _widen_pipes(self) -> None:
        """Fewer turns of the loop for much data; a pipe has 64 KB by default (pipe(7))."""
        for descriptor in (0, 1):
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    # --- from hyperd ---

    def _receive(self) -> None:
        try:
            received = self._attached.receive()
        except BlockingIOError:
            return
        if received is None:
            self._lost()
        for kind, payload in received:
            self._take_frame(kind, payload)

    def _lost(self) -> NoReturn:
        raise ConnectionLost(
            "the connection to hyperd ended before the process did",
            hint="the process may still run: see `hyper ps -a`, then `hyper attach` or `hyper logs`",
        )

    def _take_frame(self, kind: int, payload: bytes) -> None:
        if kind in (STDOUT, STDERR):
            self._show(kind, payload)
        elif kind == EXIT:
            self._exit_code = int(json.loads(payload)["exit_code"])
        elif kind == ERROR:
            raise error_from(json.loads(payload))
        elif kind == TIMELINE:
            self.timeline = json.loads(payload)
        elif kind == STDIN_TAKEN:
            self._kept.taken(int.from_bytes(payload, "big"))

    def _show(self, kind: int, data: bytes) -> None:
        self._shown[kind] += len(data)
        write_all(kind, data)

    def send_last_signal(self, number: int) -> None:
        """Pass on why we leave, and stay until the process ends of it, a moment at most.

        hyperd drops what is still to be read from a connection that is closed.
        """
        deadline = time.monotonic() + _LAST_WAIT_S
        with contextlib.suppress(OSError):
            self._send(SIGNAL, bytes([number]))
            while (left := deadline - time.monotonic()) > 0:
                events = select.POLLIN | (select.POLLOUT if self._unsent else 0)
                poll = select.poll()
                poll.register(self._connection, events)
                if not poll.poll(left * 1000):
                    return
                self._flush()
                if self._has_ended():
                    return

    def _has_ended(self) -> bool:
        try:
            received = self._attached.receive()
        except BlockingIOError:
            return False
        return received is None or any(kind in (EXIT, ERROR) for kind, _ in received)


def write_all(descriptor: int, data: memoryview | bytes) -> None:
    """Write to our stdout (1) or stderr (2); raises OutputClosed when nobody reads it."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody else's O_NONBLOCK on a shared terminal
            select.select([], [descriptor], [])
        except OSError as error:
            if error.errno in {errno.EPIPE, errno.EIO}:
                raise OutputClosed from error
            raise Unavailable(f"cannot write output: {os.strerror(error.errno or 0)}") from error
