"""The other end of ``work serve``, to be started where containers are reached: prints one number.

    python -m bench.client WHAT ADDRESS PORT

drink and pour: megabytes a second to and from the server; echo: microseconds of one byte there and back.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

SPENT_S = 1.0
_CHUNK = bytes(1 << 18)


def drink(server: socket.socket) -> float:
    """What the server has taken when it says so."""
    server.sendall(b"d")
    began, size = time.perf_counter(), 0
    while time.perf_counter() - began < SPENT_S:
        size += server.send(_CHUNK)
    server.shutdown(socket.SHUT_WR)
    if server.recv(1) != b"\0":
        raise SystemExit("the server has not taken all")
    return size / 1e6 / (time.perf_counter() - began)


def pour(server: socket.socket) -> float:
    server.sendall(b"p")
    into = bytearray(len(_CHUNK))
    began, size = time.perf_counter(), 0
    while time.perf_counter() - began < SPENT_S:
        if not (got := server.recv_into(into)):
            raise SystemExit("the server has ended early")
        size += got
    return size / 1e6 / (time.perf_counter() - began)


def echo(server: socket.socket) -> float:
    server.sendall(b"e")
    began, turns = time.perf_counter(), 0
    while time.perf_counter() - began < SPENT_S:
        server.sendall(b"x")
        if server.recv(1) != b"x":
            raise SystemExit("the server has ended early")
        turns += 1
    return (time.perf_counter() - began) / turns * 1e6


ACTS: dict[str, Callable[[socket.socket], float]] = {"drink": drink, "pour": pour, "echo": echo}


def main() -> None:
    what, address, port = sys.argv[1:]
    with socket.create_connection((address, int(port)), timeout=60) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(f"{ACTS[what](server):.3f}")


if __name__ == "__main__":
    main()
