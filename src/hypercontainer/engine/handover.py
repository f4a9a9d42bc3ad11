"""A pod that starts takes a machine that waits for one, instead of launching its own.

One record gives it to the pod, as ``replace`` does (``PodRecord.installing``): a hyperd that dies before
the machine has the pod's disks leaves it to ``replacement.resume``.  A machine that cannot be used is ended,
and the pod gets its own as if there were no pool.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from hypercontainer.engine import conduct, launch, mounting, slots
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.pool import Waiting
from hypercontainer.engine.running import Running
from hypercontainer.engine.sizes import size_of
from hypercontainer.errors import HyperError
from hypercontainer.hypervisors.base import Hypervisor
from hypercontainer.model.network import Lease

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A machine that is the pod's now, with its disks."""

    running: Running
    asked: list[asyncio.Future[object]]  # of the guest, and not answered yet


async def take(pod: Pod, driver: Hypervisor) -> Taken | None:
    """A machine of the pool for a pod that has none; None when no such one waits."""
    if (waiting := await _find(pod, driver)) is None:
        return None
    try:
        return await _install(pod, waiting)
    except BaseException as error:
        await asyncio.shield(_put_away(pod, waiting))
        if not isinstance(error, HyperError):
            raise
        logger.warning("machine %s of the pool was not used: %s", waiting.id, error.message)
        return None


async def _find(pod: Pod, driver: Hypervisor) -> Waiting | None:
    """Not for a pod that is to have its NICs and addresses of before."""
    size = size_of(pod.record.spec, driver.name)
    if not pod.host.pool.is_on or size is None or (size.has_network and pod.record.lease is not None):
        return None
    return await pod.host.pool.take(driver, size)


async def _install(pod: Pod, waiting: Waiting) -> Taken:
    lease = await _revise(pod, waiting)
    _record(pod, waiting, lease)
    pod.timeline.mark("machine taken")
    running = Running(hypervisor=waiting.hypervisor, machine=waiting.machine, agent=waiting.agent)
    asked = [] if mounting.shares(pod) else _ask_early(pod, running)
    try:
        if waiting.lease is not None and lease is not None and waiting.lease != lease:
            await pod.host.networks.switch(waiting.lease, lease)
        await launch.swap(pod, waiting.machine, slots.changes((), pod.record.slots))
        await mounting.show(pod, waiting.machine)
        pod.save(installing=False)
    except BaseException:
        for request in asked:
            request.cancel()
        raise
    pod.timeline.meet(waiting.agent.welcome, met_ns=waiting.met_ns)
    pod.timeline.mark("disks plugged")
    return Taken(running=running, asked=asked)


async def _revise(pod: Pod, waiting: Waiting) -> Lease | None:
    """The machine's lease as the pod wants it; NIC and address stay."""
    if waiting.lease is None:
        return None
    spec = pod.record.spec
    async with pod.host.leasing:
        others = [lease for owner, lease in pod.host.leases.items() if owner not in {pod.id, waiting.id}]
        lease = await pod.host.networks.revise(
            waiting.lease, spec.ports, interfaces=spec.interfaces, allow=spec.allow, others=others
        )
        pod.host.leases.pop(waiting.id, None)
        pod.host.leases[pod.id] = lease
    return lease


def _record(pod: Pod, waiting: Waiting, lease: Lease | None) -> None:
    limit = waiting.hypervisor.capabilities.disk_slots
    pod.decide(
        machine=waiting.id,
        next_process=1,
        started=time.time(),
        slots=slots.assign((), launch.wanted_disks(pod), limit=limit),
        lease=lease or pod.record.lease,
        ports=lease.ports if lease else (),
        installing=True,
    )


def _ask_early(pod: Pod, running: Running) -> list[asyncio.Future[object]]:
    """The guest makes the pod while it gets its disks."""
    return [asyncio.ensure_future(request) for request in conduct.set_up_pod(pod, running)]


async def _put_away(pod: Pod, waiting: Waiting) -> None:
    """The machine ends, and the pod is as it was before it got it."""
    lease = pod.host.leases.pop(pod.id, None)
    await pod.host.pool.discard(waiting)
    if lease is not None:
        await pod.host.networks.detach(lease)
    if pod.record.machine == waiting.id:
        kept = None if waiting.lease is not None else pod.record.lease
        pod.save(machine="", started=0, slots=(), lease=kept, ports=(), installing=False)
