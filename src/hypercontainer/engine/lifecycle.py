"""The verbs of a pod's life, and what the end of its machine leads to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import msgspec

from hypercontainer.engine import (
    archives,
    conduct,
    containers,
    endings,
    handover,
    health,
    launch,
    mounting,
    restarts,
)
from hypercontainer.engine.container import Container
from hypercontainer.engine.handover import Taken
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.records import Pause, ProcessRecord
from hypercontainer.engine.running import Running, before_end, deadline
from hypercontainer.engine.timeline import StartTimeline
from hypercontainer.errors import CommandNotExecutable, CommandNotFound, Conflict, HyperError, InvalidState
from hypercontainer.hypervisors.base import Hypervisor, Machine
from hypercontainer.model.rest import ContainerState

logger = logging.getLogger(__name__)

_SET_UP_TIMEOUT_S = 60.0
_RESUME_TIMEOUT_S = 5.0


# --- Verbs ---


async def start(pod: Pod) -> None:
    """Created to Running; on a failure the pod is as it was, or gone if it was to be, and nothing is left."""
    try:
        async with pod.lock:
            await endings.see_end(pod)
            if pod.running is not None:
                raise InvalidState(f"pod {pod.record.name} is running already")
            if pod.record.target == "removed":
                raise InvalidState(f"pod {pod.record.name} is being removed")
            endings.give_up_restarts(pod)
            pod.save_containers(pod.containers, target="running", restarts=0, pause=Pause())
            await _start(pod, pod.containers, pause=Pause())
    except BaseException:
        await endings.remove_if_asked(pod)  # before the client hears of it: it cannot find the pod to wait
        raise


async def stop(pod: Pod, *, timeout_s: float | None) -> None:
    """Running to Created: the stop signal, ``timeout_s`` or the pod's grace, the kill, the end of the VM."""
    async with pod.lock:
        if pod.record.target == "running":
            pod.save(target="created", pause=Pause())
        endings.give_up_restarts(pod)
        if pod.running is None:
            return
        await _resume_if_paused(pod)
        await endings.end_processes(pod, pod.containers, timeout_s)
        if pod.record.spec.remove:
            pod.save(target="removed")
        await endings.tear_down(pod, clean=True)
    await endings.remove_if_asked(pod)


async def remove(pod: Pod, *, force: bool) -> None:
    """Stop it if need be and forget it, with its storage."""
    async with pod.lock:
        await endings.see_end(pod)
        if pod.running is not None and not force:
            raise Conflict(f"pod {pod.record.name} is running", hint="stop it first, or use hyper rm -f")
        pod.save(target="removed")
        endings.give_up_restarts(pod)
        if pod.running is not None:
            for container in pod.containers:
                endings.lose(pod, container, "")
            await endings.tear_down(pod, clean=not pod.record.paused and mounting.writes_outside(pod))
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
        with contextlib.suppress(TimeoutError):  # a VMM that hangs cannot be resumed, but it can be killed
            async with asyncio.timeout(_RESUME_TIMEOUT_S):
                await pod.running.machine.resume()
        pod.save(paused=False)


# --- Up ---


async def _start(pod: Pod, chosen: list[Container], *, pause: Pause) -> None:
    """Give the pod a machine and start ``chosen`` of its containers in it; the lock is held."""
    pod.timeline = StartTimeline(since_ns=time.monotonic_ns())
    pod.timeline.mark("start begins")
    pod.decide(target="running", reason="", paused=False, pause=pause)
    pod.save_containers(chosen, state=ContainerState.CREATED, process=ProcessRecord())
    try:
        with pod.host.pool.start_under_way():
            await _run(pod)
    except BaseException as error:
        await asyncio.shield(undo_start(pod, error))
        raise


async def _run(pod: Pod) -> None:
    """On a machine that waits for a pod like this, or on its own."""
    driver = await launch.prepare(pod)
    taken = await handover.take(pod, driver)
    if taken is None:
        return await run_on(pod, driver, await launch.launch(pod, driver))
    pod.running = running = taken.running
    watch(pod, running)
    await before_end(_finish(pod, taken), running.machine)
    return None


async def _finish(pod: Pod, taken: Taken) -> None:
    await asyncio.gather(*taken.asked, bring_up(pod, taken.running))


async def run_on(pod: Pod, driver: Hypervisor, machine: Machine) -> None:
    """Take a launched machine to a running pod; also where a new daemon finds it half-way."""
    try:
        agent = await before_end(launch.connect(pod, machine), machine)
    except BaseException:
        await machine.kill()
        raise
    pod.running = running = Running.found(driver, machine, agent)
    watch(pod, running)
    await before_end(bring_up(pod, running), machine)


def watch(pod: Pod, running: Running) -> None:
    """In the background: whether its machine ends, and whether it answers."""
    running.tasks.start(_watch(pod, running), name=f"watch {pod.id[:12]}")
    interval = pod.host.settings.health_interval_s
    running.tasks.start(health.watch(pod, running, interval_s=interval), name=f"health {pod.id[:12]}")


async def bring_up(pod: Pod, running: Running) -> None:
    """All that the guest has not done yet.  The requests are queued without waiting between them."""
    known = running.known
    async with deadline(_SET_UP_TIMEOUT_S, "the guest did not set up the pod"):
        set_up = await conduct.set_up(pod, running)
        mounts = asyncio.gather(*set_up.requests, return_exceptions=True)
        if set_up.is_waited_for:
            _raise_first([*await mounts])
        starts = asyncio.gather(
            *(containers.bring_up(pod, running, c, known) for c in pod.containers), return_exceptions=True
        )
        try:
            results: list[object] = [*await mounts]
            pod.timeline.mark("containers mounted")
            results += await starts
        finally:
            starts.cancel()
        _raise_first(results)
        await conduct.erase(pod, running)
        await conduct.merge_timeline(pod, running)
    pod.execs.resume(running, known)
    archives.end_strays(pod, running.agent, known - pod.processes)


def _raise_first(results: list[object]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def start_afresh(pod: Pod, failure: HyperError) -> None:
    """The machine of a pod is of no use any more: another one, if that can be had; the lock is held."""
    await undo_start(pod, failure)
    chosen = [container for container in pod.containers if container.record.target == "running"]
    with contextlib.suppress(HyperError):  # then it is Created, and its reason says why
        await _start(pod, chosen, pause=Pause())


async def undo_start(pod: Pod, error: BaseException) -> None:
    """What a start that failed with ``error`` has made is taken back."""
    reason = error.message if isinstance(error, HyperError) else f"{type(error).__name__} while starting"
    pod.save(target="removed" if pod.record.spec.remove else "created", reason=reason)
    for container in pod.containers:
        endings.lose(pod, container, reason)
        if isinstance(error, CommandNotFound | CommandNotExecutable) and not container.record.process.started:
            failed = ProcessRecord(exit_code=error.exit_status, error=reason)
            pod.save_process(container, ContainerState.CREATED, failed)
    await endings.tear_down(pod, clean=False)
    if pod.record.target == "removed":
        pod.host.tasks.start(endings.remove_if_asked(pod), name=f"remove {pod.record.name}")


# --- A machine that ends by itself ---


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
        await after_loss(pod, reason)
    await endings.remove_if_asked(pod)


def _loss(running: Running) -> str:
    """Why a machine was lost, with its last words."""
    reason = "the machine ended by itself"
    if running.machine.process.is_alive():
        reason = f"the guest was given up: {running.agent.failure or 'its channel ended'}"
    if console := running.machine.console():
        reason += f" (console: {console.splitlines()[-1][:200]})"
    return reason


async def after_loss(pod: Pod, reason: str) -> None:
    """The machine is gone: Created with a reason, or started again as policies say; the lock is held."""
    for container in pod.containers:
        endings.lose(pod, container, reason)
    now = time.time()
    if any(container.record.state is ContainerState.RESTARTING for container in pod.containers):
        ran_s = now - pod.record.started
        pod.save(reason=reason, pause=restarts.next_pause(pod.record.pause, ran_s=ran_s, now=now))
    else:
        pod.save(target="removed" if pod.record.spec.remove else "created", reason=reason, pause=Pause())
    await endings.tear_down(pod, clean=False)
    start_later(pod)


def start_later(pod: Pod) -> None:
    """In the background: a pod whose machine was lost is started again, when that was decided."""
    if pod.record.target == "running" and pod.record.pause.until:
        pod.host.tasks.start(_start_again(pod), name=f"restart {pod.record.name}")


async def _start_again(pod: Pod) -> None:
    pause = pod.record.pause
    await asyncio.sleep(pause.until - time.time())
    async with pod.lock:
        if pod.running is not None or pod.record.target != "running" or pod.record.pause != pause:
            return
        chosen = [c for c in pod.containers if c.record.state is ContainerState.RESTARTING]
        try:
            await _start(pod, chosen, pause=msgspec.structs.replace(pause, until=0))
        except HyperError as error:
            logger.warning("pod %s could not be started again: %s", pod.record.name, error.message)
            _try_later(pod, chosen, pause)


def _try_later(pod: Pod, chosen: list[Container], pause: Pause) -> None:
    """A start by policy has failed: the next attempt comes after a longer pause, if one is left."""
    for container in chosen:
        record = container.record
        if restarts.wanted(record.spec.restart, 1, record.restarts):
            pod.save_container(
                container, state=ContainerState.RESTARTING, target="running", restarts=record.restarts + 1
            )
    if any(container.record.state is ContainerState.RESTARTING for container in chosen):
        pod.save(target="running", pause=restarts.next_pause(pause, ran_s=0, now=time.time()))
        start_later(pod)
