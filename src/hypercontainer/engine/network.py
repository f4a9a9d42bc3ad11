"""A pod's place in the network: its lease is taken and recorded, its NICs are made, its ports change."""

from __future__ import annotations

from collections.abc import Awaitable

from hypercontainer.engine import messages, names
from hypercontainer.engine.host import Host
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.running import Running
from hypercontainer.errors import InvalidRequest
from hypercontainer.hypervisors.base import Hypervisor
from hypercontainer.model.machine import Nic
from hypercontainer.model.network import Lease
from hypercontainer.model.pod import PodSpec


def check(host: Host, spec: PodSpec) -> None:
    """Refuse what the pod asks of its network and cannot have, before anything is made."""
    names.check(spec)
    if spec.network == "none":
        if asked := [name for name in ("interfaces", "ports", "services", "allow") if getattr(spec, name)]:
            raise InvalidRequest(
                f"a pod without a network can have no {asked[0]}", hint="leave them out, or network none"
            )
        return
    host.networks.check(spec.interfaces, spec.ports, spec.allow)


async def take_lease(pod: Pod) -> None:
    """Choose addresses and host ports, and record them; nothing to do for a pod without a network."""
    spec = pod.record.spec
    if spec.network == "none":
        return
    async with pod.host.leasing:
        lease = await pod.host.networks.allocate(
            pod.record.machine,  # a NIC is the machine's, which may go on to another pod
            spec.ports,
            interfaces=spec.interfaces,
            allow=spec.allow,
            others=others(pod),
            previous=pod.record.lease,
        )
        pod.host.leases[pod.id] = lease
    pod.save(lease=lease, ports=lease.ports)


async def attach(pod: Pod, driver: Hypervisor) -> tuple[Nic, ...]:
    """The NICs for the machine's launch."""
    if pod.record.lease is None:
        return ()
    return await pod.host.networks.attach(pod.record.lease, driver.capabilities.nics)


def set_up(pod: Pod, running: Running) -> list[Awaitable[object]]:
    """Requests for a guest whose pod has just been made, and what the host has not finished yet."""
    lease = pod.record.lease
    if lease is None or pod.record.spec.network == "none":  # a machine that was replaced may have one
        return []
    requests = [running.agent.request(messages.configure_nic(nic)) for nic in lease.nics]
    return [*requests, pod.host.networks.ready(lease)]


def others(pod: Pod) -> list[Lease]:
    return [lease for owner, lease in pod.host.leases.items() if owner != pod.id]
