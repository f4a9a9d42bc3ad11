"""A new pod in place of one that runs: the same machine, other disks, other containers.

What can be refused is refused while the old pod still runs.  Then one record gives the machine to the new
pod (``PodRecord.installing``, ``replaces``), and steps that can be repeated make the guest follow
(``engine/succession``).  If it cannot, the machine is given back the same way.  A killed daemon goes on from
the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Literal

import msgspec

from hypercontainer.engine import endings, launch, lifecycle, mounting, network, slots, succession, volumes
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.records import Pause, PodRecord, ProcessRecord, despite_full_disk
from hypercontainer.engine.running import Running, before_end
from hypercontainer.errors import HyperError, InvalidState, Unsupported
from hypercontainer.hypervisors.base import Machine
from hypercontainer.model.network import Lease
from hypercontainer.model.rest import ContainerState

logger = logging.getLogger(__name__)


async def replace(old: Pod, new: Pod, *, timeout_s: float | None) -> None:
    """Run ``new`` on the machine of ``old``, which ends Created; on a failure ``old`` runs again.

    ``timeout_s`` is the grace of the old pod's processes; None: what it has for its stop.
    """
    async with both(old, new):
        await endings.see_end(old)
        running = _check(old, new)
        new.timeline = old.timeline.successor()
        new.timeline.mark("replace begins")
        held = await _prepare(old, new, running)
        new.timeline.mark("checked")
        await _take_over(old, new, running, held, timeout_s)
    await endings.remove_if_asked(old)


@contextlib.asynccontextmanager
async def both(old: Pod, new: Pod) -> AsyncIterator[None]:
    """The locks of two pods, always in one order."""
    if old is new:
        raise InvalidState(f"pod {old.record.name} cannot replace itself")
    first, second = sorted((old, new), key=lambda pod: pod.id)
    async with first.lock, second.lock:
        yield


# --- Before anything stops ---


def _check(old: Pod, new: Pod) -> Running:
    """Refuse what this machine cannot be for ``new``."""
    running = old.running_or_refuse("replace it")
    old.refuse_paused()
    if new.running is not None or new.record.target != "created":
        raise InvalidState(
            f"pod {new.record.name} is {new.state}, and only a created pod can replace another",
            hint=f"hyper stop {new.record.name}",
        )
    if not running.hypervisor.capabilities.swap_disks:
        raise Unsupported(f"{running.hypervisor.name} cannot swap the disks of a running machine")
    _check_size(old, new)
    if new.record.spec.network != "none" and old.record.lease is None:
        raise _misfit(old, "has no network, and the new pod wants one")
    return running


def _check_size(old: Pod, new: Pod) -> None:
    has, wants = old.record, new.record
    for subject, own, other in (
        ("hypervisor", has.hypervisor, wants.hypervisor),
        ("number of vCPUs", has.spec.vcpus, wants.spec.vcpus),
        ("memory in MiB", has.spec.memory_mib, wants.spec.memory_mib),
    ):
        if own != other:
            raise _misfit(old, f"has the {subject} {own}, and the new pod asks for {other}")


def _misfit(old: Pod, why: str) -> InvalidState:
    name = old.record.name
    return InvalidState(
        f"the machine of pod {name} {why}", hint=f"hyper stop {name} and hyper start the new pod instead"
    )


async def _prepare(old: Pod, new: Pod, running: Running) -> slots.Slots:
    """Have all that ``new`` needs at hand; what was claimed for it is let go when something lacks."""
    try:
        mounting.prepare(new, mounting.mounts_of(new), instead_of=old)
        wanted = launch.wanted_disks(new)
        unwanted = {key for key in old.record.slots if volumes.is_slot_key(key)} - {*wanted}
        limit = running.hypervisor.capabilities.disk_slots
        held = slots.beside(old.record.slots, wanted, limit=limit)
        if held is None:
            held = slots.assign(slots.without(old.record.slots, unwanted), wanted, limit=limit)
        for key in wanted:
            await launch.disk(new, key)
        return held
    except BaseException:
        mounting.release(new)
        raise


# --- The machine changes hands ---


async def _take_over(
    old: Pod, new: Pod, running: Running, held: slots.Slots, timeout_s: float | None
) -> None:
    before, had = old.record.lease, old.record.slots
    after = await _revise(old, new, before)
    chosen = [container.record.id for container in old.containers if container.is_alive]
    try:
        _give(old, new, lease=after, held=held)
    except BaseException:
        await succession.switch(new, after, before)
        mounting.release(new)
        raise
    try:
        old.is_replaced = True
        if endings.grace_s(old, timeout_s) > 0:
            await endings.end_processes(old, old.containers, timeout_s)
        await succession.succeed(old, new, running, before=before, after=after, had=had)
    except BaseException as error:
        await asyncio.shield(_give_back(old, new, running, chosen, error))
        raise _explained(old, error) from error
    finally:
        old.is_replaced = False
    _commit(old, new)


async def _revise(old: Pod, new: Pod, before: Lease | None) -> Lease | None:
    """The lease as ``new`` wants it; NICs and addresses stay with the machine."""
    if before is None:
        return None
    spec = new.record.spec
    try:
        async with old.host.leasing:
            return await old.host.networks.revise(
                before, spec.ports, interfaces=spec.interfaces, allow=spec.allow, others=network.others(old)
            )
    except BaseException:
        mounting.release(new)
        raise


def _give(old: Pod, new: Pod, *, lease: Lease | None, held: slots.Slots) -> None:
    """One record says whose the machine is now.  ``old`` keeps what it needs to get it back.

    Before it, what a daemon that is killed right after it must find: which containers are to run.
    """
    process, state = ProcessRecord(), ContainerState.CREATED
    new.save_containers(
        new.containers, target="running", state=state, process=process, restarts=0, pause=Pause()
    )
    given = msgspec.structs.replace(
        new.record,
        target="running",
        machine=old.record.machine,
        next_process=old.record.next_process,
        slots=held,
        lease=lease,
        ports=lease.ports if lease else (),
        started=time.time(),
        paused=False,
        pause=Pause(),
        reason="",
        installing=True,
        replaces=old.id,
    )
    left = msgspec.structs.replace(
        old.record, target="created", machine="", reason=f"replaced by {new.record.name}"
    )
    old.host.records.save_pods(given, left)
    new.record, old.record = given, left
    _move_lease(old, new)


def _move_lease(source: Pod, target: Pod) -> None:
    leases = source.host.leases
    leases.pop(source.id, None)
    if target.record.lease is not None:
        leases[target.id] = target.record.lease


def _commit(old: Pod, new: Pod) -> None:
    """The new pod runs: the old one needs nothing of the machine any more.  One record says both."""
    new.record = msgspec.structs.replace(new.record, installing=False, replaces="")
    old.record = _without_machine(old)
    with despite_full_disk():
        new.host.records.save_pods(new.record, old.record)
    mounting.release(old)


def forget_machine(old: Pod) -> None:
    """Neither ``old`` nor the pod that was to replace it has the machine any more."""
    old.record = _without_machine(old)
    with despite_full_disk():
        old.host.records.save_pod(old.record)


def _without_machine(old: Pod) -> PodRecord:
    """The record of a pod that does not get its machine back."""
    target: Literal["created", "removed"] = "removed" if old.record.spec.remove else "created"
    return msgspec.structs.replace(old.record, target=target, lease=None, ports=(), slots=())


# --- And back ---


async def _give_back(old: Pod, new: Pod, running: Running, chosen: list[str], error: BaseException) -> None:
    """``new`` could not be run: the machine is the old pod's again, and its processes are started anew."""
    reason = error.message if isinstance(error, HyperError) else f"{type(error).__name__} while replacing"
    logger.warning("pod %s could not replace %s: %s", new.record.name, old.record.name, reason)
    lease = new.record.lease
    await succession.leave(old)
    _return(old, new, reason)
    await succession.leave(new)
    mounting.release(new)
    for container in old.containers:
        if container.record.id in chosen:
            old.save_container(
                container, target="running", state=ContainerState.CREATED, process=ProcessRecord()
            )
    old.timeline = new.timeline.successor()
    try:
        mounting.claim(old, mounting.mounts_of(old))
        await succession.install(old, running, before=lease, after=old.record.lease)
        old.save(installing=False)
    except HyperError as failure:
        await lifecycle.start_afresh(old, failure)


def _return(old: Pod, new: Pod, reason: str) -> None:
    restored = msgspec.structs.replace(
        old.record,
        target="running",
        machine=new.record.machine,
        next_process=new.record.next_process,
        slots=slots.only(old.record.slots, launch.wanted_disks(old), size=len(new.record.slots)),
        reason="",
        installing=True,
    )
    failed = msgspec.structs.replace(
        new.record,
        target="created",
        machine="",
        lease=None,
        ports=(),
        slots=(),
        started=0,
        installing=False,
        replaces="",
        reason=reason,
    )
    new.host.records.save_pods(restored, failed)
    old.record, new.record = restored, failed
    _move_lease(new, old)


def _explained(old: Pod, error: BaseException) -> BaseException:
    """The error of the new pod, which says what became of the old one."""
    if not isinstance(error, HyperError):
        return error
    fate = "runs again" if old.running is not None else f"is {old.state}"
    explained = copy.copy(error)
    explained.message = f"{error.message}; pod {old.record.name} {fate}"
    explained.args = (explained.message,)
    return explained


# --- After a restart of the daemon ---


async def resume(pod: Pod, machine: Machine, others: Mapping[str, Pod]) -> None:
    """Go on where a daemon was killed: the guest becomes ``pod``'s, or is given back; both locks are held."""
    driver = pod.host.drivers.get(pod.record.hypervisor)
    agent = await before_end(launch.connect(pod, machine), machine)
    running = Running(hypervisor=driver, machine=machine, agent=agent)
    old = others.get(pod.record.replaces)
    before = old.record.lease if old else None
    for container in pod.containers:
        if container.record.target == "running":
            pod.save_process(container, ContainerState.CREATED, ProcessRecord())
    try:
        await succession.install(pod, running, before=before, after=pod.record.lease)
    except HyperError as error:
        if old is None:
            raise
        chosen = [c.record.id for c in old.containers if c.record.target == "running"]
        await _give_back(old, pod, running, chosen, error)
        return
    if old is not None:
        _commit(old, pod)
    else:
        pod.save(installing=False)
