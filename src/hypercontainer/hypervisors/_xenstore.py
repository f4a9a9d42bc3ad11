"""XenStore, over xenstored's socket: the tree of values by which domains and their devices find each other.

Source: xen/include/public/io/xs_wire.h and docs/misc/xenstore.txt of Xen 4.17.  Each machine's keeper imports
it, so it imports little.
"""

from __future__ import annotations

import socket
import struct

SOCKET = "/run/xenstored/socket"
_HEADER = struct.Struct("=IIII")  # type, request, transaction, length of what follows
_DIRECTORY = 1
_READ = 2
_WATCH = 4
_WRITE = 11
_MKDIR = 12
_SET_PERMISSIONS = 14
_WATCH_EVENT = 15
_ERROR = 16


class StoreError(OSError):
    """xenstored refused a request, or is gone."""


class Store:
    """A connection.  Requests wait for their answer, which xenstored gives at once."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(SOCKET)
        except OSError:
            self._socket.close()
            raise
        self._events: list[str] = []

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Readable when a watched path has changed: call ``changes``."""
        return self._socket.fileno()

    def read(self, path: str) -> str | None:
        """The value at ``path``; None when there is none."""
        try:
            return self._ask(_READ, path).decode()
        except FileNotFoundError:
            return None

    def names(self, path: str) -> list[str]:
        """Of what is below ``path``; empty when there is no such."""
        try:
            return [name.decode() for name in self._ask(_DIRECTORY, path).split(b"\0") if name]
        except FileNotFoundError:
            return []

    def find_domain(self, name: str) -> int | None:
        """The domain called ``name``."""
        for domain in self.names("/local/domain"):
            if self.read(f"/local/domain/{domain}/name") == name:
                return int(domain)
        return None

    def write(self, path: str, value: str) -> None:
        self._send(_WRITE, f"{path}\0{value}".encode())

    def make(self, path: str, *permissions: str) -> None:
        """A directory with ``permissions``, which what is made below it gets too: "n3": domain 3 owns it."""
        self._ask(_MKDIR, path)
        self._ask(_SET_PERMISSIONS, path, *permissions)

    def watch(self, path: str) -> None:
        """Be told of changes at and below ``path``, and of one at once."""
        self._ask(_WATCH, path, path)

    def changes(self) -> list[str]:
        """The watched paths of which something has changed; waits for the first when there is none."""
        if not self._events:
            self._events.append(self._receive_event())
        events, self._events = self._events, []
        return events

    def _receive_event(self) -> str:
        kind, body = self._receive()
        if kind != _WATCH_EVENT:
            raise StoreError("xenstored answered what was not asked")
        return _watched(body)

    def _ask(self, kind: int, *words: str) -> bytes:
        return self._send(kind, b"".join(word.encode() + b"\0" for word in words))

    def _send(self, kind: int, body: bytes) -> bytes:
        self._socket.sendall(_HEADER.pack(kind, 0, 0, len(body)) + body)
        while True:
            answered, answer = self._receive()
            if answered == _WATCH_EVENT:
                self._events.append(_watched(answer))
                continue
            if answered == _ERROR:
                raise _refused(body.split(b"\0")[0].decode(), answer)
            return answer

    def _receive(self) -> tuple[int, bytes]:
        kind, _, _, length = _HEADER.unpack(self._take(_HEADER.size))
        return kind, self._take(length)

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            data = self._socket.recv(size - len(taken))
            if not data:
                raise StoreError("xenstored has ended")
            taken += data
        return taken


def _refused(path: str, answer: bytes) -> OSError:
    reason = answer.rstrip(b"\0").decode()
    return FileNotFoundError(path) if reason == "ENOENT" else StoreError(f"XenStore refused {path}: {reason}")


def _watched(body: bytes) -> str:
    """The token of a watch, for which we give its path."""
    return body.split(b"\0")[1].decode()
