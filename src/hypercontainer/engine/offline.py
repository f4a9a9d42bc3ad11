"""A container of a pod that does not run, reached all the same: a machine boots for that alone.

Nothing of the pod changes: it stays Created, with its logs and exit codes; its containers' processes are
not started, it takes no address and publishes no port.  A daemon that dies meanwhile leaves a record with
a machine that was not to run, which the next one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator

from hypercontainer.engine import conduct, endings, launch, machines, messages, mounting, slots
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.running import Running, before_end
from hypercontainer.errors import InvalidState
from hypercontainer.guest.agent import Agent
from hypercontainer.hypervisors.base import Machine


@contextlib.asynccontextmanager
async def reached(pod: Pod, container: Container) -> AsyncIterator[Agent]:
    """The guest where the container is mounted; the pod's lock is held while the pod does not run."""
    await pod.lock.acquire()
    try:
        await _refuse_if_going(pod)
        pod.refuse_forgotten(container)
        if pod.running is None:
            running = await _boot(pod, container)
        else:
            running = pod.running
            await conduct.mount(pod, running, container)
    except BaseException:
        pod.lock.release()
        raise
    if running is pod.running:
        pod.lock.release()  # others may go on: an end of the machine ends the channel
        yield running.agent
        return
    try:
        yield running.agent
    finally:  # whoever waits here may be cancelled again, and the machine is to end all the same
        await asyncio.shield(pod.host.tasks.start(_give_back(pod, running), name=f"end {pod.record.machine}"))


async def _refuse_if_going(pod: Pod) -> None:
    await endings.see_end(pod)
    if pod.record.target == "removed":
        raise InvalidState(f"pod {pod.record.name} is being removed")
    pod.refuse_paused()


async def _boot(pod: Pod, container: Container) -> Running:
    """A machine with the container's root, and no process; nothing is left of it when that fails."""
    running: Running | None = None
    try:
        driver = await launch.usable_driver(pod)
        mounting.prepare(pod, mounting.mounts_of(pod))
        limit = driver.capabilities.disk_slots
        held = slots.assign((), launch.wanted_disks(pod), limit=limit)
        pod.decide(machine=secrets.token_hex(6), next_process=1, slots=held)
        machine = await launch.launch_machine(pod, driver, nics=())
        running = Running(hypervisor=driver, machine=machine, agent=await _connect(machine))
        await before_end(_set_up(pod, running, container), machine)
    except BaseException:
        await asyncio.shield(pod.host.tasks.start(_end(pod, running, clean=False), name="end a machine"))
        raise
    return running


async def _connect(machine: Machine) -> Agent:
    try:
        return await before_end(machines.answer(machine), machine)
    except BaseException:
        await machine.kill()
        raise


async def _set_up(pod: Pod, running: Running, container: Container) -> None:
    setup = messages.set_up_pod(
        pod.record, running.hypervisor.capabilities, clock_ns=time.time_ns(), entropy=os.urandom(64)
    )
    await running.agent.request(setup)
    await conduct.create(pod, running, container)


async def _give_back(pod: Pod, running: Running) -> None:
    try:
        await _end(pod, running, clean=True)
    finally:
        pod.lock.release()


async def _end(pod: Pod, running: Running | None, *, clean: bool) -> None:
    if running is not None:
        await endings.end_machine(pod, running, clean=clean)
    endings.forget_machine(pod)
