"""What ``run``, ``start -a``, ``exec`` and ``attach`` share: carrying an attached process to its end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from hypercontainer.cli import output
from hypercontainer.cli.terminal import Abandoned, AttachedStreams, ConnectionLost, Detached, OutputClosed
from hypercontainer.client import Client, Stopped
from hypercontainer.client.streams import Attached, Seen
from hypercontainer.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ABANDONED = 130
OUTPUT_CLOSED = 128 + signal.SIGPIPE
Again = Callable[[Client, Seen], Attached]
_DEATHS = 5  # of hyperd, soon after one another: then it is our attaching that it dies of
_SHORT_LIFE_S = 10.0
_ATTEMPTS = 5  # to attach again
_PAUSE_S = 0.2


def carry(
    attached: Attached,
    *,
    terminal: bool,
    stdin: bool,
    detach_keys: str,
    forward_signals: bool = True,
    owns_process: bool = False,
    again: Again | None = None,
) -> tuple[int, dict[str, Any] | None]:
    """The exit status for hyper, and the timeline when one was asked for.

    ``owns_process``: it was started for us, so it gets SIGPIPE when nobody reads our output any more.
    ``again``: attaches to the process through the next hyperd, if this one dies, behind what was seen.
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
            return _carried(streams, again), streams.timeline
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


def _carried(streams: AttachedStreams, again: Again | None) -> int:
    """The exit code, also when hyperd dies meanwhile."""
    deaths = 0
    while True:
        began = time.monotonic()
        try:
            return streams.run()
        except ConnectionLost:
            deaths = deaths + 1 if time.monotonic() - began < _SHORT_LIFE_S else 1
            if again is None or deaths > _DEATHS:
                raise
        streams.resume(_attached_again(again, streams.seen))
        output.note("hyperd went away; going on with the next one")


def _attached_again(again: Again, seen: Seen) -> Attached:
    """By the next hyperd, or the one after it, if that dies as well."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return again(Client.next(), seen)
        except Stopped:
            raise
        except Unavailable:
            time.sleep(_PAUSE_S)
    return again(Client.next(), seen)


def silence_output() -> None:
    """Nobody reads stdout: let what Python still writes at its end go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
