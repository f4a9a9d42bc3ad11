"""``hyper`` out of a process that has imported it: for a host whose CPU takes seconds over each start.

    python -m tests.support.preloaded    forks a command for each message on its standard input, a socket

From ``program()`` on, a command is what it is when a shell starts it: own process, streams and environment.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn

from hypercontainer.cli import main
from tests.support.commands import Result

_MESSAGE_SIZE = 1 << 16


class Preloaded:
    """Such a process, seen from a test."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.support.preloaded"]
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), env=variables, start_new_session=True
            )

    def run(
        self, words: Sequence[str], variables: Mapping[str, str], *, stdin: bytes | None, timeout: float
    ) -> Result:
        """``hyper WORDS`` to its end; raises TimeoutError, and then nothing of it is left."""
        message = json.dumps([words, dict(variables)]).encode()
        self._connection.settimeout(timeout)
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin or b"")
            given.seek(0)
            try:
                socket.send_fds(self._connection, [message], [each.fileno() for each in (given, out, err)])
                status = int(self._connection.recv(_MESSAGE_SIZE))
            except TimeoutError:
                self.close()
                raise
            out.seek(0)
            err.seek(0)
            return Result(status, out.read(), err.read())

    def close(self) -> None:
        self._connection.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


# --- The process ---


def serve(connection: socket.socket) -> None:
    for module in {module for module, _ in main.VERBS.values()}:
        import_module(f"hypercontainer.cli.{module}")
    while True:
        message, streams, _, _ = socket.recv_fds(connection, _MESSAGE_SIZE, 3)
        if not message:
            return
        words, variables = json.loads(message)
        pid = os.fork()
        if pid == 0:
            _become(words, variables, streams)
        for descriptor in streams:
            os.close(descriptor)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.send(b"%d" % status)


def _become(words: list[str], variables: dict[str, str], streams: list[int]) -> NoReturn:
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["hyper", *words]
    main.program()


if __name__ == "__main__":
    with socket.socket(fileno=os.dup(0)) as commands:
        serve(commands)
