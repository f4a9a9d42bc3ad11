"""Pods that serve something small over the network, and the program for UDP that busybox lacks."""

from __future__ import annotations

import functools
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypercontainer.client import Client
from tests.e2e.hyper import Hyper
from tests.support.waiting import PATIENCE_S

SERVE = "while :; do echo {word} | nc -l -p {port}; done"
SERVE_UDP = "until [ -x /udp ]; do sleep 0.1; done; /udp serve {port} {word}"


def start(
    hyper: Hyper, name: str, script: str, *, image: str = "busybox", files: Sequence[Any] = (), **asked: Any
) -> dict[str, Any]:
    """Run a pod of one container that runs ``script``; its view."""
    container = {"image": image, "command": ["sh", "-c", script], "files": files}
    pods = Client(hyper.root / "run/hyper.sock").pods
    pods.create({"name": name, "containers": [container], **asked})
    return dict(pods.start(name))


def ask(port: int, *, udp: bool = False, address: str = "127.0.0.1", request: bytes = b"") -> str:
    """What answers at a port of the host, within a while."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if answer := _answer(address, port, udp=udp, request=request):
                return answer.decode().strip()
        except OSError:
            time.sleep(0.1)
    return ""


def _answer(address: str, port: int, *, udp: bool, request: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as connection:
        connection.settimeout(2)  # a guest on a busy host takes its time; what was lost is asked again
        connection.connect((address, port))
        if udp or request:
            connection.send(request or b"?\n")
        return connection.recv(1000) if udp else b"".join(iter(lambda: connection.recv(1000), b""))


@functools.cache
def udp_program() -> bytes:
    """udp.c, for a container of any image."""
    source = Path(__file__).with_name("udp.c")
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "udp"
        subprocess.run(["musl-gcc", "-static", "-Os", "-s", "-o", program, source], check=True)
        return program.read_bytes()


def install(hyper: Hyper, pod: str, program: bytes) -> None:
    """Put the UDP program into a running pod, whose script may wait for it."""
    hyper.ok("exec", "-i", pod, "sh", "-c", "cat > /u && chmod +x /u && mv /u /udp", stdin=program)
