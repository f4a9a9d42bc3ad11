"""After a restart of the daemon: a pod that was left in the middle goes where its record says."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping

from hypercontainer.engine import endings, launch, lifecycle, mounting, replacement
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.records import Pause
from hypercontainer.errors import HyperError
from hypercontainer.hypervisors.base import Machine

logger = logging.getLogger(__name__)


async def recover(pod: Pod, others: Mapping[str, Pod]) -> None:
    """Bring a pod that an earlier daemon left in the middle to where its record says.

    ``others`` are all pods by id: a replacement that was cut short concerns two.
    """
    async with pod.lock:
        machine = await launch.reattach(pod)
        record = pod.record
        if record.target == "running" and machine is not None and not record.pause.until:
            await _resume(pod, machine, others)
        elif record.target == "running" and record.pause.until and not record.machine:
            lifecycle.start_later(pod)
        elif record.machine or record.target == "running":
            await _finish_end(pod, machine)
            if old := others.get(record.replaces):  # what it kept to get the machine back
                old.save(lease=None, ports=(), slots=())
        else:
            for container in pod.containers:  # it was replaced, and hyperd died while its processes ended
                endings.lose(pod, container, "")
    await endings.remove_if_asked(pod)


async def _resume(pod: Pod, machine: Machine, others: Mapping[str, Pod]) -> None:
    driver = pod.host.drivers.get(pod.record.hypervisor)
    try:
        mounting.claim(pod, mounting.mounts_of(pod))
        if pod.record.installing:
            return await replacement.resume(pod, machine, others)
        if pod.record.paused:
            with contextlib.suppress(HyperError):  # the daemon died just before it paused it
                await machine.resume()
        await lifecycle.run_on(pod, driver, machine)
        if pod.record.paused:
            await machine.pause()
    except HyperError as error:
        logger.warning("pod %s could not be taken over: %s", pod.record.name, error.message)
        await machine.kill()
        return await lifecycle.undo_start(pod, error)
    endings.start_end_if_ended(pod)
    return None


async def _finish_end(pod: Pod, machine: Machine | None) -> None:
    """Its machine is gone, is to go, or had not come yet."""
    if machine is not None:
        await machine.kill()
    if pod.record.target == "running":
        await lifecycle.after_loss(pod, pod.record.reason or _loss(pod))
        return
    endings.give_up_restarts(pod)
    for container in pod.containers:
        endings.lose(pod, container, "")
    pod.save(pause=Pause())
    await endings.tear_down(pod, clean=False)


def _loss(pod: Pod) -> str:
    if any(container.record.process.started for container in pod.containers):
        return "its machine ended while hyperd was down"
    return "hyperd died while it started the pod"
