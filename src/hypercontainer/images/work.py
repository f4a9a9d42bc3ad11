"""Long blocking work in a thread that ends when the one who asked for it goes away."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from hypercontainer.errors import HyperError, Unavailable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


# Our own: a few long pieces of work must not keep the daemon's other threads waiting.
_pool = ThreadPoolExecutor(4, thread_name_prefix="images")


class Stopped(Exception):
    """The work was told to stop; never seen outside of `in_thread`."""


class Stop:
    """Told to a thread that should end; it looks at it between pieces of work."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        if self._event.is_set():
            raise Stopped


async def in_thread(
    function: Callable[Concatenate[Stop, Arguments], Result], *args: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Run ``function(stop, ...)`` in a thread; when cancelled, wait until it has stopped and cleaned up."""
    stop = Stop()
    work = asyncio.get_running_loop().run_in_executor(_pool, partial(function, stop, *args, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # read, so that nobody logs it as lost
        raise


@contextmanager
def disk_errors(what: str, where: Path) -> Iterator[None]:
    """Say in words that the disk is full or broken while ``what`` was done below ``where``."""
    try:
        yield
    except OSError as error:
        raise disk_error(what, where, error) from error


def disk_error(what: str, where: Path, error: OSError) -> HyperError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            f"cannot {what}: no space left on the disk of {where}",
            hint="free some space (hyper rmi removes images), and try again",
        )
    return Unavailable(f"cannot {what}: {error.strerror or error} ({where})")
