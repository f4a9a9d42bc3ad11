"""How far a pull, load or import is, in Docker's words, as a stream from the work to whoever asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of progress; ``current`` and ``total`` are bytes, 0 when nothing is counted."""

    id: str = ""  # the layer's short digest; empty: about the image
    status: str
    current: int = 0
    total: int = 0
    digest: str = ""  # of the manifest, on the last lines of a pull
    image: str = ""  # id of the image, on the last line of each image
    reference: str = ""  # in full, on the last line of each image that has one


Report = Callable[[Progress], None]


async def relay(work: Callable[[Report], Awaitable[None]]) -> AsyncGenerator[Progress, None]:
    """Run ``work`` and give what it reports; ends or raises as it does.

    The work is a task of its own, so that it goes on while the reader is slow; it ends with the reader.
    """
    reports: asyncio.Queue[Progress | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(reports.put_nowait)
        finally:
            reports.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        while (progress := await reports.get()) is not None:
            yield progress
        await task
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
