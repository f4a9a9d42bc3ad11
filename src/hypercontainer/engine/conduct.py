"""What the guest is told so that a pod exists in it: its namespaces, its NIC, its containers' roots."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace

from hypercontainer.engine import archives, launch, messages, mounting, network, slots
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.running import Running, deadline
from hypercontainer.guest.protocol import CreateContainer, GetTimeline, Mount, RemoveContainer, Timeline

# Of a guest that runs, while the pod's lock is held: one that hangs is to be stopped by who waits for that.
_CREATE_TIMEOUT_S = 60.0
_POPULATE_TIMEOUT_S = 1800.0  # hyperstart's own, for an image's files that go into a volume
_ERASE_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class SetUp:
    """What a guest is asked for before its containers' processes."""

    requests: list[Awaitable[object]]  # in their order; none waits for another
    is_waited_for: bool  # before the first process is asked for: some take more than one exchange


async def set_up(pod: Pod, running: Running) -> SetUp:
    """Everything that this guest has not done yet."""
    wanted = [
        c
        for c in pod.containers
        if c.record.target == "running" and (c.record.id not in running.mounted or archives.needs_files(c))
    ]
    mounts = [await mounting.guest_mounts(pod, container) for container in wanted]
    requests: list[Awaitable[object]] = []
    if not running.has_pod:
        requests += set_up_pod(pod, running)
    roots = list(zip(wanted, mounts, strict=True))
    in_turn = _share_populated(mounts)
    if in_turn:
        requests.append(_create_in_turn(pod, running, roots))
    else:
        requests += [_create(pod, running, *root) for root in roots]
    return SetUp(requests, in_turn or any(archives.needs_files(container) for container in wanted))


def _share_populated(mounts: Sequence[Sequence[Mount]]) -> bool:
    """Whether several containers mount a volume that begins with an image's files: those of the first."""
    populated = {mount.source for own in mounts for mount in own if mount.populate}
    uses = [source for own in mounts for source in populated & {mount.source for mount in own}]
    return len(uses) > len(populated)


async def _create_in_turn(
    pod: Pod, running: Running, roots: Sequence[tuple[Container, tuple[Mount, ...]]]
) -> None:
    for container, mounts in roots:
        await _create(pod, running, container, mounts)


def set_up_pod(pod: Pod, running: Running) -> list[Awaitable[object]]:
    """Requests for what its containers share."""
    setup = messages.set_up_pod(
        pod.record, running.hypervisor.capabilities, clock_ns=time.time_ns(), entropy=os.urandom(64)
    )
    running.has_pod = True  # it is asked for
    return [running.agent.request(setup), *network.set_up(pod, running)]


async def mount(pod: Pod, running: Running, container: Container) -> None:
    """The root of a container in a pod that runs: its disks in slots, and the mounts."""
    if container.record.id in running.mounted:
        return
    mounting.prepare(pod, mounting.mounts_of(pod))
    limit = running.hypervisor.capabilities.disk_slots
    after = slots.assign(pod.record.slots, launch.wanted_disks(pod), limit=limit)
    changes = slots.changes(pod.record.slots, after)
    pod.decide(slots=after)
    await launch.swap(pod, running.machine, changes)
    await mounting.show_new(pod, running, container)
    await create(pod, running, container)


async def create(pod: Pod, running: Running, container: Container) -> None:
    """The root of a container, whose disks are in their slots; nothing is started."""
    mounts = await mounting.guest_mounts(pod, container)
    copies = any(mount.populate for mount in mounts)
    async with deadline(
        _POPULATE_TIMEOUT_S if copies else _CREATE_TIMEOUT_S, "the guest did not make the container's root"
    ):
        await _create(pod, running, container, mounts)


async def _create(pod: Pod, running: Running, container: Container, mounts: tuple[Mount, ...]) -> None:
    names = [c.record.name for c in pod.containers]
    message = messages.create_container(pod.record, container.record, names, mounts=mounts)
    if archives.needs_files(container):
        await _create_with_files(pod, running, container, message)
    else:
        await running.agent.request(message)
    running.mounted.add(container.record.id)


async def _create_with_files(
    pod: Pod, running: Running, container: Container, message: CreateContainer
) -> None:
    """With the spec's files, which even a root that is read-only gets."""
    agent, away = running.agent, RemoveContainer(container.record.id, erase=False)
    if container.record.id in running.mounted:  # hyperd died on the way
        await agent.request(away)
    await agent.request(replace(message, read_only=False))
    await archives.write_files(pod, container, agent)
    if message.read_only:
        await agent.request(away)
        await agent.request(message)


async def erase(pod: Pod, running: Running) -> None:
    """Unmount the containers that were removed, erase what they wrote, and take back what only they had."""
    requests: list[Awaitable[object]] = []
    for container in pod.record.erase:
        if container not in running.mounted:  # only what is mounted can be erased
            requests.append(running.agent.request(messages.create_remains(pod.record, container)))
        requests.append(running.agent.request(RemoveContainer(container, erase=True)))
    if requests:
        async with deadline(_ERASE_TIMEOUT_S, "the guest did not erase what removed containers wrote"):
            await all_of(requests)
        running.mounted.difference_update(pod.record.erase)
        pod.save(erase=(), slots=await mounting.tidy(pod, running.machine))


async def all_of(requests: Iterable[Awaitable[object]]) -> None:
    """Wait for all, and raise what the first of those that failed raised."""
    for result in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def merge_timeline(pod: Pod, running: Running) -> None:
    """Add the guest's own marks to those of this side."""
    timeline = await running.agent.request(GetTimeline())
    if isinstance(timeline, Timeline):
        pod.timeline.merge(timeline.marks)
