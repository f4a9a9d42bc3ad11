"""After a restart of the daemon: every pod that was left in the middle goes where its record says.

What no record knows, because hyperd died between two steps, is ended and removed: machines, addresses, files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from hypercontainer.engine import endings, launch, lifecycle, mounting, replacement
from hypercontainer.engine.host import Host
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.pods import Pods
from hypercontainer.engine.records import ContainerRecord, Pause
from hypercontainer.errors import HyperError
from hypercontainer.files import remove_tree
from hypercontainer.hypervisors import base
from hypercontainer.hypervisors.base import Machine

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5.0  # before hyperd answers; a guest that takes longer is waited for beside the others


async def recover(host: Host) -> Pods:
    """Read the records, find the machines that run, and clear away what belongs to nobody."""
    await host.images.collect()
    pods = _read_records(host)
    await _end_orphans(host, pods)
    await host.templates.clear_drafts()
    await _reconcile_network(host, pods)
    await _recover_pods(host, pods)
    _remove_strays(host, pods)
    return pods


def _read_records(host: Host) -> Pods:
    pods = Pods()
    containers: dict[str, list[ContainerRecord]] = {}
    for container in host.records.containers():
        containers.setdefault(container.pod, []).append(container)
    for record in host.records.pods():
        own = sorted(containers.get(record.id, []), key=lambda container: container.index)
        pods.add(Pod(host, record, own))
    owners = {c.record.id: pod for pod in pods.by_id.values() for c in pod.containers}
    for exec_ in host.records.execs():
        owners[exec_.container].execs.restore(exec_)
    return pods


async def _end_orphans(host: Host, pods: Pods) -> None:
    """End VMMs of ours that no record knows: hyperd died between two steps."""
    known = [host.paths.machines / name for name in _machines(pods)]
    for run_dir in await base.end_orphans(host.paths.machines, known):
        logger.warning("ended machine %s, which no pod owns", run_dir.name)


async def _reconcile_network(host: Host, pods: Pods) -> None:
    """Pods that run keep their leases; the network holds those and no others."""
    for pod in pods.by_id.values():
        if pod.record.target == "running" and pod.record.lease is not None:
            host.leases[pod.id] = pod.record.lease
    try:
        await host.networks.reconcile(list(host.leases.values()))
    except HyperError as error:
        logger.warning("the network could not be put in order: %s", error.message)


async def _recover_pods(host: Host, pods: Pods) -> None:
    """All at once; whoever has a guest that hangs keeps nobody else waiting."""
    recovering = [
        host.tasks.start(_try_to_recover(pod, pods), name=f"recover {pod.record.name}")
        for pod in pods.by_id.values()
    ]
    if recovering:
        await asyncio.wait(recovering, timeout=_TIMEOUT_S)


def _remove_strays(host: Host, pods: Pods) -> None:
    """Remove directories of pods and machines that no record knows, and files that were not completed."""
    for directory, known in (
        (host.paths.machines, _machines(pods)),
        (host.paths.pods, set(pods.by_id)),
    ):
        for stray in directory.iterdir():
            if stray.name not in known:
                remove_tree(stray)
    for draft in host.paths.cache.rglob(".*"):  # what gets its name when it is complete
        draft.unlink(missing_ok=True)


def _machines(pods: Pods) -> set[str]:
    """The names of the machines that pods have, which are those of their run directories."""
    return {pod.record.machine for pod in pods.by_id.values() if pod.record.machine}


# --- One pod ---


async def _try_to_recover(pod: Pod, pods: Pods) -> None:
    """One pod that cannot be recovered is no reason to serve none."""
    pod.recovered.clear()
    try:
        await _recover_pod(pod, pods.by_id)
    except HyperError as error:
        logger.error("pod %s could not be recovered: %s", pod.record.name, error.message)
    except Exception:
        logger.exception("pod %s could not be recovered", pod.record.name)
    finally:
        pod.recovered.set()


async def _recover_pod(pod: Pod, others: Mapping[str, Pod]) -> None:
    """Bring a pod that an earlier daemon left in the middle to where its record says.

    ``others`` are all pods by id: a replacement that was cut short concerns two.
    """
    old = _predecessor(pod, others)
    async with replacement.both(old, pod) if old is not None else pod.lock:
        if pod.running is not None:
            return  # it got its machine back from the one that was to replace it
        machine = await launch.reattach(pod)
        record = pod.record
        if record.target == "running" and machine is not None and not record.pause.until:
            await _resume(pod, machine, others)
        elif record.target == "running" and record.pause.until and not record.machine:
            lifecycle.start_later(pod)
        elif record.machine or record.target == "running":
            _forget_machine_of(pod, others)
            await _finish_end(pod, machine)
        else:
            for container in pod.containers:  # it was replaced, and hyperd died while its processes ended
                endings.lose(pod, container, "")
    await endings.remove_if_asked(pod)
    if old is not None:
        await endings.remove_if_asked(old)


def _predecessor(pod: Pod, others: Mapping[str, Pod]) -> Pod | None:
    """The one that gets the machine back if ``pod`` cannot have it."""
    return others.get(pod.record.replaces) if pod.record.installing else None


def _forget_machine_of(pod: Pod, others: Mapping[str, Pod]) -> None:
    if (old := _predecessor(pod, others)) is not None:
        replacement.forget_machine(old)


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
        _forget_machine_of(pod, others)
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
