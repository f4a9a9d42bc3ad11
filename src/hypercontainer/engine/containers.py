"""The containers of a running pod: started, seen through to their ends, and started again by policy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import msgspec

from hypercontainer.engine import (
    conduct,
    endings,
    launch,
    messages,
    plan,
    processes,
    slots,
    volumes,
)
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.process import ProcessRun
from hypercontainer.engine.records import Pause, ProcessRecord
from hypercontainer.engine.running import Running
from hypercontainer.errors import HyperError, InvalidState
from hypercontainer.model.image import Image
from hypercontainer.model.pod import AddedContainer, ContainerSpec, PodSpec
from hypercontainer.model.rest import ContainerState

logger = logging.getLogger(__name__)


# --- Verbs ---


async def add(pod: Pod, added: AddedContainer, image: Image) -> Container:
    """Define another container of ``pod``, with the volumes that it brings; nothing is started."""
    async with pod.lock:
        if pod.record.target == "removed":
            raise InvalidState(f"pod {pod.record.name} is being removed")
        plan.check_restart(added.container.restart, removed=pod.record.spec.remove)
        joined, spec = plan.with_volumes(pod.record.spec, added)
        _check_volumes(pod, joined, spec, image)
        index = 1 + max((c.record.index for c in pod.containers), default=-1)
        name = plan.added_container_name(joined, pod.record, index)
        record = plan.container_record(
            joined, image, pod=pod.record, index=index, name=name, created=time.time()
        )
        return pod.adopt(record, spec)


def _check_volumes(pod: Pod, container: ContainerSpec, spec: PodSpec, image: Image) -> None:
    """Refuse what the driver cannot do or has no slots for; ``spec`` is the pod's with the container."""
    driver = pod.host.drivers.get(pod.record.hypervisor)
    volumes.check_added(container, spec, driver.capabilities, driver.name)
    own = volumes.disks_of(container, spec.volumes)
    wanted = [*launch.wanted_disks(pod), image.id, *map(volumes.slot_key, own)]
    slots.assign((), wanted, limit=driver.capabilities.disk_slots)


async def start(pod: Pod, container: Container) -> None:
    """Start a container of a running pod that does not run: a new one, or one that has ended."""
    async with pod.lock:
        running = pod.running_or_refuse("start a container")
        pod.refuse_paused()
        pod.refuse_forgotten(container)
        if container.record.state is ContainerState.RUNNING:
            raise InvalidState(f"container {container.record.name} is running already")
        pod.save_container(container, target="running", restarts=0, pause=Pause())
        try:
            await conduct.mount(pod, running, container)
            await _start_process(pod, running, container)
        except HyperError as error:
            _fail(pod, container, error)
            raise


async def stop(pod: Pod, container: Container, *, timeout_s: float | None) -> None:
    """Its stop signal, ``timeout_s`` or the pod's own grace, and the kill; no policy starts it again."""
    async with pod.lock:
        await _stop(pod, container, timeout_s=timeout_s)
    endings.start_end_if_ended(pod)


async def _stop(pod: Pod, container: Container, *, timeout_s: float | None) -> None:
    if pod.running is None:
        return
    pod.refuse_paused()
    pod.save_container(container, target="created")
    if container.record.state is ContainerState.RESTARTING:
        pod.save_container(container, state=ContainerState.EXITED, pause=Pause())
        container.log.finish()
    await endings.end_processes(pod, [container], timeout_s)


async def remove(pod: Pod, container: Container, *, force: bool) -> None:
    """Forget a container and erase what it wrote; ``force`` kills one that runs."""
    async with pod.lock:
        if container not in pod.containers:
            return
        if force:
            await _stop(pod, container, timeout_s=0)
        if pod.running is not None and container.record.state in _ALIVE:
            raise InvalidState(
                f"container {container.record.name} is {container.record.state}",
                hint="stop it first, or use rm -f",
            )
        pod.forget(container)
        if pod.running is not None and not pod.record.paused:
            await conduct.erase(pod, pod.running)
    endings.start_end_if_ended(pod)


_ALIVE = frozenset({ContainerState.RUNNING, ContainerState.RESTARTING})


# --- With the pod ---


async def bring_up(pod: Pod, running: Running, container: Container, known: set[int]) -> None:
    """Start a container that is to run, or go on with one that runs: ``known`` are the guest's processes."""
    record = container.record
    if record.process.number in known:
        await _resume(pod, running, container)
    elif record.state is ContainerState.RESTARTING:
        _restart_later(pod, running, container)
    elif record.process.started and record.state is ContainerState.RUNNING:
        endings.lose(pod, container, "its end was not seen")
        _restart_later(pod, running, container)
    elif record.state is ContainerState.CREATED and record.target == "running":
        await _start_process(pod, running, container)


async def _resume(pod: Pod, running: Running, container: Container) -> None:
    if container.record.process.exit_code is None:
        _follow(pod, running, container)
        return
    await running.agent.forget(container.record.process.number)
    _restart_later(pod, running, container)  # hyperd died between the record and this


async def _start_process(pod: Pod, running: Running, container: Container) -> None:
    container.log.restart()
    number = pod.decide_process(container)
    message = messages.start_container(container.record, pod.record, process=number)
    await processes.start(running, message)
    _follow(pod, running, container)


def _follow(pod: Pod, running: Running, container: Container) -> None:
    process = container.record.process
    started = msgspec.structs.replace(process, started=process.started or time.time())
    pod.save_process(container, ContainerState.RUNNING, started)
    container.run = run = ProcessRun(
        started,
        agent=running.agent,
        log=container.log,
        terminal=container.record.spec.terminal,
        timeline=pod.timeline,
    )
    running.tasks.start(_see_through(pod, running, container, run), name=f"run {container.record.name}")


# --- Their ends ---


async def _see_through(pod: Pod, running: Running, container: Container, run: ProcessRun) -> None:
    """Follow a container's main process to its end and record it."""
    try:
        process = await run.pump()
    except HyperError as error:  # lifecycle sees the machine's end too and cleans up
        logger.info("container %s: %s", container.record.name, error.message)
        return
    endings.record_end(pod, container, process)
    pod.timeline.mark(f"{container.record.name} ended")
    is_last = pod.has_ended
    if is_last and pod.record.spec.remove and not pod.is_replaced:
        pod.save(target="removed")  # before anyone hears of the end: its names are free then
    run.finish(process, is_last=not container.is_alive)
    with contextlib.suppress(HyperError):
        await run.guest.forget()
    if is_last:
        endings.start_end(pod)
    else:
        _restart_later(pod, running, container)


def _restart_later(pod: Pod, running: Running, container: Container) -> None:
    if container.record.state is ContainerState.RESTARTING:
        running.tasks.start(_restart(pod, running, container), name=f"restart {container.record.name}")


async def _restart(pod: Pod, running: Running, container: Container) -> None:
    """Start a container again when its pause is over, if that is still wanted then."""
    pause = container.record.pause
    await asyncio.sleep(pause.until - time.time())
    async with pod.lock:
        record = container.record
        if (
            pod.running is not running
            or record.state is not ContainerState.RESTARTING
            or record.pause != pause
        ):
            return
        try:
            await _start_process(pod, running, container)
        except HyperError as error:
            logger.warning("container %s could not be started again: %s", record.name, error.message)
            _fail(pod, container, error)
    endings.start_end_if_ended(pod)


def _fail(pod: Pod, container: Container, error: HyperError) -> None:
    """A container that could not be started has ended, as Docker shows it."""
    failed = ProcessRecord(finished=time.time(), exit_code=error.exit_status, error=error.message)
    pod.save_container(container, target="created", state=ContainerState.EXITED, process=failed)
    container.log.finish()
