"""How the guest of one pod becomes the next one's: in turn, or with both of them in it for a moment.

In turn, the old pod is torn down, disks and shares are swapped, and the new pod is set up as after a boot.

Side by side, the new pod's disks get slots that were empty, and its namespaces and its containers' roots
are made while the guest still writes and unmounts what the old pod had: that waits for the host's disk.
Pods do not see each other's: no disk of the new pod comes before every process of the old one is killed, and
no process of the new one starts before what only the old one had has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from hypercontainer.engine import conduct, endings, launch, lifecycle, mounting, slots, volumes
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.running import Running, before_end, deadline
from hypercontainer.engine.slots import Slots, Succession
from hypercontainer.guest import schema
from hypercontainer.guest.protocol import Ping, TearDownPod
from hypercontainer.model.network import Lease

_TEAR_DOWN_TIMEOUT_S = 15.0


async def succeed(
    old: Pod, new: Pod, earlier: Running, *, before: Lease | None, after: Lease | None, had: Slots
) -> None:
    """Make the guest of ``old``, whose slots hold ``had``, that of ``new``; what still runs is killed."""
    changes = slots.succession(had, new.record.slots, launch.wanted_disks(new))
    if changes.is_beside and not _must_wait(new, earlier, had, changes):
        running = _take(new, earlier)
        await before_end(_set_up_beside(old, new, running, before, after, changes), running.machine)
    else:
        await endings.end_processes(old, old.containers, 0)
        await leave(old)
        new.timeline.mark("old pod ended")
        await _install(new, earlier, before, after, changes)


def _must_wait(new: Pod, earlier: Running, had: Slots, changes: Succession) -> bool:
    """Whether the old pod has what the new one needs for itself: the share, or a volume's file."""
    leave = any(volumes.is_slot_key(had[slot]) for slot in changes.late)
    come = any(volumes.is_slot_key(key) for key in changes.early.values())
    return bool(earlier.machine.shares() or mounting.shares(new) or (leave and come))


async def install(pod: Pod, earlier: Running, *, before: Lease | None, after: Lease | None) -> None:
    """Make the guest ``pod``'s, whatever it is now and has in its slots; that it is, the caller records."""
    changes = slots.succession((), pod.record.slots, launch.wanted_disks(pod))
    await _install(pod, earlier, before, after, changes)


async def leave(pod: Pod) -> None:
    """The pod lets go of a machine that goes on without it."""
    running, pod.running = pod.running, None
    if running is not None:
        await running.tasks.close()
    for container in pod.containers:
        endings.lose(pod, container, "")
    endings.give_up_restarts(pod)
    pod.execs.clear()


async def switch(pod: Pod, before: Lease | None, after: Lease | None) -> None:
    """The network of its machine, from one lease to the next."""
    if before is not None and after is not None and before != after:
        await pod.host.networks.switch(before, after)


def _take(pod: Pod, earlier: Running) -> Running:
    pod.running = running = Running(
        hypervisor=earlier.hypervisor, machine=earlier.machine, agent=earlier.agent
    )
    lifecycle.watch(pod, running)
    return running


async def _tear_down(pod: Pod, running: Running, changes: Succession) -> None:
    """An older guest unmounts all, and mounts anew what was to stay."""
    knows = running.agent.welcome.version >= schema.since(TearDownPod, "keep")
    async with deadline(_TEAR_DOWN_TIMEOUT_S, "the guest did not let go of the pod that it had"):
        await running.agent.request(TearDownPod(keep=changes.kept if knows else ()))
    pod.timeline.mark("torn down")


async def _forget(running: Running, processes: frozenset[int]) -> None:
    """Of the pod before, whose ends nobody waits for any more; the guest has room for 1,024."""
    await asyncio.gather(*map(running.agent.forget, processes))


# --- In turn ---


async def _install(
    pod: Pod, earlier: Running, before: Lease | None, after: Lease | None, changes: Succession
) -> None:
    running = _take(pod, earlier)
    await before_end(_set_up_afresh(pod, running, before, after, changes), running.machine)


async def _set_up_afresh(
    pod: Pod, running: Running, before: Lease | None, after: Lease | None, changes: Succession
) -> None:
    machine, left = running.machine, running.agent.processes()
    await _tear_down(pod, running, changes)
    await mounting.hide(machine, machine.shares())
    await launch.swap(pod, machine, changes.late | changes.early)
    await mounting.show(pod, machine)
    await switch(pod, before, after)
    pod.timeline.mark("disks swapped")
    await asyncio.gather(_forget(running, left), lifecycle.bring_up(pod, running))


# --- Side by side ---


async def _set_up_beside(
    old: Pod, new: Pod, running: Running, before: Lease | None, after: Lease | None, changes: Succession
) -> None:
    """The guest is asked for all of it in one go."""
    running.cleared.clear()
    left = running.agent.processes()
    await _together(
        _clear(new, running, changes),
        _move_in(new, running, before, after, changes),
        conduct.all_of(conduct.set_up_pod(new, running)),
        _see_off(old, new),
    )
    await _forget(running, left)


async def _clear(pod: Pod, running: Running, changes: Succession) -> None:
    """Kill what runs, and take away what only the old pod had."""
    await _tear_down(pod, running, changes)
    await launch.swap(pod, running.machine, changes.late)
    pod.timeline.mark("old disks unplugged")
    running.cleared.set()


async def _move_in(
    pod: Pod, running: Running, before: Lease | None, after: Lease | None, changes: Succession
) -> None:
    """Once the old pod's processes are killed: a guest takes what it is asked for in its order."""
    await running.agent.request(Ping())
    await asyncio.gather(switch(pod, before, after), launch.swap(pod, running.machine, changes.early))
    pod.timeline.mark("disks plugged")
    await lifecycle.bring_up(pod, running)


async def _see_off(old: Pod, new: Pod) -> None:
    await endings.see_killed(old, old.containers)
    await leave(old)
    new.timeline.mark("old pod ended")


async def _together(*work: Awaitable[None]) -> None:
    """All of it, or after the first failure nothing more."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
