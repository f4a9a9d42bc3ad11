"""The volumes of a pod that is to run: looked at, claimed, shown to its machine, mounted by the guest."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from hypercontainer.engine import slots, volumes
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.running import Running
from hypercontainer.engine.volumes import VolumeMount
from hypercontainer.errors import HyperError
from hypercontainer.guest.protocol import Mount
from hypercontainer.hypervisors.base import Machine
from hypercontainer.model.machine import Disk, Share
from hypercontainer.storage import sources

logger = logging.getLogger(__name__)


def mounts_of(pod: Pod) -> tuple[VolumeMount, ...]:
    """Of all its containers."""
    return tuple(mount for container in pod.containers for mount in _mounts(pod, container))


def _mounts(pod: Pod, container: Container) -> tuple[VolumeMount, ...]:
    return volumes.mounts_of(container.record, pod.record.spec.volumes)


def prepare(pod: Pod, mounts: Iterable[VolumeMount], *, instead_of: Pod | None = None) -> None:
    """Look at the sources once more, since hosts change, and claim the disk images.

    Raises InvalidRequest when one is not there any more, Conflict when another pod has an image open.
    """
    mounts = tuple(mounts)
    for volume in {mount.volume.name: mount.volume for mount in mounts if mount.volume}.values():
        sources.check_source(volume)
    claim(pod, mounts, instead_of=instead_of)
    for mount in mounts:
        if mount.volume is not None:
            sources.make_directory(mount.volume)


def claim(pod: Pod, mounts: Iterable[VolumeMount], *, instead_of: Pod | None = None) -> None:
    """Take the disk images of ``mounts`` for this pod; raises Conflict when another has one open.

    ``instead_of`` is a pod that will have let go of them when they are opened.
    """
    images = volumes.writers(volumes.disks(mounts))
    besides = instead_of.id if instead_of else ""
    pod.host.disk_claims.claim(pod.id, pod.record.name, images, besides=besides)


def release(pod: Pod) -> None:
    """Its machine has gone."""
    pod.host.disk_claims.release(pod.id)


def shares(pod: Pod) -> tuple[Share, ...]:
    return volumes.shares(mounts_of(pod))


async def show(pod: Pod, machine: Machine) -> None:
    """Give a running machine the shares of the pod, none of which it uses now."""
    for share in shares(pod):
        await machine.remove_share(share.name)  # a daemon may have died between this and the next
        await machine.add_share(share)


async def show_new(pod: Pod, running: Running, container: Container) -> None:
    """Give a running machine what ``container``, which is not mounted, needs and no other has yet."""
    others = [c for c in pod.containers if c.record.id in running.mounted]
    had = {share.name for other in others for share in volumes.shares(_mounts(pod, other))}
    for share in volumes.shares(_mounts(pod, container)):
        if share.name not in had:
            await running.machine.remove_share(share.name)
            await running.machine.add_share(share)


async def hide(machine: Machine, names: Iterable[str]) -> None:
    """Take shares away from a running machine, where the guest has them unmounted."""
    for name in names:
        with contextlib.suppress(HyperError):  # it has ended, with all that it was shown
            await machine.remove_share(name)


async def tidy(pod: Pod, machine: Machine) -> slots.Slots:
    """What no container of the pod mounts any more goes from its machine.  Returns what slots hold then."""
    await hide(machine, machine.shares() - {share.name for share in shares(pod)})
    held = pod.record.slots
    for slot, key in enumerate(held):
        if volumes.is_slot_key(key) and key not in disk_keys(pod):
            held = await _emptied(machine, held, slot)
    pod.host.disk_claims.release(pod.id)
    claim(pod, mounts_of(pod))
    return held


async def _emptied(machine: Machine, held: slots.Slots, slot: int) -> slots.Slots:
    try:
        await machine.swap_disk(slot, None)
    except HyperError as error:  # the guest is still on it
        logger.warning("machine %s keeps the disk in slot %d: %s", machine.id, slot, error.message)
        return held
    return slots.without(held, {held[slot]})


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
    own = slots.find(pod.record.slots, slots.POD)
    return volumes.guest_mounts(mounts, own=own, held=held, exports=exports)
