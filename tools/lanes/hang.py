"""Why an outer guest says nothing any more: what its CPU does, and what its kernels say of their tasks."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import IO

SAMPLES = 8  # of the CPU: where it loops, if it does
INTERVAL_S = 0.1
KEY_S = 0.5  # for the guest to take a key
ANSWER_S = 10.0  # for QEMU, whose main loop may be what hangs
ONCE = ("info status", "info jit", "info lapic", "info irq")
EACH = ("info registers", "x /6i $pc")
# Loud, then blocked tasks, CPUs, all tasks (Documentation/admin-guide/sysrq.rst).
SYSRQ = "9wlt"
# A break on the line comes before each; Xen's console has none, and dom0 takes Ctrl-O for it.
BREAK = "chardev-send-break serial0"
CTRL_O = b"\x0f"
# Ctrl-A three times switches to Xen, whose keys show registers, domains and run queues, and back.
XEN_KEYS = b"\x01\x01\x01" + b"dqr" + b"\x01\x01\x01"


def explain(monitor: Path, keyboard: int, file: IO[str], *, on_xen: bool) -> None:
    """Write what QEMU knows to ``file``, and make the guest say on its console what it knows itself."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(monitor))
            qemu = _Monitor(connection)
            for command in ONCE + EACH * SAMPLES:
                file.write(f"--- {command}\n{qemu.ask(command)}\n")
                time.sleep(INTERVAL_S)
            for key in SYSRQ.encode():
                _press_sysrq(qemu, keyboard, bytes([key]), on_xen=on_xen)
            _type(keyboard, XEN_KEYS if on_xen else b"")
    except (OSError, ValueError) as error:
        file.write(f"QEMU itself does not answer: {error!r}\n")


def _press_sysrq(qemu: _Monitor, keyboard: int, key: bytes, *, on_xen: bool) -> None:
    if not on_xen:
        qemu.ask(BREAK)
    _type(keyboard, CTRL_O + key if on_xen else key)
    time.sleep(KEY_S)


def _type(keyboard: int, keys: bytes) -> None:
    os.write(keyboard, keys)


class _Monitor:
    """QEMU's human monitor, by way of QMP: without echo, and with an end to each answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("r")
        self._lines.readline()  # the greeting
        self._execute("qmp_capabilities")

    def ask(self, command: str) -> str:
        return str(self._execute("human-monitor-command", **{"command-line": command}))

    def _execute(self, command: str, **arguments: str) -> object:
        self._connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while line := self._lines.readline():
            message = json.loads(line)
            if "event" not in message:
                return message.get("return", message)
        raise OSError("the monitor was closed")
