"""QEMU's microvm, in hardware (``kvm``) and emulated (``tcg``): the same machine with two accelerators.

microvm with PVH direct boot of a vmlinux has no PCI, no ACPI and no firmware worth the name, and eight
virtio-mmio transports, announced to the guest on its command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from hypercontainer.errors import HypervisorError, Unavailable, Unsupported
from hypercontainer.hypervisors import _kvm, _probe, _processes, _saved, _shares, _tsc, _verdict
from hypercontainer.hypervisors._qmp import Qmp, open_qmp
from hypercontainer.hypervisors._vmm import (
    CHANNEL_DESCRIPTOR,
    CONTROL_DESCRIPTOR,
    X86_64_ARGUMENTS,
    VmmHypervisor,
    VmmMachine,
    check_disk,
    socket_nic_descriptors,
)
from hypercontainer.model.machine import (
    Capabilities,
    Disk,
    DiskFormat,
    Isolation,
    MachineConfig,
    Nic,
    NicKind,
    ShareKind,
)
from hypercontainer.process import ProcessId, find_program

PROGRAM = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"
CONTROL = "qmp.sock"
TRANSPORTS = 8  # VIRTIO_NUM_TRANSPORTS of QEMU's hw/i386/microvm.c
NICS = TRANSPORTS - 3  # the others are the channel's, the share's and the disks'
SLOTS = 64  # of 256 targets of a virtio-scsi controller; hyperstart's SLOTS
CLOSE_TRIES = 500
FORMATS = frozenset(DiskFormat)
MACHINE = "microvm,x-option-roms=off,acpi=off"
SHARE_OPTIONS = "trans=virtio,version=9p2000.L,msize=131072,cache=mmap"


class QemuMachine(VmmMachine):
    """A QEMU; its control socket outlives the daemon as its channel does."""

    def __init__(self, *, config: MachineConfig, run_dir: Path, process: ProcessId) -> None:
        super().__init__(config_id=config.id, run_dir=run_dir, process=process)
        self._save_in = config.save_in

    async def pause(self) -> None:
        async with open_qmp(self.run_dir / CONTROL) as qmp:
            await qmp.execute("stop")

    async def resume(self) -> None:
        async with open_qmp(self.run_dir / CONTROL) as qmp:
            await qmp.execute("cont")

    async def save(self) -> None:
        if self._save_in is None:
            raise Unsupported("this machine was not started to be saved")
        async with open_qmp(self.run_dir / CONTROL) as qmp:
            await _saved.save(qmp, self._save_in)

    async def swap_disk(self, slot: int, disk: Disk | None) -> None:
        """Unplug the slot's disk and plug another; the guest is told nothing, and looks by itself."""
        if not 0 <= slot < SLOTS:
            raise Unsupported(f"QEMU has {SLOTS} disk slots, and {slot} is asked")
        if disk and not disk.path.exists():
            raise HypervisorError(f"a machine's file is missing: {disk.path}")
        async with open_qmp(self.run_dir / CONTROL) as qmp:
            await _unplug(qmp, slot)
            if disk:
                check_disk(disk, FORMATS)
                await _plug(qmp, slot, disk)


async def _plug(qmp: Qmp, slot: int, disk: Disk) -> None:
    await qmp.execute("blockdev-add", **_blocks(slot, disk))
    try:
        await qmp.execute("device_add", **_device(slot, disk))
    except BaseException:
        await qmp.execute("blockdev-del", node_name=_node(slot))
        raise


async def _unplug(qmp: Qmp, slot: int) -> None:
    """The disk that the slot has, or what an interrupted swap has left of it."""
    devices = await qmp.execute("qom-list", path="/machine/peripheral")
    if any(device["name"] == _node(slot) for device in devices):
        await qmp.execute("device_del", id=_node(slot))
    nodes = await qmp.execute("query-named-block-nodes", flat=True)
    if any(node["node-name"] == _node(slot) for node in nodes):
        await _close(qmp, _node(slot))


async def _close(qmp: Qmp, node: str) -> None:
    """A device is gone some time after it was unplugged (RCU), and its node is in use until then."""
    for _ in range(CLOSE_TRIES - 1):
        with contextlib.suppress(HypervisorError):
            await qmp.execute("blockdev-del", node_name=node)
            return
        await asyncio.sleep(0.002)
    await qmp.execute("blockdev-del", node_name=node)


class Qemu(VmmHypervisor):
    """Everything but the accelerator."""

    title = "QEMU"
    accelerator: ClassVar[list[str]]
    kernel_arguments: ClassVar[tuple[str, ...]] = ()

    def command(self, config: MachineConfig, run_dir: Path) -> list[str]:
        nics = socket_nic_descriptors(config.nics)
        return [
            PROGRAM,
            *self._machine(config),
            *_isolated(),
            *_control(),
            *_console(),
            *_channel(),
            *_share(run_dir),
            *_controller(),
            *(word for slot, disk in enumerate(config.disks) for word in _disk(slot, disk)),
            *(word for n, nic in enumerate(config.nics) for word in _nic(n, nic, nics.get(nic.mac))),
            *_kernel(config, self.kernel_arguments),
        ]

    def _machine(self, config: MachineConfig) -> list[str]:
        return [
            *self.accelerator,
            *(
                "-machine",
                MACHINE + (f",memory-backend={_saved.BACKEND}" if _saved.directory(config) else ""),
            ),
            *("-smp", str(config.vcpus)),
            *("-m", f"{config.memory_mib}M"),
            *_saved.words(config),
        ]

    def _check(self, config: MachineConfig) -> None:
        super()._check(config)
        if len(config.nics) > NICS:
            raise Unsupported(f"QEMU's microvm has room for {NICS} NICs, and {len(config.nics)} are asked")
        _saved.check(config)

    def _inherit(self, run_dir: Path, held: contextlib.ExitStack) -> int:
        return held.enter_context(_processes.listen(run_dir / CONTROL)).fileno()

    def _alone(self, command: list[str]) -> list[str]:
        return [word + ",readonly=on" if word.startswith("local,id=share,") else word for word in command]

    def _environment(self, config: MachineConfig) -> dict[str, str]:
        return {}

    def _machine_of(self, config: MachineConfig, run_dir: Path, process: ProcessId) -> VmmMachine:
        return QemuMachine(config=config, run_dir=run_dir, process=process)

    async def _until_up(self, config: MachineConfig, run_dir: Path) -> None:
        async with open_qmp(run_dir / CONTROL) as qmp:  # it greets when every device is made
            if config.template is not None:
                await _saved.restore(qmp, config.template)

    def _program(self, config: MachineConfig) -> str:
        return find_program(PROGRAM, package=PACKAGE)


class Kvm(Qemu, name="kvm", order=1):
    accelerator: ClassVar = ["-accel", "kvm", "-cpu", "host"]
    capabilities: ClassVar = Capabilities(
        isolation=Isolation.HARDWARE,
        kernel="x86_64",
        max_vcpus=os.cpu_count() or 1,
        min_memory_mib=32,
        disk_slots=SLOTS,
        nics=frozenset({NicKind.TAP, NicKind.STREAM, NicKind.NONE}),
        pause=True,
        swap_disks=True,
        share=ShareKind.NINEP,
        share_options=SHARE_OPTIONS,
        disk_formats=FORMATS,
        templates=True,
    )

    async def missing(self, *, cache: Path) -> str | None:
        missing = _qemu_missing() or _kvm.device_missing() or _probe.kernel_missing(self, cache=cache)
        if missing:
            return missing
        program = Path(find_program(PROGRAM, package=PACKAGE))
        config = _probe.machine_config(self, cache=cache)
        return await _verdict.boot_missing(
            self, config, subject=str(_kvm.DEVICE), program=program, cache=cache
        )


class Tcg(Qemu, name="tcg", order=4):
    # QEMU's default of 1 GiB of translated code is memory that the guest's owner never asked for.
    # A CPU that says that it moves strings of bytes fast (ERMS, FSRM) gets them from every kernel and C
    # library, and TCG runs each byte as an instruction of its own.
    accelerator: ClassVar = ["-accel", "tcg,thread=multi,tb-size=32", "-cpu", "max,-erms,-fsrm"]
    # A kernel with one CPU takes the lock prefixes out of its code, which here saves nothing, and takes
    # 180 ms of a boot: each write to code that was run throws its translation away.
    kernel_arguments: ClassVar = ("noreplace-smp",)
    capabilities: ClassVar = Capabilities(
        isolation=Isolation.EMULATED,
        kernel="x86_64",
        max_vcpus=os.cpu_count() or 1,
        min_memory_mib=32,
        disk_slots=SLOTS,
        nics=frozenset({NicKind.TAP, NicKind.STREAM, NicKind.NONE}),
        pause=True,
        swap_disks=True,
        share=ShareKind.NINEP,
        share_options=SHARE_OPTIONS,
        disk_formats=FORMATS,
        templates=True,
    )

    def _fit_to_host(self, config: MachineConfig) -> MachineConfig:
        if not (khz := _tsc.host_tsc_khz()):
            return config
        return replace(config, kernel_arguments=(f"tsc_early_khz={khz}", *config.kernel_arguments))

    async def missing(self, *, cache: Path) -> str | None:
        return _qemu_missing() or _probe.kernel_missing(self, cache=cache)


def _qemu_missing() -> str | None:
    try:
        find_program(PROGRAM, package=PACKAGE)
    except Unavailable as error:
        return f"{error.message}: {error.hint}"
    return None


# --- The command line, part by part ---


def _isolated() -> list[str]:
    """No device, file or privilege that was not asked for.  The sandbox costs nothing measurable."""
    sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    return ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", sandbox]


def _control() -> list[str]:
    socket = f"socket,id=control,fd={CONTROL_DESCRIPTOR},server=on,wait=off"
    return ["-chardev", socket, "-mon", "chardev=control,mode=control"]


def _console() -> list[str]:
    """A serial line: it speaks from the first instruction on, and ``quiet`` leaves little to say."""
    return ["-chardev", "file,id=console,path=/dev/fd/1,append=on", "-serial", "chardev:console"]


def _channel() -> list[str]:
    return [
        *("-chardev", f"socket,id=channel,fd={CHANNEL_DESCRIPTOR},server=on,wait=off"),
        *("-device", "virtio-serial-device,max_ports=2"),
        *("-device", "virtserialport,chardev=channel,name=hyper.channel"),
    ]


def _share(run_dir: Path) -> list[str]:
    """Owners and modes are the guest's where this user may set them ("none" does not insist on it)."""
    path = str(run_dir / _shares.DIRECTORY).replace(",", ",,")
    backend = f"local,id=share,path={path},security_model=none,multidevs=remap"
    return ["-fsdev", backend, "-device", "virtio-9p-device,fsdev=share,mount_tag=share"]


def _controller() -> list[str]:
    """One for all disks: a microvm cannot plug virtio devices, and has few transports.

    It announces nothing: a guest that heard of one disk's end after it looked at the next would lose that.
    """
    return ["-device", "virtio-scsi-device,id=scsi,hotplug=off,num_queues=1"]


def _disk(slot: int, disk: Disk) -> list[str]:
    return ["-blockdev", json.dumps(_blocks(slot, disk)), "-device", json.dumps(_device(slot, disk))]


def _node(slot: int) -> str:
    """What block node and device of a slot are called."""
    return f"slot{slot}"


def _device(slot: int, disk: Disk) -> dict[str, object]:
    """Faults of the host's file system reach the guest as I/O errors: a stopped VM would tell nobody."""
    return {
        "driver": "scsi-hd",
        "id": _node(slot),
        "bus": "scsi.0",
        "scsi-id": slot,
        "drive": _node(slot),
        "serial": _node(slot),
        "write-cache": "off" if disk.cache in ("writethrough", "directsync") else "on",
        "werror": "report",
        "rerror": "report",
    }


def _blocks(slot: int, disk: Disk) -> dict[str, object]:
    """Host page cache with the guest's flushes honoured (writeback) by default: shared images are read once.

    Threads, as neither io_uring nor Linux AIO is allowed everywhere, and AIO needs O_DIRECT.  The words of
    ``cache`` are those of qemu-system(1), "cache".
    """
    cache = {"direct": disk.cache in ("none", "directsync"), "no-flush": disk.cache == "unsafe"}
    file = {
        "driver": "host_device" if disk.path.is_block_device() else "file",
        "filename": str(disk.path),
        "read-only": disk.read_only,
        "aio": "threads",
        "discard": "unmap",
        "locking": "off" if disk.read_only else "auto",  # an image is shared, with UML's machines too
        "cache": cache,
    }
    return {
        "driver": str(disk.format),
        "node-name": _node(slot),
        "read-only": disk.read_only,
        "discard": "unmap",
        "cache": cache,
        "file": file,
    }


def _nic(number: int, nic: Nic, descriptor: int | None) -> list[str]:
    name = f"nic{number}"
    if nic.kind is NicKind.NONE:
        return ["-device", f"virtio-net-device,mac={nic.mac}"]
    if nic.kind is NicKind.TAP:
        backend = f"tap,id={name},ifname={nic.backend},script=no,downscript=no"
    else:
        backend = f"stream,id={name},server=off,addr.type=fd,addr.str={descriptor}"
    return ["-netdev", backend, "-device", f"virtio-net-device,netdev={name},mac={nic.mac}"]


def _kernel(config: MachineConfig, own: tuple[str, ...]) -> list[str]:
    """panic=-1 and reboot=t with -no-reboot: a guest that panics or powers off ends its QEMU."""
    arguments = [
        *("console=ttyS0", "quiet", "panic=-1", "reboot=t"),
        *(
            "scsi_mod.scan=manual",
            "8250.nr_uarts=1",
            "no_timer_check",
            "tsc=reliable",
            "i8042.noaux",
            "i8042.nokbd",
        ),
        *X86_64_ARGUMENTS,
        *own,
        *config.kernel_arguments,
    ]
    files = ["-kernel", str(config.kernel), "-initrd", str(config.initramfs)]
    return [*files, "-append", " ".join(arguments)]
