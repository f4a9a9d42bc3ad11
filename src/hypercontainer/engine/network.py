"""A pod's place in the network: its lease is taken and recorded, its NICs are made, its ports change."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence

from msgspec.structs import replace

from hypercontainer.engine import messages, names
from hypercontainer.engine.host import Host
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.running import Running, deadline
from hypercontainer.errors import InvalidRequest
from hypercontainer.hypervisors.base import Hypervisor
from hypercontainer.model.machine import Nic
from hypercontainer.model.network import Lease, PortMapping
from hypercontainer.model.pod import PodSpec, ServiceSpec

_SERVICES_TIMEOUT_S = 10.0  # the pod's lock is held: a guest that hangs is to be stopped by who waits for it


def check(host: Host, spec: PodSpec) -> None:
    """Refuse what the pod asks of its network and cannot have, before anything is made."""
    names.check(spec)
    if spec.network == "none":
        for name in ("interfaces", "ports", "services", "allow"):
            if getattr(spec, name):
                raise InvalidRequest(
                    f"a pod without a network can have no {name}", hint="leave them out, or network none"
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
    if services := pod.record.spec.services:
        requests.append(running.agent.request(messages.set_services(services)))
    return [*requests, pod.host.networks.ready(lease)]


def others(pod: Pod) -> list[Lease]:
    """What the other pods hold."""
    return [lease for owner, lease in pod.host.leases.items() if owner != pod.id]


# --- While the pod lives ---


def ports(pod: Pod) -> tuple[PortMapping, ...]:
    """What the pod publishes; host ports are chosen when it starts."""
    return pod.record.ports if pod.running else pod.record.spec.ports


async def add_ports(pod: Pod, added: Sequence[PortMapping]) -> None:
    """Publish more ports, now and at each start."""
    async with pod.lock:
        spec = replace(pod.record.spec, ports=(*pod.record.spec.ports, *added))
        check(pod.host, spec)
        await _change_ports(pod, spec, (*pod.record.ports, *added))


async def remove_ports(pod: Pod, removed: Iterable[PortMapping]) -> None:
    """Publish ``removed`` no more; a host port of 0 stands for any."""
    async with pod.lock:
        asked, chosen = list(pod.record.spec.ports), list(pod.record.ports)
        for port in removed:
            found = _take_out(chosen if pod.running else asked, port)
            if found is None:
                raise InvalidRequest(
                    f"pod {pod.record.name} does not publish {port}",
                    hint=f"hyper ports ls {pod.record.name} shows what it does",
                )
            if pod.running and _take_out(asked, found) is None:
                _take_out(asked, replace(found, host_port=0))
        await _change_ports(pod, replace(pod.record.spec, ports=tuple(asked)), tuple(chosen))


def _take_out(ports: list[PortMapping], wanted: PortMapping) -> PortMapping | None:
    for port in ports:
        if port == wanted or (not wanted.host_port and replace(port, host_port=0) == wanted):
            ports.remove(port)
            return port
    return None


async def _change_ports(pod: Pod, spec: PodSpec, wanted: Sequence[PortMapping]) -> None:
    """Record it, then have the host follow; what cannot be done is taken back."""
    before = pod.record.lease
    if pod.running is None or before is None:
        pod.decide(spec=spec)
        return
    record, networks = pod.record, pod.host.networks
    async with pod.host.leasing:
        lease = await networks.revise(
            before, wanted, interfaces=spec.interfaces, allow=spec.allow, others=others(pod)
        )
        pod.host.leases[pod.id] = lease
    try:
        pod.decide(spec=spec, lease=lease, ports=lease.ports)
        await networks.switch(before, lease)
    except BaseException:
        pod.host.leases[pod.id] = before
        await networks.switch(lease, before)
        pod.save(spec=record.spec, lease=record.lease, ports=record.ports)
        raise


async def set_services(pod: Pod, services: tuple[ServiceSpec, ...]) -> None:
    """The services that the pod has from now on, in place of those before."""
    async with pod.lock:
        before = pod.record.spec
        spec = replace(before, services=services)
        check(pod.host, spec)
        pod.decide(spec=spec)
        if pod.running is None:
            return
        try:
            pod.refuse_paused()
            async with deadline(_SERVICES_TIMEOUT_S, "the guest did not change its services"):
                await pod.running.agent.request(messages.set_services(services))
        except BaseException:
            pod.save(spec=before)
            raise
