"""The sync client of hyperd: one method for each verb, grouped by noun.

The CLI imports this, and each of its commands pays for what is imported here; so there is no asyncio,
msgspec or h11 at the top.  Measured on the development machine, as the least of 15 whole runs of
python (bare: 9 ms): argparse, json, socket and config.py 35 ms; with msgspec and the API's types
51 ms; with h11 as well 56 ms.  typing alone takes 4: ``TYPE_CHECKING`` is a name of each module, which
type checkers know as well as typing's, and records are plain classes.  So answers are `Record`: JSON
objects whose keys are the fields of the view in `model.rest` that each method names; and the little
HTTP that one daemon and its client need is read by `client.http`.

Errors are raised again as the class that hyperd raised, by code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from hypercontainer.client import sockets
from hypercontainer.client.http import Answer, Record, connect, decode, error_from, progress, request_head
from hypercontainer.client.nouns import Containers, Execs, Images, Machines, Pods, System, Templates
from hypercontainer.client.sockets import Socket
from hypercontainer.client.start import (
    Stopped,
    ensure_daemon,
    is_listening,
    next_daemon,
    takes_connections,
)
from hypercontainer.config import Paths, default_socket
from hypercontainer.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hypercontainer.client.streams import Attached
    from hypercontainer.client.upload import Upload
    from hypercontainer.tarstream import Readable

__all__ = [
    "Client",
    "Record",
    "Stopped",
    "ensure_daemon",
    "error_from",
    "is_listening",
]


class Client:
    """hyperd at ``path``.  Each request has its own connection: nothing to keep, nothing to go stale.

    ``timeout_s`` bounds the silence of hyperd in a request; None: requests may be held open.
    """

    def __init__(self, path: os.PathLike[str] | str, *, timeout_s: float | None = None) -> None:
        self.path = os.fspath(path)
        self.timeout_s = timeout_s
        self.system = System(self)
        self.pods = Pods(self)
        self.containers = Containers(self)
        self.execs = Execs(self)
        self.machines = Machines(self)
        self.templates = Templates(self)
        self.images = Images(self)

    @classmethod
    def default(cls) -> Client:
        """A client of the daemon that the environment says, which is started if it does not run."""
        path = default_socket()
        if not takes_connections(path):
            ensure_daemon(Paths.default())
        return cls(path)

    @classmethod
    def next(cls) -> Client:
        """A client of the daemon that follows one that has gone; raises Stopped when none is to come."""
        paths = Paths.default()
        next_daemon(paths)
        return cls(paths.socket)

    def connect(self) -> Socket:
        """A new connection; raises Unavailable when nobody listens."""
        connection = sockets.unix()
        connection.settimeout(self.timeout_s)
        try:
            connect(connection, self.path)
        except OSError as error:
            connection.close()
            raise Unavailable(
                f"hyperd does not answer at {self.path}: {error.strerror or error}",
                hint="start it with: hyperd",
            ) from error
        return connection

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and read the head of its answer; raises the error that hyperd answers."""
        given = dict(headers or {})
        if body is not None:
            given |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        connection = self.connect()
        answer = Answer(connection)
        try:
            try:
                connection.sendall(request_head(method, path, query, given) + (body or b""))
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before all was sent: the answer says why
            answer.read_head()
            answer.raise_for_status()
        except BaseException:
            connection.close()
            raise
        return answer

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
    ) -> Any:
        """Send a request and give its JSON answer, as `Record` and plain values; None for 204."""
        data = self.request(method, path, query=query, body=body).read()
        return decode(data) if data else None

    def upload(
        self, path: str, source: Readable, *, query: Mapping[str, object] | None = None
    ) -> Iterator[Record]:
        """POST ``source`` in chunks and give the JSON lines of the answer as they come."""
        with self._sending("POST", path, source, query) as upload:
            yield from progress(upload.answer())

    def put(self, path: str, source: Readable, *, query: Mapping[str, object] | None = None) -> None:
        """PUT ``source`` in chunks, to the end of the work."""
        with self._sending("PUT", path, source, query) as upload:
            upload.answer().read()

    def _sending(
        self, method: str, path: str, source: Readable, query: Mapping[str, object] | None
    ) -> Upload:
        from hypercontainer.client.upload import Upload  # threads: only here

        head = request_head(method, path, query, {"Transfer-Encoding": "chunked"})
        return Upload(self.connect(), head, source)

    def upgrade(self, path: str, *, query: Mapping[str, object] | None = None) -> Attached:
        """POST and take the connection over for frames; errors before that are raised."""
        from hypercontainer.client.streams import Attached, Place

        connection = self.connect()
        try:
            headers = {"Connection": "Upgrade", "Upgrade": "hyper"}
            connection.sendall(request_head("POST", path, query, headers))
            answer = Answer(connection)
            answer.read_head()
            answer.raise_for_status()
            if answer.status != 101:
                raise Unavailable(f"hyperd answered {answer.status} where a stream should begin")
        except BaseException:
            connection.close()
            raise
        connection.settimeout(None)
        return Attached(connection, answer.take_rest(), Place.of(answer.headers))
