"""What ``run``, ``start -a``, ``exec`` and ``attach`` share: carrying an attached process to its end."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from hypercontainer.cli import output
from hypercontainer.cli.terminal import Abandoned, AttachedStreams, Detached, OutputClosed
from hypercontainer.client import Attached

ABANDONED = 130
OUTPUT_CLOSED = 128 + signal.SIGPIPE


def carry(
    attached: Attached,
    *,
    terminal: bool,
    stdin: bool,
    detach_keys: str,
    forward_signals: bool = True,
    owns_process: bool = False,
) -> tuple[int, dict[str, Any] | None]:
    """The exit status for hyper, and the timeline when one was asked for.

    ``owns_process``: it was started for us, so it gets SIGPIPE when nobody reads our output any more.
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
            return streams.run(), streams.timeline
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


def silence_output() -> None:
    """Nobody reads stdout: let what Python still writes at its end go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
