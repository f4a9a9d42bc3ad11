"""What the engine asks of a hypervisor driver: a machine's parts, and what drivers can and cannot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Isolation(StrEnum):
    """What stands between a guest and the host, said honestly.

    TCG and UML are no hardware boundary: QEMU's security policy excludes TCG, and a UML guest is a
    process of the host.
    """

    HARDWARE = "hardware"
    PROCESS = "process"
    EMULATED = "emulated"
    NONE = "none"  # namespaces only: tests of hyperstart


class NicKind(StrEnum):
    """How a NIC's frames leave the VMM."""

    TAP = "tap"  # ``Nic.backend`` names the tap interface
    STREAM = "stream"  # path of a unix stream socket; each frame has a u32 big-endian length before it
    PACKET = "packet"  # path of a unix seqpacket socket; each packet is one frame
    NONE = "none"  # nowhere: of a machine that is to be saved


class ShareKind(StrEnum):
    """How a guest mounts the machine's share, the one directory of the host that it is shown."""

    HOSTFS = "hostfs"  # UML's own
    NINEP = "9p"  # virtio-9p, 9P2000.L
    BIND = "bind"  # namespaces only: tests of hyperstart


class DiskFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A slot's backing."""

    path: Path
    read_only: bool
    format: DiskFormat = DiskFormat.RAW
    cache: str = ""  # QEMU's word: "none", "writethrough", ...; empty: writeback


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A file or directory of the host, seen by the guest as ``name`` in the machine's share.

    ``read_only`` is enforced on the host's side: a hostile guest kernel cannot write either.
    """

    name: str
    path: Path
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    mac: str
    kind: NicKind
    backend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineConfig:
    """All that a driver is told.  ``disks`` are slots 0, 1, ... as the guest protocol counts them."""

    id: str
    vcpus: int
    memory_mib: int
    kernel: Path
    initramfs: Path
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    shares: tuple[Share, ...] = ()
    kernel_arguments: tuple[str, ...] = ()
    template: Path | None = None  # directory of a saved machine, of which this one is to be a copy
    save_in: Path | None = None  # directory where ``Machine.save`` is to leave this one


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver can do.  Nobody compares driver names: they ask here."""

    isolation: Isolation
    kernel: str  # the hyperkernel target, as guest/kernel/targets.py has it; empty: it boots none
    max_vcpus: int
    min_memory_mib: int
    disk_slots: int  # one that has no disk at launch can be given one by ``Machine.swap_disk``
    nics: frozenset[NicKind]
    pause: bool
    swap_disks: bool
    share: ShareKind | None = None  # None: the driver cannot show the guest anything of the host's files
    share_options: str = ""  # of the guest's mount; for ShareKind.BIND the path.  The source is "share"
    disk_formats: frozenset[DiskFormat] = frozenset({DiskFormat.RAW})
    templates: bool = False  # a machine can be saved, and others started as copies of it
