"""Starting hyperd when nobody listens, and finding the next one when it goes."""

from __future__ import annotations

import os
import time

from hypercontainer.client import sockets
from hypercontainer.client.http import connect
from hypercontainer.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

    from hypercontainer.config import Paths

RUNS_ALREADY = 75  # exit status of a hyperd that found another one (sysexits.h: EX_TEMPFAIL)
START_TIMEOUT_S = 30.0
NEXT_TIMEOUT_S = 10.0
_POLL_S = 0.005
_NEXT_POLL_S = 0.05
_LOG_SIZE = 8 << 20


def ensure_daemon(paths: Paths, *, timeout_s: float = START_TIMEOUT_S) -> None:
    """Start hyperd unless its socket takes connections; raises Unavailable with the end of its log.

    Safe when two do it at once: hyperd's lock decides, and both wait for the one that won.  The other is
    ended: were it slow, it would find that one gone, and serve a root that nobody wants served any more.
    """
    if is_listening(paths):
        return
    paths.state.mkdir(parents=True, exist_ok=True)
    _turn_over(paths.daemon_log)
    log_start = paths.daemon_log.stat().st_size if paths.daemon_log.exists() else 0
    child = _spawn(paths)
    deadline = time.monotonic() + timeout_s
    while not (answering := _answering(paths, deadline)):
        status = child.poll()
        if status not in (None, RUNS_ALREADY) or time.monotonic() > deadline:
            what = "did not answer" if status is None else f"ended with status {status}"
            raise Unavailable(
                f"hyperd was started and {what}: {_log_end(paths, log_start)}",
                hint=f"its log: {paths.daemon_log}",
            )
        time.sleep(_POLL_S)
    if answering != child.pid:
        child.terminate()
    child.returncode = 0  # nobody's child to wait for, if it lives on: no ResourceWarning


class Stopped(Unavailable):
    """hyperd has not died, but was told to end, or its root was removed; and no other came."""


def next_daemon(paths: Paths, *, timeout_s: float = NEXT_TIMEOUT_S) -> None:
    """The hyperd that follows one that has gone: started if that died, else waited for.

    One that dies leaves its socket's file.  One that was told to end takes it away, as who removes the
    root does: then it is not for a client that is left over to start another.  Raises Stopped.
    """
    deadline = time.monotonic() + timeout_s
    while not is_listening(paths):
        if paths.socket.exists():
            return ensure_daemon(paths)
        if not paths.run.exists() or time.monotonic() > deadline:
            raise Stopped("hyperd was stopped", hint="what runs in pods goes on; any command starts hyperd")
        time.sleep(_NEXT_POLL_S)
    return None


def _turn_over(log: Path) -> None:
    """Keep a log that has grown large as FILE.1: nobody else looks after this one."""
    if log.exists() and log.stat().st_size > _LOG_SIZE:
        log.replace(log.with_name(log.name + ".1"))


def is_listening(paths: Paths) -> bool:
    return takes_connections(os.fspath(paths.socket))


def takes_connections(path: str) -> bool:
    """Whether a hyperd listens on the socket ``path``."""
    with sockets.unix() as probe:
        try:
            connect(probe, path)
        except OSError:
            return False
    return True


def _spawn(paths: Paths) -> Popen[bytes]:
    import subprocess
    import sys

    with paths.daemon_log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "hypercontainer.daemon"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )


def _answering(paths: Paths, deadline: float) -> int:
    """The pid of the hyperd that has come up, else 0: it binds early, and answers when it is ready."""
    with sockets.unix() as probe:
        try:
            pid = connect(probe, os.fspath(paths.socket))
            probe.settimeout(max(0.01, deadline - time.monotonic()))
            probe.sendall(b"GET /v1/ping HTTP/1.1\r\nHost: hyperd\r\nConnection: close\r\n\r\n")
            return pid if probe.recv(12) == b"HTTP/1.1 200" else 0
        except OSError:
            return 0


def _log_end(paths: Paths, start: int) -> str:
    with paths.daemon_log.open("rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").strip().splitlines()
    return " / ".join(line.strip() for line in lines[-3:]) or "it said nothing"
