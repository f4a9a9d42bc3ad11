"""What ``hyper logs`` reads: a container's stored output, over all its runs, and what comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from hypercontainer.engine.container import Container
from hypercontainer.engine.follower import LogRecord
from hypercontainer.errors import InvalidState


def refuse_none(container: Container) -> None:
    """InvalidState when the container's log driver keeps nothing."""
    if container.record.spec.log.driver == "none":
        raise InvalidState(
            f"container {container.record.name} keeps no log: its log driver is none",
            hint=f"hyper attach {container.record.name} shows what comes",
        )


async def read(
    container: Container, *, follow: bool, tail: int | None, since: float, until: float
) -> AsyncIterator[LogRecord]:
    """The newest ``tail`` lines only when given; times are seconds since the epoch, 0 for none."""
    log = container.log
    if container.run is None and not container.is_alive:
        log.finish()
    start, skipped = (log.start, 0) if tail is None else await asyncio.to_thread(log.tail, tail)
    with contextlib.closing(log.follow(start)) as follower:
        async for record in follower.records(follow=follow):
            if until and record.time_ns > until * 1e9:
                return
            if record.time_ns >= since * 1e9 and len(record.data) > skipped:
                yield replace(record, data=record.data[skipped:])
            skipped = 0
