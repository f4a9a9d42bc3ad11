"""What the HTTP server and what it serves hand each other: a request, and three ways to answer it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from hypercontainer.errors import InvalidRequest

MAX_JSON_SIZE = 32 << 20  # a pod may bring 16 MiB of files, in base64


class Body(Protocol):
    """A request's body.  Whoever reads slowly slows the client down: nothing is stored."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """``target`` as it was sent; ``path`` without the query, not decoded."""

    method: str
    target: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: Body

    def header(self, name: str) -> str:
        """The value of the first header ``name`` (lower case), empty when there is none."""
        return next((value for key, value in self.headers if key == name), "")

    def wants_upgrade_to(self, protocol: str) -> bool:
        return self.header("upgrade").lower() == protocol and "upgrade" in self.header("connection").lower()

    async def read_json(self) -> bytes:
        """The whole body; raises InvalidRequest when it is larger than JSON may be."""
        data = bytearray()
        async for chunk in self.body:
            data += chunk
            if len(data) > MAX_JSON_SIZE:
                raise InvalidRequest(f"the body is larger than {MAX_JSON_SIZE >> 20} MiB")
        return bytes(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer that comes piece by piece; the iterator is closed when the client goes."""

    chunks: AsyncIterator[bytes]
    content_type: str


class Takeover(Protocol):
    """A connection after the 101: bytes both ways."""

    async def read(self) -> bytes:
        """The next bytes; empty once the client has ended its side."""

    async def write(self, *parts: bytes) -> None:
        """Send now; waits while the client does not read.  Raises ConnectionError when it is gone."""

    def is_gone(self) -> bool:
        """Whether the client has closed the connection, rather than ended its sending side."""

    async def gone(self) -> None:
        """Waits until the client has closed the connection: both its sides, not the sending one only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """An answer of 101, after which ``serve`` has the connection for itself until it returns.

    ``close`` is called in the end, even when the client has gone before ``serve`` could begin.
    """

    protocol: str
    serve: Callable[[Takeover], Awaitable[None]]
    close: Callable[[], None]
    headers: tuple[tuple[str, str], ...] = ()


Application = Callable[[Request], Coroutine[Any, Any, Answer | Stream | Upgrade]]
