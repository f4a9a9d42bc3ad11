"""The verbs of a pod's life, and what its containers' and its machine's own ends lead to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import msgspec

from hypercontainer.engine import conduct, endings, launch, messages, processes
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.process import ProcessRun
from hypercontainer.engine.records import ProcessRecord
from hypercontainer.engine.running import Running, before_end
from hypercontainer.engine.timeline import StartTimeline
from hypercontainer.errors import CommandNotExecutable, CommandNotFound, Conflict, HyperError, InvalidState
from hypercontainer.guest.protocol import ForgetProcess
from hypercontainer.hypervisors.base import Hypervisor, Machine
from hypercontainer.model.rest import ContainerState

logger = logging.getLogger(__name__)


# --- Verbs ---


async def start(pod: Pod) -> None:
    """Created to Running; on a failure the pod is as it was, and nothing is left."""
    async with pod.lock:
        await see_end(pod)
        if pod.running is not None:
            raise InvalidState(f"pod {pod.record.name} is running already")
        if pod.record.target == "removed":
            raise InvalidState(f"pod {pod.record.name} is being removed")
        pod.timeline = StartTimeline()
        pod.timeline.mark("start begins")
        pod.decide(target="running", reason="", paused=False)
        try:
            driver, machine = await launch.launch(pod)
            await run_on(pod, driver, machine)
        except BaseException as error:
            await asyncio.shield(undo_start(pod, error))
            raise


async def stop(pod: Pod, *, timeout_s: float) -> None:
    """Running to Created: the stop signal, ``timeout_s`` of grace, the kill, the end of the VM."""
    async with pod.lock:
        if pod.running is None:
            return
        await _resume_if_paused(pod)
        pod.save(target="created" if pod.record.target != "removed" else "removed")
        await endings.end_processes(pod, timeout_s)
        await endings.tear_down(pod, clean=True)
    await endings.remove_if_asked(pod)


async def remove(pod: Pod, *, force: bool) -> None:
    """Stop it if need be and forget it, with its storage."""
    async with pod.lock:
        await see_end(pod)
        if pod.running is not None and not force:
            raise Conflict(f"pod {pod.record.name} is running", hint="stop it first, or use hyper rm -f")
        pod.save(target="removed")
        if pod.running is not None:
            for container in pod.containers:
                await endings.lose(pod, container, "the pod was removed", killed=True)
            await endings.tear_down(pod, clean=False)
    await endings.remove_if_asked(pod)


async def pause(pod: Pod) -> None:
    async with pod.lock:
        running = pod.running_or_refuse("pause")
        if pod.record.paused:
            raise InvalidState(f"pod {pod.record.name} is paused already")
        pod.decide(paused=True)  # first: the next hyperd must know that the guest may not answer
        try:
            await running.machine.pause()
        except BaseException:
            pod.save(paused=False)
            raise


async def unpause(pod: Pod) -> None:
    async with pod.lock:
        pod.running_or_refuse("unpause")
        if not pod.record.paused:
            raise InvalidState(f"pod {pod.record.name} is not paused")
        await _resume_if_paused(pod)


async def _resume_if_paused(pod: Pod) -> None:
    if pod.running is not None and pod.record.paused:
        await pod.running.machine.resume()
        pod.save(paused=False)


# --- Up ---


async def run_on(pod: Pod, driver: Hypervisor, machine: Machine) -> None:
    """Take a launched machine to a running pod; also where a new daemon finds it half-way."""
    try:
        agent = await before_end(launch.connect(pod, machine), machine)
    except BaseException:
        await machine.kill()
        raise
    pod.running = running = Running(hypervisor=driver, machine=machine, agent=agent)
    running.tasks.start(_watch(pod, running), name=f"watch {pod.id[:12]}")
    await before_end(_bring_up(pod, running), machine)


async def _bring_up(pod: Pod, running: Running) -> None:
    await conduct.set_up(pod, running)
    known = {process.process for process in running.agent.welcome.processes}
    for container in pod.containers:
        await _run_container(pod, running, container, known)
    pod.execs.resume(running, known)
    await conduct.merge_timeline(pod, running)


async def _run_container(pod: Pod, running: Running, container: Container, known: set[int]) -> None:
    record = container.record.process
    if record.number not in known:
        if record.started:
            return await endings.lose(pod, container, "its end was not seen", killed=False)
        message = messages.start_container(container.record, pod.record, process=pod.next_process())
        pod.save_process(container, ContainerState.CREATED, ProcessRecord(number=message.process))
        await processes.start(running, message)
    if container.record.state is ContainerState.EXITED:  # hyperd died between the record and this
        await running.agent.request(ForgetProcess(record.number))
        return None
    started = msgspec.structs.replace(container.record.process, started=record.started or time.time())
    pod.save_process(container, ContainerState.RUNNING, started)
    container.run = ProcessRun(
        started,
        agent=running.agent,
        log=container.log,
        terminal=container.record.spec.terminal,
        timeline=pod.timeline,
    )
    running.tasks.start(_see_through(pod, container, container.run), name=f"run {container.record.name}")
    return None


async def undo_start(pod: Pod, error: BaseException) -> None:
    """What a start that failed with ``error`` has made is taken back."""
    reason = error.message if isinstance(error, HyperError) else f"{type(error).__name__} while starting"
    for container in pod.containers:
        await endings.lose(pod, container, reason, killed=False)
        if isinstance(error, CommandNotFound | CommandNotExecutable) and not container.record.process.started:
            failed = ProcessRecord(exit_code=error.exit_status, error=reason)
            pod.save_process(container, ContainerState.CREATED, failed)
    pod.save(target="removed" if pod.record.spec.remove else "created", reason=reason)
    await endings.tear_down(pod, clean=False)
    if pod.record.target == "removed":
        pod.host.tasks.start(endings.remove_if_asked(pod), name=f"remove {pod.record.name}")


# --- Ends that nobody asked for ---


async def _see_through(pod: Pod, container: Container, run: ProcessRun) -> None:
    """Follow a container's main process to its end and record it."""
    try:
        record = await run.pump()
    except HyperError as error:  # _watch sees the machine's end too and cleans up
        logger.info("container %s: %s", container.record.name, error.message)
        return
    pod.save_process(container, ContainerState.EXITED, record)
    pod.timeline.mark(f"{container.record.name} ended")
    is_last = pod.has_ended
    if is_last and pod.record.spec.remove:
        pod.save(target="removed")  # before anyone hears of the end: its names are free then
    run.finish(record)
    with contextlib.suppress(HyperError):
        await run.guest.forget()
    if is_last:
        start_end(pod)


def start_end(pod: Pod) -> None:
    """In the background: the pod, whose containers have all ended, is Created again, or gone."""
    pod.host.tasks.start(_end(pod), name=f"end {pod.record.name}")


async def _end(pod: Pod) -> None:
    async with pod.lock:
        await see_end(pod)
    await endings.remove_if_asked(pod)


async def see_end(pod: Pod) -> None:
    """Take down the machine of a pod whose containers have all ended; the lock is held."""
    if pod.running is None or not pod.has_ended:
        return
    if pod.record.target == "running":
        pod.save(target="created")
    await endings.tear_down(pod, clean=pod.record.target != "removed")


async def _watch(pod: Pod, running: Running) -> None:
    """When the machine or its channel ends by itself, the pod has lost its machine."""
    ends = {
        asyncio.create_task(running.machine.wait(), name="machine ends"),
        asyncio.create_task(running.agent.closed(), name="channel ends"),
    }
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
    pod.host.tasks.start(_lost(pod, running), name=f"lost {pod.record.name}")


async def _lost(pod: Pod, running: Running) -> None:
    async with pod.lock:
        if pod.running is not running:
            return
        reason = _loss(running)
        logger.warning("pod %s: %s", pod.record.name, reason)
        for container in pod.containers:
            await endings.lose(pod, container, reason, killed=False)
        pod.save(target="removed" if pod.record.spec.remove else "created", reason=reason)
        await endings.tear_down(pod, clean=False)
    await endings.remove_if_asked(pod)


def _loss(running: Running) -> str:
    """Why a machine was lost, with its last words."""
    reason = "the machine ended by itself"
    if running.machine.process.is_alive():
        reason = f"the guest was given up: {running.agent.failure or 'its channel ended'}"
    if console := running.machine.console():
        reason += f" (console: {console.splitlines()[-1][:200]})"
    return reason
