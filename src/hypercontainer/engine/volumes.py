"""A pod's volumes: from what was asked to shares and disks of its machine and mounts of its containers.

Pure functions, but for what ``storage.sources`` looks at.  Each host volume is shown to the guest once for
each way it is mounted, so that one that is only read is read-only on the host's side.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from hypercontainer.engine.records import ContainerRecord
from hypercontainer.errors import Conflict, InvalidRequest, Unsupported
from hypercontainer.guest.protocol import NO_SLOT, SHARE_SLOT, Mount, Source
from hypercontainer.model.image import Image
from hypercontainer.model.machine import Capabilities, Disk, DiskFormat, Share
from hypercontainer.model.pod import ContainerSpec, MountSpec, PodSpec, VolumeSpec
from hypercontainer.storage import sources

DISK_KINDS = frozenset({"raw", "qcow2"})
MAX_MOUNTS = 256  # of one container
_KERNELS_OWN = ("/proc", "/sys", "/dev")
_TMPFS_WORDS = frozenset(
    {"ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "relatime"}
)
_TMPFS_KEYS = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMount:
    """One mount of a container, as it will be."""

    target: str
    volume: VolumeSpec | None  # None: a tmpfs
    directory: str = ""  # of a pod's volume, on the pod's disk
    read_only: bool = False
    populate: bool = False
    is_images: bool = False  # a volume that the image asks for, the container's own
    options: tuple[str, ...] = ()


# --- Checks ---


def check_volumes(spec: PodSpec, capabilities: Capabilities, driver: str) -> None:
    """Refuse volumes that make no sense or that ``driver`` cannot do, before anything is made."""
    for name, count in Counter(volume.name for volume in spec.volumes).items():
        if count > 1 or not name:
            raise InvalidRequest(
                f"volume {name!r} is there {count} times" if name else "a volume has no name"
            )
    for volume in spec.volumes:
        _check_volume(volume, spec, capabilities, driver)
    for container in spec.containers:
        check_mounts(container, spec.volumes)


def check_added(container: ContainerSpec, spec: PodSpec, capabilities: Capabilities, driver: str) -> None:
    """The same for a container that comes into a pod that is there; ``spec`` has the volumes of both."""
    check_mounts(container, spec.volumes)
    mounted = {mount.volume for mount in container.mounts}
    for volume in spec.volumes:
        if volume.name in mounted:
            _check_volume(volume, spec, capabilities, driver)


def is_same(one: VolumeSpec, other: VolumeSpec) -> bool:
    """Whether both are the same thing, apart from the name and from who makes it when it is not there."""
    return replace(one, name="", create=False) == replace(other, name="", create=False)


def _check_volume(volume: VolumeSpec, spec: PodSpec, capabilities: Capabilities, driver: str) -> None:
    if volume.kind == "host" and capabilities.share is None:
        raise Unsupported(
            f"volume {volume.name!r}: {driver} cannot show a machine files of the host",
            hint="choose another --hypervisor, or a disk image",
        )
    if volume.kind in DISK_KINDS and DiskFormat(volume.kind) not in capabilities.disk_formats:
        raise Unsupported(
            f"volume {volume.name!r}: {driver} has no {volume.kind} disks",
            hint="choose another --hypervisor, or convert it: qemu-img convert -O raw OLD NEW",
        )
    if volume.kind == "nfs" and spec.network == "none":
        raise InvalidRequest(f"volume {volume.name!r} is of NFS, and the pod has no network")
    sources.check_source(volume)


def check_mounts(container: ContainerSpec, volumes: Sequence[VolumeSpec]) -> None:
    """Refuse mounts without a volume, at a place that is the kernel's own, or two at one place."""
    known = {volume.name for volume in volumes}
    targets = Counter(target_of(mount.target) for mount in container.mounts)
    for mount in container.mounts:
        if mount.volume and mount.volume not in known:
            raise InvalidRequest(
                f"{mount.target}: the pod has no volume {mount.volume!r}",
                hint=f"its volumes: {', '.join(sorted(known)) or 'none'}",
            )
        if targets[target_of(mount.target)] > 1:
            raise InvalidRequest(f"two mounts of a container are at {target_of(mount.target)}")
        _check_target(mount.target)
        if not mount.volume:
            _check_tmpfs(mount)
    if len(container.mounts) > MAX_MOUNTS:
        raise InvalidRequest(f"a container has {len(container.mounts)} mounts; {MAX_MOUNTS} are possible")


def target_of(path: str) -> str:
    """``path`` of a container without doubled slashes and dots, as Docker cleans it."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _check_target(path: str) -> None:
    target = target_of(path)
    if target == "/":
        raise InvalidRequest("nothing can be mounted at /: the root is the image")
    if target in _KERNELS_OWN or target.startswith("/proc/"):
        raise InvalidRequest(f"nothing can be mounted at {target}: it is the kernel's")


def _check_tmpfs(mount: MountSpec) -> None:
    for option in mount.options:
        key, equals, value = option.partition("=")
        if not (key in _TMPFS_KEYS and value if equals else option in _TMPFS_WORDS) or "," in option:
            raise InvalidRequest(
                f"tmpfs at {mount.target}: {option!r} is no option",
                hint="size=64m, mode=1777, uid=, gid=, ro, noexec, nosuid, nodev",
            )


def image_volumes(spec: ContainerSpec, image: Image) -> tuple[str, ...]:
    """Where the image wants a volume, and the user has said nothing: Dockerfile's VOLUME."""
    taken = {target_of(mount.target) for mount in spec.mounts}
    wanted = tuple(sorted({target_of(path) for path in image.config.volumes} - taken))
    for target in wanted:
        _check_target(target)
    if len(wanted) > MAX_MOUNTS:
        raise InvalidRequest(f"image {spec.image} asks for {len(wanted)} volumes")
    return wanted


# --- What a container mounts ---


def mounts_of(container: ContainerRecord, volumes: Sequence[VolumeSpec]) -> tuple[VolumeMount, ...]:
    """Every mount of a container, those that others lie in first."""
    known = {volume.name: volume for volume in volumes}
    asked = [_asked(mount, known) for mount in container.spec.mounts]
    own = [
        VolumeMount(
            target=target,
            volume=VolumeSpec(name=container.id),
            directory=f"{container.id}/volumes/{number}",  # gone with the container
            populate=True,
            is_images=True,
        )
        for number, target in enumerate(container.image_volumes)
    ]
    return tuple(sorted(asked + own, key=lambda mount: (mount.target.count("/"), mount.target)))


def _asked(mount: MountSpec, known: Mapping[str, VolumeSpec]) -> VolumeMount:
    volume = known[mount.volume] if mount.volume else None
    is_pods = volume is not None and volume.kind == "pod"
    return VolumeMount(
        target=target_of(mount.target),
        volume=volume,
        directory=f"volumes/{mount.volume}" if is_pods else "",
        read_only=mount.read_only or (volume is not None and volume.read_only),
        populate=mount.populate and is_pods,
        options=mount.options,
    )


# --- The machine ---


def shares(mounts: Iterable[VolumeMount]) -> tuple[Share, ...]:
    """What the machine is shown of the host's files, for these mounts."""
    found = {
        _share_name(mount.volume, read_only=mount.read_only): mount
        for mount in mounts
        if mount.volume is not None and mount.volume.kind == "host"
    }
    return tuple(
        Share(name=name, path=Path(mount.volume.source), read_only=mount.read_only)
        for name, mount in sorted(found.items())
        if mount.volume is not None
    )


def _share_name(volume: VolumeSpec, *, read_only: bool) -> str:
    return f"{'ro' if read_only else 'rw'}-{volume.name}"


def disks(mounts: Iterable[VolumeMount]) -> dict[str, Disk]:
    """The disk images of these mounts, by the volume's name; one that is only read is read-only."""
    found: dict[str, Disk] = {}
    for mount in mounts:
        volume = mount.volume
        if volume is None or volume.kind not in DISK_KINDS:
            continue
        earlier = found.get(volume.name)
        found[volume.name] = Disk(
            path=Path(volume.source),
            read_only=mount.read_only and (earlier is None or earlier.read_only),
            format=DiskFormat(volume.kind),
            cache=volume.cache,
        )
    return dict(sorted(found.items()))


def disks_of(container: ContainerSpec, volumes: Sequence[VolumeSpec]) -> list[Disk]:
    """The disk images that a container which is not there yet mounts."""
    known = {volume.name: volume for volume in volumes}
    return [*disks(_asked(mount, known) for mount in container.mounts).values()]


def disk_names(spec: PodSpec) -> list[str]:
    """The volumes that are disk images and that a container of ``spec`` mounts."""
    mounted = {mount.volume for container in spec.containers for mount in container.mounts}
    return [volume.name for volume in spec.volumes if volume.kind in DISK_KINDS and volume.name in mounted]


def slot_key(disk: Disk) -> str:
    """What ``slots`` calls the slot of a disk image: the same for two machines only if it is the same."""
    access = "ro" if disk.read_only else "rw"
    return f"{disk.format},{access},{disk.cache}:{disk.path}"


def is_slot_key(key: str) -> bool:
    """Whether ``slot_key`` made it: an image's id has no comma."""
    return "," in key


def writers(images: Mapping[str, Disk]) -> dict[str, bool]:
    """The paths of ``images``, and whether each is written; Conflict when two volumes cannot share one."""
    found: dict[str, bool] = {}
    for name, disk in images.items():
        path = str(disk.path.resolve())
        if path in found and (found[path] or not disk.read_only):
            raise Conflict(f"volume {name!r}: {path} is another volume's too, and one of them writes to it")
        found[path] = not disk.read_only
    return found


# --- The guest ---


def guest_mounts(
    mounts: Iterable[VolumeMount], *, own: int, held: Mapping[str, int], exports: Mapping[str, str]
) -> tuple[Mount, ...]:
    """Mounts as hyperstart takes them.

    ``own`` is the slot of the pod's disk, ``held`` are those of disk images and ``exports`` the resolved
    sources of NFS, by the volume's name.
    """
    return tuple(_guest_mount(mount, own, held, exports) for mount in mounts)


def _guest_mount(mount: VolumeMount, own: int, held: Mapping[str, int], exports: Mapping[str, str]) -> Mount:
    volume = mount.volume
    access = ("ro",) if mount.read_only else ()
    if volume is None:
        return Mount(Source(NO_SLOT, ""), mount.target, "tmpfs", _tmpfs_options(mount), populate=False)
    if volume.kind == "nfs":
        export = Source(NO_SLOT, exports[volume.name])
        return Mount(export, mount.target, "nfs4", ",".join((*volume.options, *access)), populate=False)
    source = _source(mount, volume, own, held)
    return Mount(source, mount.target, "bind", ",".join(access), populate=mount.populate)


def _source(mount: VolumeMount, volume: VolumeSpec, own: int, held: Mapping[str, int]) -> Source:
    match volume.kind:
        case "host":
            return Source(SHARE_SLOT, _share_name(volume, read_only=mount.read_only))
        case "raw" | "qcow2":
            return Source(held[volume.name], "")
    return Source(own, mount.directory)


def _tmpfs_options(mount: VolumeMount) -> str:
    """Docker's defaults, unless the opposite is asked for."""
    words = [word for word in ("nosuid", "nodev", "noexec") if word[2:] not in mount.options]
    access = ("ro",) if mount.read_only else ()
    return ",".join((*words, *mount.options, *access))
