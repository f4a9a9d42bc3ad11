"""Programs that go into the background by themselves: known by the pid file that they write.

A pid file outlives its process, and a pid is reused; so the process must also have the file's own path
on its command line, which no stranger has.  Nothing is recorded by us, so no crash loses the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.process import ProcessId


@dataclass(frozen=True, slots=True)
class Background:
    """The process, if any, that wrote ``pid_file``."""

    pid_file: Path

    def find(self) -> ProcessId | None:
        with contextlib.suppress(OSError, ValueError):
            process = ProcessId.of(int(self.pid_file.read_text()))
            if process is not None and self._is_ours(process):
                return process
        return None

    def _is_ours(self, process: ProcessId) -> bool:
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        return os.fsencode(self.pid_file) in command and process.is_alive()

    async def stop(self) -> None:
        """Kill it and wait until it is gone; none is no error."""
        if (process := self.find()) is not None:
            process.kill(signal.SIGKILL)
            await process.wait()
        self.pid_file.unlink(missing_ok=True)
