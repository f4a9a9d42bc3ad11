"""Where a volume's data is on the host: looked at before a pod that wants it is made or started.

The checks are for good messages: what is mounted or opened later is looked at again by who does it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from hypercontainer.errors import Conflict, InvalidRequest, Unavailable
from hypercontainer.model.pod import VolumeSpec

_NFS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s,]+):(/[^\x00,]*)")
# docs/interop/qcow2.txt of QEMU: magic, version, offset of the backing file's name; at 72 the incompatible
# features, of which bit 2 says that the data is in a file of its own.
_QCOW2 = b"QFI\xfb"
_QCOW2_HEAD = struct.Struct(">4sIQ")
_QCOW2_FEATURES = struct.Struct(">Q")
_EXTERNAL_DATA = 1 << 2

FileId = tuple[int, int]  # device and inode: one file, whatever it is called


def check_source(volume: VolumeSpec) -> None:
    """Refuse a source that is not there, or is not what ``volume`` says.  Raises InvalidRequest."""
    _CHECKS[volume.kind](volume)


def make_directory(volume: VolumeSpec) -> None:
    """Docker's -v: make the directory of a host volume that asks for it, when there is nothing."""
    if volume.kind != "host" or not volume.create:
        return
    try:
        Path(volume.source).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        pass  # a file: it is there, and that is all that was asked
    except OSError as error:
        raise Unavailable(f"cannot make the directory {volume.source}: {error.strerror}") from error


def _check_pod(volume: VolumeSpec) -> None:
    if volume.source:
        raise InvalidRequest(
            f"volume {volume.name!r} is on the pod's own disk, and cannot have the source {volume.source!r}",
            hint="a directory of the host is a volume of kind host",
        )


def _check_host(volume: VolumeSpec) -> None:
    status = _status(volume, may_be_absent=volume.create)
    if status and not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        raise InvalidRequest(
            f"volume {volume.name!r}: {volume.source} is neither a directory nor a regular file"
        )


def _check_image(volume: VolumeSpec) -> None:
    status = _status(volume)
    if status and not stat.S_ISREG(status.st_mode):
        raise InvalidRequest(f"volume {volume.name!r}: {volume.source} is no disk image: not a regular file")
    head = _head(volume)
    is_qcow2 = head.startswith(_QCOW2)
    if is_qcow2 != (volume.kind == "qcow2"):
        raise InvalidRequest(
            f"volume {volume.name!r}: {volume.source} is {'a' if is_qcow2 else 'no'} qcow2 image",
            hint="the volume's format is qcow2" if is_qcow2 else "a plain image's format is raw",
        )
    if is_qcow2:
        _refuse_other_files(volume, head)
    elif status and status.st_size < 4096:
        raise InvalidRequest(f"volume {volume.name!r}: {volume.source} is too small to hold a file system")


def _refuse_other_files(volume: VolumeSpec, head: bytes) -> None:
    """A qcow2 image may name any file of the host as its base or its data: who made it chose that file."""
    if len(head) < 104:
        raise InvalidRequest(f"volume {volume.name!r}: {volume.source} is cut short")
    _, version, backing = _QCOW2_HEAD.unpack_from(head)
    features = _QCOW2_FEATURES.unpack_from(head, 72)[0] if version >= 3 else 0
    if backing or features & _EXTERNAL_DATA:
        raise InvalidRequest(
            f"volume {volume.name!r}: {volume.source} takes its data from another file",
            hint="make it whole: qemu-img convert -O qcow2 OLD NEW",
        )


def _check_nfs(volume: VolumeSpec) -> None:
    nfs_source(volume)


_CHECKS: Mapping[str, Callable[[VolumeSpec], None]] = {
    "pod": _check_pod,
    "host": _check_host,
    "raw": _check_image,
    "qcow2": _check_image,
    "nfs": _check_nfs,
}


def _status(volume: VolumeSpec, *, may_be_absent: bool = False) -> os.stat_result | None:
    """None: it may be absent, and is."""
    if not volume.source.startswith("/") or "\0" in volume.source:
        raise InvalidRequest(
            f"volume {volume.name!r}: the source {volume.source!r} is no absolute path of the host"
        )
    try:
        return Path(volume.source).stat()
    except FileNotFoundError as error:
        if may_be_absent:
            return None
        raise InvalidRequest(f"volume {volume.name!r}: {volume.source} does not exist on the host") from error
    except OSError as error:
        raise InvalidRequest(f"volume {volume.name!r}: {volume.source}: {error.strerror}") from error


def _head(volume: VolumeSpec) -> bytes:
    try:
        with Path(volume.source).open("rb") as file:
            return file.read(104)
    except OSError as error:
        raise InvalidRequest(
            f"volume {volume.name!r}: cannot read {volume.source}: {error.strerror}"
        ) from error


# --- NFS ---


def nfs_source(volume: VolumeSpec) -> tuple[str, str]:
    """The server, without brackets, and the path of an nfs volume's SERVER:/PATH."""
    match = _NFS.fullmatch(volume.source)
    if match is None:
        raise InvalidRequest(
            f"volume {volume.name!r}: the source {volume.source!r} is no NFS export",
            hint="SERVER:/PATH",
        )
    return match[1].strip("[]"), match[2]


async def resolve_nfs(volume: VolumeSpec) -> str:
    """ADDRESS:/PATH of an nfs volume: the guest's kernel knows no names.  Raises Unavailable."""
    server, path = nfs_source(volume)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(server, 2049, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"volume {volume.name!r}: NFS server {server} is not known: {error}") from error
    address = ipaddress.ip_address(found[0][4][0])
    return f"[{address}]:{path}" if address.version == 6 else f"{address}:{path}"


# --- Who has a disk image open ---


class DiskClaims:
    """Which pod has which disk image of the host in its machine: many may read one, or a single one write.

    In memory: a new daemon claims again for the pods that run.
    """

    def __init__(self) -> None:
        self._claims: dict[str, dict[FileId, tuple[str, bool]]] = {}

    def claim(self, pod: str, name: str, volumes: Mapping[str, bool], *, besides: str = "") -> None:
        """For ``pod``, called ``name``: images by their paths, and whether each is written.

        The claims of the pod ``besides`` do not count.  Raises Conflict, and then nothing is claimed; what
        ``pod`` had claimed before stays.
        """
        wanted = [(_file_id(path), path, writes) for path, writes in volumes.items()]
        own = dict(self._claims.get(pod, {}))
        for file, path, writes in wanted:
            self._refuse_conflict({pod, besides}, file, path, writes=writes)
            earlier = own.get(file)
            own[file] = name, writes or bool(earlier and earlier[1])
        if own:
            self._claims[pod] = own

    def release(self, pod: str) -> None:
        self._claims.pop(pod, None)

    def _refuse_conflict(self, own: set[str], file: FileId, path: str, *, writes: bool) -> None:
        for other, claims in self._claims.items():
            name, other_writes = claims.get(file, ("", False))
            if name and other not in own and (writes or other_writes):
                how = "writes to it" if other_writes else "reads it"
                raise Conflict(
                    f"the disk image {path} is in use: pod {name} {how}",
                    hint=f"stop that pod first, or mount it read-only in both: hyper stop {name}",
                )


def _file_id(path: str) -> FileId:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InvalidRequest(f"the disk image {path} is not there: {error.strerror}") from error
    return status.st_dev, status.st_ino
