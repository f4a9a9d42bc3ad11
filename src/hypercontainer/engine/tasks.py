"""The owner of background tasks: each has a name, its failure is logged, and closing ends them all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from hypercontainer.errors import HyperError

logger = logging.getLogger(__name__)


class Tasks:
    """Tasks that live as long as their owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel what runs and wait for it; the caller's own task is left out."""
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, HyperError):  # whoever waits for the task gets it, and nobody else needs it
            logger.info("%s: %s", task.get_name(), error.message)
        else:
            logger.error("task %s failed", task.get_name(), exc_info=error)
