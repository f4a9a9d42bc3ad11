"""Where a test makes hyperd die, to prove that it may die anywhere.

``point`` stands before and after whatever outlives the process: a record, a file, a child, a request to
a guest.  It does nothing, unless the environment names a file in ``HYPER_FAULT``: while that exists, it
holds how many points are still to be passed, each one counts it down, and at 0 the file is removed and the
process sent SIGKILL, so that nothing of it runs any more.  Thus a test arms a daemon that runs, sees
whether and where it died, and how many points a verb has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock

VARIABLE = "HYPER_FAULT"
_FRAMES = 8  # of the callers, in the last words


def written(points: int) -> str:
    """What the file holds: always as long, so that whoever reads meanwhile finds a number."""
    return f"{points:9}"


class _Fuse:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = Lock()  # threads pass points, too

    def __call__(self, name: str) -> None:
        # never made anew: it may just have been taken away
        with self._lock, contextlib.suppress(FileNotFoundError), self._file.open("r+") as fuse:
            left = int(fuse.read()) - 1
            if left > 0:
                fuse.seek(0)
                fuse.write(written(left))
                return
            self._file.unlink()
            _die(name)


def _die(name: str) -> None:
    """The last words are the place, for whoever reads why a test failed."""
    frame, callers = sys._getframe(2), list[str]()
    while frame.f_back is not None and len(callers) < _FRAMES:
        callers.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    os.write(2, f"hyperd dies at {name!r} in {' < '.join(callers)}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def _pass(name: str) -> None:
    """Nobody asked for a fault."""


point: Callable[[str], None] = _Fuse(Path(os.environ[VARIABLE])) if VARIABLE in os.environ else _pass
