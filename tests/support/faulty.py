"""An HTTP proxy that breaks what passes through it, as asked: the bad network between us and a registry."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]  # names in lower case


@dataclass
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes
    cut: int | None = None  # the connection ends after so many bytes of the body
    pause_s: float = 0.0  # before each piece of the body


@dataclass
class Fault:
    """What happens to the first ``times`` requests whose path holds ``pattern``."""

    pattern: str
    change: Callable[[Answer], None]
    times: int = 1_000_000
    before: bool = False  # the registry isn't even asked


def status(pattern: str, code: int, *, times: int = 1_000_000, **headers: str) -> Fault:
    def change(answer: Answer) -> None:
        answer.status, answer.body = code, b""
        answer.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    return Fault(pattern, change, times, before=True)


def corrupt(pattern: str, *, times: int = 1_000_000) -> Fault:
    def change(answer: Answer) -> None:
        middle = len(answer.body) // 2
        answer.body = answer.body[:middle] + bytes([answer.body[middle] ^ 1]) + answer.body[middle + 1 :]

    return Fault(pattern, change, times)


def truncate(pattern: str, size: int, *, times: int = 1_000_000) -> Fault:
    def change(answer: Answer) -> None:
        answer.cut = size

    return Fault(pattern, change, times)


def grow(pattern: str, *, times: int = 1_000_000) -> Fault:
    def change(answer: Answer) -> None:
        answer.body += b"x" * (1 << 20)

    return Fault(pattern, change, times)


def slow(pattern: str, pause_s: float) -> Fault:
    def change(answer: Answer) -> None:
        answer.pause_s = pause_s

    return Fault(pattern, change)


def replace(pattern: str, body: bytes, *, times: int = 1_000_000, **headers: str) -> Fault:
    def change(answer: Answer) -> None:
        answer.status, answer.body = 200, body
        answer.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    return Fault(pattern, change, times, before=True)


def redirect(pattern: str, base: str) -> Fault:
    """Send who asks for ``pattern`` to the same path at ``base``."""

    def change(answer: Answer) -> None:
        answer.status, answer.body = 307, b""
        answer.headers = {"location": base + answer.headers["x-path"]}

    return Fault(pattern, change, before=True)


@dataclass
class Faulty:
    """The proxy; ``faults`` may be changed at any time, ``requests`` is all that was asked of it."""

    upstream: str
    client: httpx.AsyncClient
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    own_credentials: tuple[str, str] | None = None  # for the registry, whatever the client sends
    passes_ranges: bool = True
    host: str = ""
    tasks: set[asyncio.Task[None] | None] = field(default_factory=set)
    busy: int = 0
    most_busy: int = 0

    def asked(self, pattern: str) -> Sequence[Request]:
        return [request for request in self.requests if re.search(pattern, request.path)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            if (first := await reader.readexactly(1)) == b"\x16":  # a TLS hello: nothing for us
                return
            request = await _read_request(first, reader)
            self.requests.append(request)
            self.busy += 1
            self.most_busy = max(self.busy, self.most_busy)
            try:
                await _write_answer(writer, await self._answer(request))
            finally:
                self.busy -= 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, httpx.TransportError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()
            self.tasks.discard(task)

    async def _answer(self, request: Request) -> Answer:
        active = [
            fault for fault in self.faults if fault.times > 0 and re.search(fault.pattern, request.path)
        ]
        for fault in active[:1]:
            fault.times -= 1
        if active and active[0].before:
            answer = Answer(200, {"x-path": request.path}, b"")
        else:
            answer = await self._forward(request)
        if active:
            active[0].change(answer)
        return answer

    async def _forward(self, request: Request) -> Answer:
        headers = {
            name: value for name, value in request.headers.items() if name in {"accept", "authorization"}
        }
        if self.passes_ranges and "range" in request.headers:
            headers["range"] = request.headers["range"]
        headers["accept-encoding"] = "identity"
        auth = httpx.BasicAuth(*self.own_credentials) if self.own_credentials else None
        if auth:
            headers.pop("authorization", None)
        response = await self.client.get(self.upstream + request.path, headers=headers, auth=auth)
        kept = {"content-type", "www-authenticate", "docker-content-digest", "content-range", "location"}
        passed = {name: value for name, value in response.headers.items() if name in kept}
        return Answer(response.status_code, passed, response.content)


@asynccontextmanager
async def faulty(upstream: str, *faults: Fault) -> AsyncIterator[Faulty]:
    """A proxy on a free port before ``upstream``, a base URL."""
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        proxy = Faulty(upstream, client, list(faults))
        async with _served(proxy):
            yield proxy


@asynccontextmanager
async def _served(proxy: Faulty) -> AsyncIterator[None]:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield
    finally:
        server.close()
        running = [task for task in proxy.tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports end in the next turn of the loop


async def _read_request(first: bytes, reader: asyncio.StreamReader) -> Request:
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in head[1:] if line)
    return Request(head[0].split()[1], {name.lower(): value.strip() for name, _, value in pairs})


async def _write_answer(writer: asyncio.StreamWriter, answer: Answer) -> None:
    headers = {**answer.headers, "content-length": str(len(answer.body)), "connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    body = answer.body if answer.cut is None else answer.body[: answer.cut]
    for start in range(0, len(body), 64 << 10):
        await asyncio.sleep(answer.pause_s)
        writer.write(body[start : start + (64 << 10)])
        await writer.drain()
    await writer.drain()
