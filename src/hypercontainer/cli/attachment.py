"""What ``run``, ``start -a``, ``exec`` and ``attach`` share: carrying an attached process to its end."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from hypercontainer.cli import output
from hypercontainer.cli.terminal import Abandoned, AttachedStreams, ConnectionLost, Detached, OutputClosed
from hypercontainer.client import Attached, Client
from hypercontainer.errors import InvalidState, Unavailable

ABANDONED = 130
OUTPUT_CLOSED = 128 + signal.SIGPIPE
_LIVES = 5  # deaths of hyperd that one attached process may see
_PAUSE_S = 0.2


def carry(
    attached: Attached,
    *,
    terminal: bool,
    stdin: bool,
    detach_keys: str,
    forward_signals: bool = True,
    owns_process: bool = False,
    container: str = "",
) -> tuple[int, dict[str, Any] | None]:
    """The exit status for hyper, and the timeline when one was asked for.

    ``owns_process``: it was started for us, so it gets SIGPIPE when nobody reads our output any more.
    ``container``: whose main process it is, shown from its first byte; if hyperd dies, the next one serves.
    """
    sys.stdout.flush()
    streams = AttachedStreams(
        attached,
        terminal=terminal,
        stdin=stdin,
        detach_keys=detach_keys,
        forward_signals=forward_signals,
    )
    with attached:
        try:
            return _carried(streams, container), streams.timeline
        except Detached:
            print("\r\nread escape sequence", file=sys.stderr)
            return 0, None
        except Abandoned:
            output.note("left; the process may still run (see `hyper ps`)")
            return ABANDONED, None
        except OutputClosed:
            if owns_process:
                streams.send_last_signal(signal.SIGPIPE)
            silence_output()
            return OUTPUT_CLOSED, None


def _carried(streams: AttachedStreams, container: str) -> int:
    """The exit code, also when hyperd dies meanwhile, unless it took input with it that nobody has now."""
    for _ in range(_LIVES):
        try:
            return streams.run()
        except ConnectionLost:
            if not container or (streams.has_sent_data and not streams.terminal):
                raise
        try:
            client = Client.default()
            streams.resume(client.containers.attach(container, from_start=True))
        except InvalidState:  # it has ended meanwhile
            return _ended(client, streams, container)
        except Unavailable:  # this one died, too
            time.sleep(_PAUSE_S)
        else:
            output.note("hyperd went away; going on with the next one")
    return streams.run()


def _ended(client: Client, streams: AttachedStreams, container: str) -> int:
    streams.skip_shown()
    for frame in client.containers.logs(container):
        streams.show(frame.stream, frame.data)
    return client.containers.wait(container)


def silence_output() -> None:
    """Nobody reads stdout: let what Python still writes at its end go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
