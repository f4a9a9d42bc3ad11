"""After a restart of the daemon: a pod that was left in the middle goes where its record says."""

from __future__ import annotations

import contextlib
import logging

from hypercontainer.engine import endings, launch, lifecycle, mounting
from hypercontainer.engine.pod import Pod
from hypercontainer.errors import HyperError
from hypercontainer.hypervisors.base import Machine

logger = logging.getLogger(__name__)


async def recover(pod: Pod) -> None:
    """Bring a pod that an earlier daemon left in the middle to where its record says."""
    async with pod.lock:
        machine = await launch.reattach(pod)
        if pod.record.target == "running" and machine is not None:
            await _resume(pod, machine)
        elif pod.record.machine or pod.record.target == "running":
            await _finish_end(pod, machine)
    await endings.remove_if_asked(pod)


async def _resume(pod: Pod, machine: Machine) -> None:
    driver = pod.host.drivers.get(pod.record.hypervisor)
    try:
        mounting.claim(pod, mounting.mounts_of(pod))
        if pod.record.paused:
            with contextlib.suppress(HyperError):  # the daemon died just before it paused it
                await machine.resume()
        await lifecycle.run_on(pod, driver, machine)
        if pod.record.paused:
            await machine.pause()
    except HyperError as error:
        logger.warning("pod %s could not be taken over: %s", pod.record.name, error.message)
        await machine.kill()
        await lifecycle.undo_start(pod, error)
        return
    if pod.has_ended:
        lifecycle.start_end(pod)


async def _finish_end(pod: Pod, machine: Machine | None) -> None:
    """Its machine is gone, is to go, or had not come yet."""
    if machine is not None:
        await machine.kill()
    reason = "" if pod.record.target != "running" else _loss(pod)
    for container in pod.containers:
        await endings.lose(pod, container, reason or "the pod was stopped", killed=not reason)
    if pod.record.target == "running":
        pod.save(target="removed" if pod.record.spec.remove else "created", reason=reason)
    await endings.tear_down(pod, clean=False)


def _loss(pod: Pod) -> str:
    if any(container.record.process.started for container in pod.containers):
        return "its machine ended while hyperd was down"
    return "hyperd died while it started the pod"
