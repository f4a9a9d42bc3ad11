"""What the guest is told so that a pod exists in it: its namespaces, its NIC, its containers' roots."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable

from hypercontainer.engine import messages, mounting, network
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.running import Running
from hypercontainer.guest.protocol import GetTimeline, Timeline


async def set_up(pod: Pod, running: Running) -> None:
    """Everything that this guest has not done yet; requests are queued without waiting between."""
    welcome = running.agent.welcome
    requests: list[Awaitable[object]] = []
    if not welcome.has_pod:
        setup = messages.set_up_pod(pod.record, clock_ns=time.time_ns(), entropy=os.urandom(64))
        requests.append(running.agent.request(setup))
        requests += network.set_up(pod, running)
    names = [c.record.name for c in pod.containers]
    requests += [
        running.agent.request(
            messages.create_container(pod.record, c.record, names, mounts=await mounting.guest_mounts(pod, c))
        )
        for c in pod.containers
        if c.record.id not in welcome.containers
    ]
    await asyncio.gather(*requests)
    pod.timeline.mark("containers mounted")


async def merge_timeline(pod: Pod, running: Running) -> None:
    """Add the guest's own marks to those of this side."""
    timeline = await running.agent.request(GetTimeline())
    if isinstance(timeline, Timeline):
        pod.timeline.merge(timeline.marks)
