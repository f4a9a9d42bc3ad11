"""Logging set-up of the daemon; the pod at work is carried by a context variable into each line."""

from __future__ import annotations

import contextvars
import logging
from pathlib import Path

pod: contextvars.ContextVar[str] = contextvars.ContextVar("pod", default="-")


class _PodFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.pod = pod.get()
        return True


def set_up(*, file: Path | None, debug: bool) -> None:
    """Log to ``file``, or to stderr when there is none."""
    handler: logging.Handler = logging.FileHandler(file) if file else logging.StreamHandler()
    handler.addFilter(_PodFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(pod)s] %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    for noisy in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
