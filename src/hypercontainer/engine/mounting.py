"""The volumes of a pod that is to run: looked at, claimed, shown to its machine, mounted by the guest."""

from __future__ import annotations

from collections.abc import Iterable

from hypercontainer.engine import slots, volumes
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.volumes import VolumeMount
from hypercontainer.guest.protocol import Mount
from hypercontainer.model.machine import Disk, Share
from hypercontainer.storage import sources


def mounts_of(pod: Pod) -> tuple[VolumeMount, ...]:
    """Of all its containers."""
    return tuple(mount for container in pod.containers for mount in _mounts(pod, container))


def _mounts(pod: Pod, container: Container) -> tuple[VolumeMount, ...]:
    return volumes.mounts_of(container.record, pod.record.spec.volumes)


def prepare(pod: Pod, mounts: Iterable[VolumeMount]) -> None:
    """Look at the sources once more, since hosts change, and claim the disk images.

    Raises InvalidRequest when one is not there any more, Conflict when another pod has an image open.
    """
    mounts = tuple(mounts)
    for volume in {mount.volume.name: mount.volume for mount in mounts if mount.volume}.values():
        sources.check_source(volume)
    claim(pod, mounts)
    for mount in mounts:
        if mount.volume is not None:
            sources.make_directory(mount.volume)


def claim(pod: Pod, mounts: Iterable[VolumeMount]) -> None:
    """Take the disk images of ``mounts`` for this pod; raises Conflict when another has one open."""
    pod.host.disk_claims.claim(pod.id, pod.record.name, volumes.writers(volumes.disks(mounts)))


def release(pod: Pod) -> None:
    """Its machine has gone."""
    pod.host.disk_claims.release(pod.id)


def shares(pod: Pod) -> tuple[Share, ...]:
    return volumes.shares(mounts_of(pod))


def disk_keys(pod: Pod) -> list[str]:
    """Of its disk images, for ``slots``."""
    return [volumes.slot_key(disk) for disk in volumes.disks(mounts_of(pod)).values()]


def disk(pod: Pod, key: str) -> Disk | None:
    """The disk image that has ``key``, if it is one."""
    every = volumes.disks(mounts_of(pod)).values()
    return next((disk for disk in every if volumes.slot_key(disk) == key), None)


def writes_outside(pod: Pod) -> bool:
    """Whether it writes to what outlives it: then the guest is to write all it holds before it ends."""
    return any(
        mount.volume is not None and mount.volume.kind != "pod" and not mount.read_only
        for mount in mounts_of(pod)
    )


async def guest_mounts(pod: Pod, container: Container) -> tuple[Mount, ...]:
    """What hyperstart is told of a container's mounts.  Raises Unavailable for an unknown NFS server."""
    mounts = _mounts(pod, container)
    held = {
        name: slots.find(pod.record.slots, volumes.slot_key(disk))
        for name, disk in volumes.disks(mounts_of(pod)).items()
    }
    exports = {
        mount.volume.name: await sources.resolve_nfs(mount.volume)
        for mount in mounts
        if mount.volume is not None and mount.volume.kind == "nfs"
    }
    return volumes.guest_mounts(mounts, held=held, exports=exports)
