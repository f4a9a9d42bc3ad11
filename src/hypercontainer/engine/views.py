"""From records to what the API shows."""

from __future__ import annotations

from typing import Literal

from hypercontainer.engine.container import Container, Exec
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.volumes import VolumeMount, mounts_of
from hypercontainer.model.machine import Capabilities
from hypercontainer.model.rest import (
    ContainerState,
    ContainerView,
    ExecView,
    MachineView,
    MountView,
    PodState,
    PodView,
)


def pod_view(pod: Pod, capabilities: Capabilities) -> PodView:
    record = pod.record
    return PodView(
        id=record.id,
        name=record.name,
        state=pod.state,
        health=_health(pod),
        reason=record.reason,
        hostname=record.spec.hostname or record.id[:12],
        hypervisor=record.hypervisor,
        isolation=str(capabilities.isolation),
        vcpus=record.spec.vcpus,
        memory_mib=record.spec.memory_mib,
        address=record.lease.ip if record.lease and pod.running else "",
        ports=record.ports if pod.running else record.spec.ports,
        machine=record.machine,
        created=record.created,
        started=record.started,
        labels=record.spec.labels,
        containers=tuple(container_view(pod, container) for container in pod.containers),
    )


def _health(pod: Pod) -> Literal["", "healthy", "unresponsive"]:
    if pod.running is None:
        return ""
    return "healthy" if pod.running.is_responsive else "unresponsive"


def container_view(pod: Pod, container: Container) -> ContainerView:
    record = container.record
    process = record.process
    return ContainerView(
        id=record.id,
        name=record.name,
        pod=pod.record.id,
        pod_name=pod.record.name,
        image=record.spec.image,
        image_id=record.image_id,
        command=record.argv,
        state=record.state,
        paused=pod.state is PodState.PAUSED and record.state is ContainerState.RUNNING,
        terminal=record.spec.terminal,
        stdin=record.spec.stdin,
        created=record.created,
        started=process.started,
        finished=process.finished,
        exit_code=process.exit_code,
        out_of_memory=process.out_of_memory,
        error=process.error,
        restarts=record.restarts,
        labels=record.spec.labels,
        ports=pod.record.ports if record.state is ContainerState.RUNNING else (),
        mounts=tuple(_mount_view(mount) for mount in mounts_of(record, pod.record.spec.volumes)),
    )


_MOUNT_TYPES = {"pod": "volume", "host": "bind", "raw": "disk", "qcow2": "disk", "nfs": "nfs"}


def _mount_view(mount: VolumeMount) -> MountView:
    volume = mount.volume
    return MountView(
        type=_MOUNT_TYPES[volume.kind] if volume else "tmpfs",
        name=volume.name if volume and not mount.is_images else "",
        source=volume.source if volume else "",
        destination=mount.target,
        rw=not mount.read_only and "ro" not in mount.options,
    )


def exec_view(exec_: Exec) -> ExecView:
    process = exec_.record.process
    return ExecView(
        id=exec_.record.id,
        container=exec_.record.container,
        command=exec_.record.spec.command,
        is_running=bool(process.started) and process.exit_code is None,
        exit_code=process.exit_code,
        terminal=exec_.record.spec.terminal,
    )


def machine_view(pod: Pod) -> MachineView | None:
    """The machine of a pod that runs."""
    if pod.running is None:
        return None
    return MachineView(
        id=pod.record.machine,
        pod=pod.record.id,
        pod_name=pod.record.name,
        hypervisor=pod.running.hypervisor.name,
        isolation=str(pod.running.hypervisor.capabilities.isolation),
        state=pod.state,
        pid=pod.running.machine.process.pid,
        vcpus=pod.record.spec.vcpus,
        memory_mib=pod.record.spec.memory_mib,
        started=pod.record.started,
    )
