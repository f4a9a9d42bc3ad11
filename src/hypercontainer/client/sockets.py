"""What a client needs of sockets: the C half of Python's module ``socket``.

The other half, in Python, makes enums of hundreds of constants and imports selectors: 4 of the 50 ms of CPU
time that ``hyper list`` takes.  Nothing of it is used here; a ``socket.socket`` is one of these, too.
"""

from __future__ import annotations

import _socket
import sys

SHUT_WR = _socket.SHUT_WR
BareSocket = _socket.socket


class Socket(BareSocket):
    """One that is closed at the end of its block."""

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unix() -> Socket:
    """Not connected yet."""
    return Socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)


def pair() -> tuple[BareSocket, BareSocket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)


def peer(connection: BareSocket) -> tuple[int, int]:
    """Process and user of who listens: struct ucred (unix(7), SO_PEERCRED), three ints."""
    credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    pid, owner = credentials[:4], credentials[4:8]
    return int.from_bytes(pid, sys.byteorder), int.from_bytes(owner, sys.byteorder)
