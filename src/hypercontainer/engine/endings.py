"""How what runs comes to an end: processes, machines, and at last the pod's storage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Sequence

import msgspec

from hypercontainer.engine import mounting, restarts
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.process import ProcessRun, lost_record
from hypercontainer.engine.records import Pause, ProcessRecord, despite_full_disk
from hypercontainer.engine.running import Running
from hypercontainer.errors import HyperError
from hypercontainer.files import remove_tree
from hypercontainer.guest.protocol import ShutDown
from hypercontainer.model.rest import ContainerState

logger = logging.getLogger(__name__)

_GRACE_S = 10.0  # Docker's
_SHUT_DOWN_TIMEOUT_S = 10.0
_KILLED_TIMEOUT_S = 5.0
_SIGNAL_TIMEOUT_S = 1.0


async def end_processes(pod: Pod, containers: Sequence[Container], timeout_s: float | None) -> None:
    """The stop signal of each container, ``timeout_s`` of grace, and the kill: all in bounded time.

    None: the grace that the pod asks for.
    """
    running = _running(containers)
    runs = [run for _, run in running]
    grace = grace_s(pod, timeout_s)
    stops = asyncio.gather(*(_signal(run, container.record.stop_signal) for container, run in running))
    if grace <= 0:  # one way to the guest and back for both
        await asyncio.gather(stops, _kill(runs))
    else:
        await stops
        if not await _ended(runs, grace):
            await _kill(runs)
    await see_killed(pod, containers)


async def see_killed(pod: Pod, containers: Sequence[Container]) -> None:
    """Take the last words and the exit statuses of what has been killed, in bounded time."""
    running = _running(containers)
    await _ended([run for _, run in running], _KILLED_TIMEOUT_S)
    for container, _ in running:
        lose(pod, container, "")


def _running(containers: Sequence[Container]) -> list[tuple[Container, ProcessRun]]:
    return [(c, c.run) for c in containers if c.run is not None and c.run.is_running]


def grace_s(pod: Pod, timeout_s: float | None) -> float:
    """How long processes may take to end by themselves: as asked, or what the pod has for its stop."""
    if timeout_s is not None:
        return timeout_s
    asked = pod.record.spec.stop_timeout_s
    return _GRACE_S if asked is None else asked


async def _kill(runs: Sequence[ProcessRun]) -> None:
    await asyncio.gather(*(_signal(run, signal.SIGKILL, whole_container=True) for run in runs))


async def _signal(run: ProcessRun, number: int, *, whole_container: bool = False) -> None:
    """Send a signal, as far as the guest takes it: one that hangs is killed with its machine."""
    with contextlib.suppress(HyperError, TimeoutError):
        async with asyncio.timeout(_SIGNAL_TIMEOUT_S):
            await run.signal(number, whole_container=whole_container)


async def _ended(runs: Sequence[ProcessRun], timeout_s: float) -> bool:
    """Whether all have ended within the time."""
    waiting = [asyncio.ensure_future(run.wait()) for run in runs if run.is_running]
    if not waiting:
        return True
    _, left = await asyncio.wait(waiting, timeout=timeout_s)
    for future in left:
        future.cancel()
    return not left


def record_end(pod: Pod, container: Container, process: ProcessRecord) -> None:
    """A container's process has ended: exited, or its policy says that it is started again."""
    container.record = msgspec.structs.replace(container.record, process=process)
    after = restarts.after_end(container.record, now=time.time())
    if pod.record.target != "running" and after.state is ContainerState.RESTARTING:
        after = msgspec.structs.replace(container.record, state=ContainerState.EXITED)
    pod.save_container(container, **{name: getattr(after, name) for name in ("state", "restarts", "pause")})


def lose(pod: Pod, container: Container, reason: str) -> None:
    """A container whose process went with its machine: as if killed, and for ``reason`` unless asked for."""
    if container.record.state is not ContainerState.RUNNING:
        return
    process = lost_record(container.record.process, reason)
    record_end(pod, container, process)
    if container.run is not None:
        container.run.finish(process, is_last=not container.is_alive)


def give_up_restarts(pod: Pod) -> None:
    """Containers that were to be started again are not."""
    for container in pod.containers:
        if container.record.state is ContainerState.RESTARTING:
            pod.save_container(container, state=ContainerState.EXITED, pause=Pause())
            container.log.finish()


async def tear_down(pod: Pod, *, clean: bool) -> None:
    """End the machine and give back what it held; the record is struck off last."""
    running, pod.running = pod.running, None
    if running is not None:
        await end_machine(pod, running, clean=clean)
    pod.execs.clear()
    if pod.record.lease is not None:
        await pod.host.networks.detach(pod.record.lease)
        pod.host.leases.pop(pod.id, None)
    forget_machine(pod)


async def end_machine(pod: Pod, running: Running, *, clean: bool) -> None:
    """End a machine and the work with it; ``clean``: let the guest unmount its disks first."""
    if clean and running.is_responsive:
        await _shut_down(pod, running)
    await running.machine.kill()
    await running.agent.close()
    await running.tasks.close()


def forget_machine(pod: Pod) -> None:
    """The machine has ended: its files go, and last its place in the record."""
    mounting.release(pod)
    if pod.record.machine:
        remove_tree(pod.run_dir)
    if pod.record.target != "removed":
        pod.save(machine="", paused=False, started=0, installing=False, replaces="")


async def _shut_down(pod: Pod, running: Running) -> None:
    """Let the guest unmount its disks; a guest that does not is killed anyway."""
    try:
        async with asyncio.timeout(_SHUT_DOWN_TIMEOUT_S):
            await running.agent.request(ShutDown())
            await running.machine.wait()
    except (TimeoutError, HyperError) as error:
        logger.warning("pod %s did not shut down: %s", pod.record.name, error or "timeout")


async def remove_if_asked(pod: Pod) -> None:
    """Forget a pod whose removal was decided and whose machine has gone, with its storage."""
    async with pod.lock:
        if pod.is_gone or pod.record.target != "removed" or pod.running is not None:
            return
        pod.close()
        await asyncio.to_thread(remove_tree, pod.directory)  # first: the record needs room to go
        with despite_full_disk():
            pod.host.records.remove_pod(pod.id)
        pod.is_gone = True


def start_end_if_ended(pod: Pod) -> None:
    if pod.running is not None and pod.has_ended:
        start_end(pod)


def start_end(pod: Pod) -> None:
    """In the background: the pod, whose containers have all ended, is Created again, or gone."""
    pod.host.tasks.start(_end(pod), name=f"end {pod.record.name}")


async def _end(pod: Pod) -> None:
    async with pod.lock:
        await see_end(pod)
    await remove_if_asked(pod)


async def see_end(pod: Pod) -> None:
    """Take down the machine of a pod whose containers have all ended; the lock is held."""
    if pod.running is None or not pod.has_ended:
        return
    if pod.record.target == "running":
        pod.save(target="removed" if pod.record.spec.remove else "created")
    await tear_down(pod, clean=pod.record.target != "removed" or mounting.writes_outside(pod))
