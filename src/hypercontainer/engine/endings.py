"""How what runs comes to an end: processes, machines, and at last the pod's storage."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from hypercontainer.engine import mounting
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.process import ProcessRun, lost_record
from hypercontainer.engine.records import despite_full_disk
from hypercontainer.engine.running import Running
from hypercontainer.errors import HyperError
from hypercontainer.files import remove_tree
from hypercontainer.guest.protocol import ShutDown
from hypercontainer.model.rest import ContainerState

logger = logging.getLogger(__name__)

_SHUT_DOWN_TIMEOUT_S = 10.0
_KILLED_TIMEOUT_S = 5.0


async def end_processes(pod: Pod, timeout_s: float) -> None:
    """The stop signal of each container, ``timeout_s`` of grace, and the kill."""
    runs = [(c, c.run) for c in pod.containers if c.run is not None and c.run.is_running]
    ends = asyncio.gather(*(run.wait() for _, run in runs))
    for container, run in runs:
        with contextlib.suppress(HyperError):
            await run.signal(container.record.stop_signal)
    done = False
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(ends), timeout_s)
        done = True
    if not done:
        await _kill([run for _, run in runs])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ends), _KILLED_TIMEOUT_S)
    ends.cancel()
    for container in pod.containers:
        await lose(pod, container, "it did not end when killed", killed=True)


async def _kill(runs: list[ProcessRun]) -> None:
    for run in runs:
        with contextlib.suppress(HyperError):
            await run.signal(9, whole_container=True)


async def lose(pod: Pod, container: Container, reason: str, *, killed: bool) -> None:
    """A container whose process went with its machine."""
    if container.record.state is not ContainerState.RUNNING and not (
        container.run and container.run.is_running
    ):
        return
    record = lost_record(container.record.process, "" if killed else reason)
    pod.save_process(container, ContainerState.EXITED, record)
    if container.run is not None:
        container.run.finish(record)


async def tear_down(pod: Pod, *, clean: bool) -> None:
    """End the machine and give back what it held; the record is struck off last."""
    running, pod.running = pod.running, None
    if running is not None:
        if clean:
            await _shut_down(pod, running)
        await running.machine.kill()
        await running.agent.close()
        await running.tasks.close()
    pod.execs.clear()
    mounting.release(pod)
    if pod.record.lease is not None:
        await pod.host.networks.detach(pod.record.lease)
        pod.host.leases.pop(pod.id, None)
    if pod.record.machine:
        remove_tree(pod.run_dir)
    if pod.record.target != "removed":
        pod.save(machine="", paused=False, started=0)


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
