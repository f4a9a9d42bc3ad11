"""Whether a guest answers: a Ping now and then, which costs a round trip."""

from __future__ import annotations

import asyncio
import logging
import random

from hypercontainer.engine.pod import Pod
from hypercontainer.engine.running import Running
from hypercontainer.errors import HyperError
from hypercontainer.guest.agent import Agent
from hypercontainer.guest.protocol import Ping

logger = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 5.0


async def watch(pod: Pod, running: Running, *, interval_s: float) -> None:
    """Keep ``running.is_responsive`` true to the facts, as long as the channel lives."""
    await asyncio.sleep(interval_s * random.random())  # noqa: S311 - so that not all pods ask at once
    while running.agent.failure is None:
        if not pod.record.paused:
            _note(pod, running, await answers(running.agent, _ANSWER_TIMEOUT_S))
        await asyncio.sleep(interval_s)


async def answers(agent: Agent, timeout_s: float) -> bool:
    """Whether hyperstart answers within the time."""
    try:
        async with asyncio.timeout(timeout_s):
            await agent.request(Ping())
    except (TimeoutError, HyperError):
        return False
    return True


def _note(pod: Pod, running: Running, is_responsive: bool) -> None:
    if running.is_responsive and not is_responsive and running.agent.failure is None:
        logger.warning("pod %s: its guest does not answer", pod.record.name)
    running.is_responsive = is_responsive
