"""The little HTTP that a client of one daemon needs: a request's bytes, an answer as it is read."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping

from hypercontainer import errors
from hypercontainer.client.sockets import BareSocket, peer
from hypercontainer.errors import HyperError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_SIZE = 1 << 18
_MAX_HEAD = 1 << 16
_ERROR_TRAILER = b"hyper-error"  # model.rest.ERROR_TRAILER
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986


class Record(dict[str, "Any"]):
    """A JSON object of an answer; its keys can be read as attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the answer has no {name!r}") from None


def decode(data: bytes) -> Any:
    """JSON of hyperd, its objects as `Record`."""
    try:
        return json.loads(data, object_hook=Record)
    except ValueError as error:
        raise Unavailable(f"hyperd's answer cannot be read: {error}") from error


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError as error:
        raise Unavailable(f"hyperd's answer cannot be read: {text[:40]!r} is no length") from error


class Answer:
    """An answer of hyperd as it is read: the head, then a body with a length, in chunks, or to the end."""

    def __init__(self, connection: BareSocket) -> None:
        self.connection = connection
        self.status = 0
        self.headers: dict[str, str] = {}
        self._buffer = b""

    def read_head(self) -> None:
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > _MAX_HEAD:
                raise Unavailable(f"what answers is not hyperd: {self._buffer[:40]!r}")
            if not self._receive():
                raise Unavailable(
                    "hyperd closed the connection without an answer", hint="its log may say why"
                )
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        try:
            self.status = int(first.split(" ", 2)[1])
        except (IndexError, ValueError):
            raise Unavailable(f"what answers is not hyperd: {first[:40]!r}") from None
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}

    def raise_for_status(self) -> None:
        if self.status >= 400:
            raise error_from(
                _decode_or_none(self.read()), otherwise=f"hyperd answered with status {self.status}"
            )

    def read(self) -> bytes:
        """The whole body; the connection is closed then."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes; the connection is closed at its end, or when the iteration is left."""
        try:
            if self.status in (204, 304):
                return
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                yield from self._in_chunks()
            else:
                yield from self._plain(_number(self.headers.get("content-length", "-1"), 10))
        finally:
            self.close()

    def lines(self) -> Iterator[bytes]:
        rest = b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def close(self) -> None:
        self.connection.close()

    def take_rest(self) -> bytes:
        """What came after the head, for who takes the connection over."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _in_chunks(self) -> Iterator[bytes]:
        while True:
            size = _number(self._line().partition(b";")[0].decode("latin-1"), 16)
            if size == 0:
                self._read_trailers()
                return
            yield from self._exactly(size)
            self._line()

    def _read_trailers(self) -> None:
        """Raises what failed after hyperd had begun to answer."""
        failure = None
        while line := self._line():
            name, _, value = line.partition(b":")
            failure = value if name.lower() == _ERROR_TRAILER else failure
        if failure is not None:
            raise error_from(_decode_or_none(failure))

    def _plain(self, length: int) -> Iterator[bytes]:
        if length >= 0:
            yield from self._exactly(length)
            return
        while self._buffer or self._receive():
            yield self.take_rest()

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._buffer and not self._receive():
                raise Unavailable("hyperd closed the connection in the middle of an answer")
            part, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(part)
            yield part

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            if not self._receive():
                raise Unavailable("hyperd closed the connection in the middle of an answer")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def _receive(self) -> bool:
        try:
            data = self.connection.recv(READ_SIZE)
        except TimeoutError:
            raise Unavailable(f"hyperd did not answer within {self.connection.gettimeout():g} s") from None
        except ConnectionResetError:
            data = b""
        self._buffer += data
        return bool(data)


class Download:
    """The body of an answer, to be read as a file; what failed after its head is raised by ``read``."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._chunks = answer.chunks()
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()


def encode(spec: object) -> bytes:
    """JSON of a mapping, or of a type of the model."""
    if isinstance(spec, Mapping):
        return json.dumps(spec, separators=(",", ":")).encode()
    from hypercontainer.model.json import encode as encode_typed  # msgspec: 15 ms

    return encode_typed(spec)


def request_head(
    method: str, path: str, query: Mapping[str, object] | None, headers: Mapping[str, str]
) -> bytes:
    given = {"Host": "hyperd", "Connection": "close", **headers}
    lines = [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join([f"{method} {path}{_query(query)} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def _query(query: Mapping[str, object] | None) -> str:
    """Booleans as JSON has them, None and empty lists left out, lists as the key again and again."""
    pairs = []
    for key, value in (query or {}).items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                pairs.append((key, str(item).lower() if isinstance(item, bool) else str(item)))
    return "?" + "&".join(f"{quoted(key)}={quoted(value)}" for key, value in pairs) if pairs else ""


def quoted(text: str, *, safe: bytes = b"") -> str:
    """RFC 3986's percent-encoding, of what is not unreserved or ``safe``; urllib.parse would cost 4 ms."""
    plain = _UNRESERVED.union(safe)
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in os.fsencode(text))


def _decode_or_none(data: bytes) -> Any:
    try:
        return decode(data)
    except Unavailable:
        return None


def error_from(view: Any, *, otherwise: str = "hyperd failed") -> HyperError:
    """The exception of an ErrorView, of the same class as in hyperd."""
    if not isinstance(view, dict) or "code" not in view:
        return HyperError(otherwise)
    return errors.from_code(str(view["code"]), str(view.get("message", "")), str(view.get("hint", "")))


def progress(answer: Answer) -> Iterator[Record]:
    """The JSON lines of a long work; raises the error that the last one may be."""
    for line in answer.lines():
        if not line.strip():
            continue
        record: Record = decode(line)
        if "error" in record:
            raise error_from(record["error"])
        yield record


def connect(connection: BareSocket, path: str) -> int:
    """Connect to a unix socket whose path may be longer than sockaddr_un is (108 bytes, unix(7)).

    Returns the pid of who listens there.  Raises OSError, also when that is a stranger: only root and we
    ourselves may be hyperd.
    """
    if len(os.fsencode(path)) < 100:
        connection.connect(path)
    else:
        from pathlib import Path

        from hypercontainer.files import short_path

        with short_path(Path(path)) as short:
            connection.connect(short)
    pid, owner = peer(connection)
    if owner not in {0, os.geteuid()}:
        raise PermissionError(errno.EPERM, f"it is run by another user (uid {owner})")
    return pid
