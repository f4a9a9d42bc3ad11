"""Sending a large body while the answer is read: neither side may wait for the other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from hypercontainer.client.http import Answer
from hypercontainer.client.sockets import SHUT_WR, BareSocket

if TYPE_CHECKING:
    from hypercontainer.tarstream import Readable

_READ_SIZE = 1 << 18


class Upload:
    """A thread that sends; an error of ``source`` cuts the connection and is raised at the end."""

    def __init__(self, connection: BareSocket, head: bytes, source: Readable) -> None:
        self._connection = connection
        self._head = head
        self._source = source
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._send, daemon=True)  # it may be stuck in source

    def __enter__(self) -> Upload:
        self._thread.start()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._connection.close()
        if self._failure is not None:
            raise self._failure from error

    def answer(self) -> Answer:
        """Its head has been read; raises what hyperd answers when it refuses."""
        answer = Answer(self._connection)
        answer.read_head()
        answer.raise_for_status()
        return answer

    def _send(self) -> None:
        try:
            self._connection.sendall(self._head)
            while data := self._read():
                self._connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            if self._failure is None:
                self._connection.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # refused, or no longer wanted: the answer says why

    def _read(self) -> bytes:
        try:
            return self._source.read(_READ_SIZE)
        except Exception as error:  # of a file that is not ours; raised where it can be seen
            self._failure = error
            self._connection.shutdown(SHUT_WR)
            return b""
