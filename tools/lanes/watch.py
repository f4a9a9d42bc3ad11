"""Following an outer guest by its console, to its end or to a deadline; one that hangs is asked why first."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

UP = "lane: up after"
OVER = "lane: over after"
HANG = "hang.txt"

Explain = Callable[[IO[str]], None]  # writes why the guest hangs, and makes it say so on its console


class BootError(Exception):
    """The outer guest didn't come up: no fault of what is tested, and worth another try."""


class LaneError(Exception):
    """The outer guest came up, but never to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds of the host.  Generous: hosts are busy, and what hangs, hangs for ever."""

    up: float = 300
    over: float = 1500
    silent: float = 400  # a test's own deadline, in the guest's time, has ended it before
    explained: float = 30
    off: float = 60


def follow(output: Iterable[bytes], results: Path, deadlines: Deadlines, explain: Explain) -> None:
    """Until the guest that writes ``output`` is off; its lines go to ``console.log`` and to stdout."""
    with (results / "console.log").open("w") as log:
        console = _Console(output, log)
        try:
            console.wait_for(UP, within=deadlines.up, silent=deadlines.up)
            console.wait_for(OVER, within=deadlines.over, silent=deadlines.silent)
            with contextlib.suppress(EOFError, TimeoutError):
                console.wait_for(None, within=deadlines.off, silent=deadlines.off)
        except TimeoutError as error:
            fault = console.fault(f"{error}; what it did is in {results / HANG}")
            _explain(console, results, deadlines, explain)
            raise fault from error
        except EOFError as error:
            raise console.fault("it ended") from error


def _explain(console: _Console, results: Path, deadlines: Deadlines, explain: Explain) -> None:
    with (results / HANG).open("w") as file:
        explain(file)
    with contextlib.suppress(EOFError, TimeoutError):
        console.wait_for(None, within=deadlines.explained, silent=deadlines.explained)


class _Console:
    """The lines of a guest as they come."""

    def __init__(self, output: Iterable[bytes], log: IO[str]) -> None:
        self._began = time.monotonic()
        self._log = log
        self._lines = queue.SimpleQueue[str | None]()
        self._is_up = False
        self._last = "none"
        threading.Thread(target=self._listen, args=[output], daemon=True).start()

    def _listen(self, output: Iterable[bytes]) -> None:
        for raw in output:
            self._lines.put(raw.decode(errors="replace").strip())
        self._lines.put(None)

    def wait_for(self, word: str | None, *, within: float, silent: float) -> None:
        """Raises TimeoutError, and EOFError at the end; ``word`` None never comes."""
        deadline = time.monotonic() + within
        while word is None or word not in self._last:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"it took longer than {within:.0f} s")
            if not self._hear(min(left, silent)) and silent < left:
                raise TimeoutError(f"it was silent for {silent:.0f} s")
        self._is_up = True

    def _hear(self, seconds: float) -> bool:
        """Whether there was a line; raises EOFError at the end."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return False
        if line is None:
            raise EOFError
        print(f"[{time.monotonic() - self._began:6.1f}] {line}", flush=True)
        print(line, file=self._log, flush=True)
        self._last = line
        return True

    def fault(self, why: str) -> BootError | LaneError:
        if self._is_up:
            return LaneError(f"the lane did not come to its end: {why}; its last words: {self._last}")
        return BootError(f"the outer guest did not come up: {why}; its last words: {self._last}")
