"""Child processes and strangers: run a program to its end, and know a process again after a restart.

A pid alone names nobody: pids are reused.  A process is known by pid and start time, field 22 of
``/proc/PID/stat`` (proc(5)), which together are unique for one boot of the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.errors import Unavailable
from hypercontainer.faults import point


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process of this boot of the host, for good."""

    pid: int
    start_time: int  # clock ticks since boot

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has ``pid`` now, or None when there is none or it is a zombie.

        One whose first thread has ended looks like a zombie while its other threads hold files and locks.
        """
        try:
            fields = stat_fields(pid)
        except OSError:
            return None
        return None if fields[0] in b"ZX" and int(fields[17]) <= 1 else cls(pid, int(fields[19]))

    def is_alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    def open(self) -> int | None:
        """A pidfd of the process (pidfd_open(2)), or None when it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return None
        if self.is_alive():
            return descriptor
        os.close(descriptor)
        return None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the process; one that is gone is no error, and its pid's next owner is safe."""
        descriptor = self.open()
        if descriptor is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

    async def wait(self) -> None:
        """Until the process has ended, whoever its parent is."""
        descriptor = self.open()
        if descriptor is None:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def stat_fields(pid: int) -> list[bytes]:
    """What /proc/PID/stat says, from field 3 on (proc(5)); raises OSError for a process that is gone.

    By bare system calls, as it may be asked of every process of the host: pathlib takes ten times as long.
    """
    descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096).rpartition(b")")[2].split()
    finally:
        os.close(descriptor)


def find_program(name: str, *, package: str) -> str:
    """The path of program ``name``; raises Unavailable that names the Debian ``package``."""
    path = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        raise Unavailable(f"{name} is needed and not installed", hint=f"apt-get install {package}")
    return path


async def run(
    command: Sequence[str], *, stdin: bytes | None = None, environment: Mapping[str, str] | None = None
) -> bytes:
    """Run ``command`` to its end and return its output; raises Unavailable with its last words."""
    point("running program")
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        output, errors = await child.communicate(stdin)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        raise
    point("program has run")
    if child.returncode != 0:
        raise Unavailable(
            f"{Path(command[0]).name} failed with status {child.returncode}: {last_words(errors)}"
        )
    return output


def last_words(errors: bytes, *, lines: int = 3) -> str:
    """The end of what a program said, fit for one line of an error message."""
    text = errors.decode(errors="replace").strip().splitlines()[-lines:]
    return " / ".join(line.strip() for line in text) or "it said nothing"
