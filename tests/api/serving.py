"""A server in a thread, raw connections to it, and an attachment whose process is one of the host."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from hypercontainer.api.app import Api
from hypercontainer.api.routing import Routes, Table
from hypercontainer.api.server import Limits, Server
from hypercontainer.engine.streams import Attachment
from hypercontainer.guest.protocol import Stream
from hypercontainer.model.rest import TimelineMark, TimelineView
from tests.support.waiting import PATIENCE_S


class Serving:
    """A running server; ``stop`` ends it as SIGTERM ends hyperd."""

    def __init__(
        self,
        path: Path,
        routes: Routes | None,
        limits: Limits | None,
        engine: object,
        processes: list[HostProcess],
    ) -> None:
        self.path = path
        self._processes = processes
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)
        self._server = Server(Api(engine, Table(routes.all) if routes else None), limits=limits)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        self._ready.wait()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._server.run([self._listener], stop=self._stop)
        for process in self._processes:
            await process.end()

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has been stopped
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(str(self.path))
        return connection

    def ask(self, data: bytes) -> bytes:
        """Send ``data``, end the sending side, and read to the end."""
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(data)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


@contextlib.contextmanager
def serving(
    directory: Path,
    routes: Routes | None = None,
    *,
    limits: Limits | None = None,
    engine: object = None,
    processes: list[HostProcess] | None = None,
) -> Iterator[Serving]:
    """Serve in ``directory``; ``processes`` are ended with the server."""
    server = Serving(
        directory / "server.sock", routes, limits, engine, processes if processes is not None else []
    )
    try:
        yield server
    finally:
        server.stop()


def read_all(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(1 << 16):
            data += more
    return data


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = connection.recv(1 << 16)
        assert more, f"the connection ended after {data!r}"
        data += more
    return data


class HostProcess(Attachment):
    """A process of the host, held as one of a container is."""

    terminal = False

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.sizes: list[tuple[int, int]] = []
        self.is_closed = threading.Event()

    @classmethod
    async def run(cls, *command: str) -> HostProcess:
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe))

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        assert self.child.stdout is not None
        assert self.child.stderr is not None
        while data := await self.child.stdout.read(1 << 15):
            yield Stream.STDOUT, data
        while data := await self.child.stderr.read(1 << 15):
            yield Stream.STDERR, data

    async def write(self, data: bytes) -> None:
        assert self.child.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.child.stdin.write(data)
            await self.child.stdin.drain()

    async def write_end(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()

    async def resize(self, *, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def signal(self, number: int) -> None:
        self.child.send_signal(signal.Signals(number))

    async def exit_code(self) -> int:
        code = await self.child.wait()
        return code if code >= 0 else 128 - code

    def timeline(self) -> TimelineView:
        return TimelineView(marks=(TimelineMark(name="exec", at_ns=1, inside=True),))

    def close(self) -> None:
        self.is_closed.set()

    async def end(self) -> None:
        if self.child.returncode is None:
            self.child.kill()
        await self.child.communicate()
