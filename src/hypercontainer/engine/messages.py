"""What the guest is told: pure functions from a pod's records to the messages of the guest protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypercontainer.engine import slots
from hypercontainer.engine.plan import working_directory
from hypercontainer.engine.records import ContainerRecord, PodRecord
from hypercontainer.guest.protocol import (
    NO_SLOT,
    Backend,
    ConfigureNic,
    CreateContainer,
    File,
    Mount,
    ResourceLimit,
    Service,
    SetServices,
    Setting,
    SetUpPod,
    Source,
    StartProcess,
)
from hypercontainer.model import pod as model
from hypercontainer.model.machine import Capabilities
from hypercontainer.model.network import NicLease
from hypercontainer.model.pod import ExecSpec, ServiceSpec
from hypercontainer.network.resolver import resolv_conf

_UNLIMITED = (1 << 64) - 1  # RLIM_INFINITY, getrlimit(2)
_SHM_BYTES = 64 << 20  # Docker's


def set_up_pod(pod: PodRecord, capabilities: Capabilities, *, clock_ns: int, entropy: bytes) -> SetUpPod:
    half = pod.spec.memory_mib << 19
    return SetUpPod(
        hostname=hostname(pod),
        clock_ns=clock_ns,
        entropy=entropy,
        sysctls=tuple(Setting(name, value) for name, value in pod.spec.sysctls.items()),
        shm_bytes=pod.spec.shm_bytes or min(_SHM_BYTES, half),
        share_type=capabilities.share or "",
        share_options=capabilities.share_options,
    )


def hostname(pod: PodRecord) -> str:
    """The asked one, or the short id: as Docker names containers."""
    return pod.spec.hostname or pod.id[:12]


def configure_nic(nic: NicLease) -> ConfigureNic:
    return ConfigureNic(
        mac=nic.mac,
        name=nic.name,
        mtu=nic.mtu,
        addresses=(nic.address,),
        gateways=(nic.gateway,) if nic.gateway else (),
    )


def set_services(services: Sequence[ServiceSpec]) -> SetServices:
    return SetServices(
        services=tuple(Service(each.ip, each.port, each.protocol) for each in services),
        backends=tuple(
            Backend(index, backend.ip, backend.port)
            for index, each in enumerate(services)
            for backend in each.backends
        ),
    )


def create_container(
    pod: PodRecord, container: ContainerRecord, names: Sequence[str], *, mounts: tuple[Mount, ...] = ()
) -> CreateContainer:
    """``names`` are those of the pod's containers: each reaches the others by them."""
    return CreateContainer(
        container=container.id,
        image=Source(slots.find(pod.slots, container.image_id), ""),
        writable=Source(slots.find(pod.slots, slots.POD), container.id),
        read_only=container.spec.read_only,
        mounts=mounts,
        files=_files(pod, names),
        memory_bytes=container.spec.memory_bytes,
        cpu_millis=container.spec.cpu_millis,
        pids=container.spec.pids,
    )


def create_remains(pod: PodRecord, container: str) -> CreateContainer:
    """A container that is gone, once more: so that it can be removed with what it wrote."""
    return CreateContainer(
        container=container,
        image=Source(NO_SLOT, "/"),
        writable=Source(slots.find(pod.slots, slots.POD), container),
        read_only=False,
        mounts=(),
        files=(),
        memory_bytes=0,
        cpu_millis=0,
        pids=0,
    )


def _files(pod: PodRecord, names: Sequence[str]) -> tuple[File, ...]:
    contents = {
        "/etc/hostname": f"{hostname(pod)}\n",
        "/etc/hosts": _hosts(pod, names),
        "/etc/resolv.conf": _resolver(pod),
    }
    return tuple(File(path, 0o644, "", text.encode()) for path, text in contents.items())


def _hosts(pod: PodRecord, names: Sequence[str]) -> str:
    """hosts(5): the pod's name and its containers' at its address, or without a network at loopback's."""
    own = pod.lease.ip if pod.lease else "127.0.0.1"
    unique = dict.fromkeys((hostname(pod), *names))
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        f"{own}\t{' '.join(unique)}",
        *(f"{address}\t{name}" for name, _, address in (e.partition(":") for e in pod.spec.extra_hosts)),
    ]
    return "".join(f"{line}\n" for line in lines)


def _resolver(pod: PodRecord) -> str:
    if pod.lease is None:
        return ""
    lease = pod.lease
    chosen = replace(lease, dns=pod.spec.dns or lease.dns, search=pod.spec.dns_search or lease.search)
    options = " ".join(pod.spec.dns_options)
    return resolv_conf(chosen) + (f"options {options}\n" if options else "")


def start_container(container: ContainerRecord, pod: PodRecord, *, process: int) -> StartProcess:
    return StartProcess(
        process=process,
        container=container.id,
        is_main=True,
        argv=container.argv,
        environment=(*container.environment, f"HOSTNAME={hostname(pod)}"),
        working_directory=container.working_directory,
        user=container.user,
        groups=container.spec.groups,
        terminal=container.spec.terminal,
        rows=24,
        columns=80,
        stdin=container.spec.stdin or container.spec.terminal,
        limits=_limits(container.spec.limits),
        privileged=False,
        in_machine=False,
    )


def start_exec(spec: ExecSpec, container: ContainerRecord, pod: PodRecord, *, process: int) -> StartProcess:
    """A process beside a container's main one, with the container's environment below its own."""
    merged = {assignment.partition("=")[0]: assignment for assignment in container.environment}
    if spec.terminal:
        merged.setdefault("TERM", "TERM=xterm")
    merged |= {assignment.partition("=")[0]: assignment for assignment in spec.environment}
    return StartProcess(
        process=process,
        container=container.id,
        is_main=False,
        argv=spec.command,
        environment=(f"HOSTNAME={hostname(pod)}", *merged.values()),
        working_directory=working_directory(spec.working_directory or container.working_directory),
        user=spec.user or container.user,
        groups=(),
        terminal=spec.terminal,
        rows=24,
        columns=80,
        stdin=spec.stdin,
        limits=_limits(container.spec.limits),
        privileged=spec.privileged,
        in_machine=spec.in_machine,
    )


def _limits(limits: Sequence[model.ResourceLimit]) -> tuple[ResourceLimit, ...]:
    def bound(value: int) -> int:
        return _UNLIMITED if value < 0 else value

    return tuple(ResourceLimit(each.name, bound(each.soft), bound(each.hard)) for each in limits)
