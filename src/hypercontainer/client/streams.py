"""What an attached connection and a log carry: frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hypercontainer.client.http import READ_SIZE, Answer
from hypercontainer.client.sockets import BareSocket
from hypercontainer.model import frames


class LogFrame:
    """``stream`` is 1 for stdout, 2 for stderr; ``time_ns`` is since the epoch."""

    def __init__(self, stream: int, time_ns: int, data: bytes) -> None:
        self.stream = stream
        self.time_ns = time_ns
        self.data = data


class Seen:
    """What a client has of a process's output, for the next hyperd: which run, and bytes of its streams."""

    def __init__(self, run: int, stdout: int, stderr: int) -> None:
        self.run = run
        self.stdout = stdout
        self.stderr = stderr

    def query(self) -> dict[str, object]:
        return {"run": self.run, "stdout": self.stdout, "stderr": self.stderr}


class Place:
    """Where an attachment begins: in which run, and at which bytes of its streams."""

    def __init__(self, run: int = 0, stdin: int = 0, stdout: int = 0, stderr: int = 0) -> None:
        self.run = run
        self.stdin = stdin  # so many were accepted before
        self.stdout = stdout
        self.stderr = stderr

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Place:
        """From the headers Hyper-Run, Hyper-Stdin, Hyper-Stdout and Hyper-Stderr."""
        fields = ("run", "stdin", "stdout", "stderr")
        return cls(**{field: int(headers.get(f"hyper-{field}", 0)) for field in fields})


class Attached:
    """A connection that carries the frames of one process, both ways; kinds are `rest.StreamKind`."""

    def __init__(self, connection: BareSocket, first: bytes, place: Place = Place()) -> None:  # noqa: B008
        self.connection = connection
        self.place = place
        self._decoder = frames.Decoder()
        self._ready = self._decoder.feed(first)

    def fileno(self) -> int:
        """For select; see also `pending`."""
        return self.connection.fileno()

    @property
    def pending(self) -> bool:
        """Whether `receive` gives frames without waiting for the socket."""
        return bool(self._ready)

    def receive(self) -> list[tuple[int, bytes]] | None:
        """The frames that came, maybe none, after one read of the socket; None at its end."""
        if self._ready:
            ready, self._ready = self._ready, []
            return ready
        try:
            data = self.connection.recv(READ_SIZE)
        except ConnectionResetError:
            data = b""
        return self._decoder.feed(data) if data else None

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """All frames, until hyperd closes the connection."""
        while (batch := self.receive()) is not None:
            yield from batch

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Write frames of ``kind``; blocks while hyperd does not read; BrokenPipeError: it is gone."""
        for at in range(0, len(payload) or 1, frames.CHUNK):
            self.connection.sendall(frames.encode(kind, payload[at : at + frames.CHUNK]))

    def close(self) -> None:
        """Detach; the process goes on."""
        self.connection.close()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def log_frames(answer: Answer) -> Iterator[LogFrame]:
    decoder = frames.Decoder()
    for chunk in answer.chunks():
        for stream, payload in decoder.feed(chunk):
            yield LogFrame(stream, int.from_bytes(payload[:8], "big"), payload[8:])
