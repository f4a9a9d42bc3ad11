"""User-Mode Linux: the guest's kernel is a process of the host, and needs no privilege of it.

No paths stand on the command line, because UML parses commas, colons and spaces in them: disks and
initramfs are links in the run directory, which UML knows as an inherited descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import platform
import shutil
from pathlib import Path
from typing import ClassVar

from hypercontainer.errors import HypervisorError, Unsupported
from hypercontainer.hypervisors import _mconsole, _mounts, _probe, _shares
from hypercontainer.hypervisors._vmm import (
    CHANNEL_DESCRIPTOR,
    CONTROL_DESCRIPTOR,
    VmmHypervisor,
    VmmMachine,
    check_disk,
    socket_nic_descriptors,
)
from hypercontainer.model.machine import (
    Capabilities,
    Disk,
    Isolation,
    MachineConfig,
    Nic,
    NicKind,
    ShareKind,
)
from hypercontainer.process import ProcessId

RUN_DIR = f"/proc/self/fd/{CONTROL_DESCRIPTOR}"  # the run directory as UML sees it
# What udelay() counts by.  Measured by the kernel itself it costs some 40 ms of every boot; nothing in ours
# waits that way, and of a delay that is not measured only the least is promised: this is of a 4 GHz CPU.
_LOOPS_PER_JIFFY = 40_000_000
NAME = "uml"  # UML's umid: its mconsole is NAME/mconsole in the run directory
INITRAMFS = "initramfs"
REMOVE_TRIES = 50
SLOTS = 16  # MAX_DEV of arch/um/drivers/ubd_kern.c


class UmlMachine(VmmMachine):
    """A UML; its mconsole outlives the daemon as its channel does."""

    async def pause(self) -> None:
        await self._command("stop")

    async def resume(self) -> None:
        await self._command("go")

    async def swap_disk(self, slot: int, disk: Disk | None) -> None:
        """Make the block device anew; it has to be removed first, which fails while it is open."""
        if not 0 <= slot < SLOTS:
            raise Unsupported(f"uml has {SLOTS} disk slots, and {slot} is asked")
        if disk and not disk.path.exists():
            raise HypervisorError(f"a machine's file is missing: {disk.path}")
        if not disk:
            await self._clear(slot)
            return
        link = self.run_dir / _slot_name(slot)
        if link.is_symlink() and link.readlink() == disk.path.absolute():
            await self._clear(slot)  # else it would be this machine that writes to the disk
        check_disk(disk, Uml.capabilities.disk_formats)
        _link(link, disk.path)
        try:
            await self._command(f"config {_ubd(slot, disk)}")
        except HypervisorError:  # it is configured already, mostly
            await self._clear(slot)
            await self._command(f"config {_ubd(slot, disk)}")

    async def _clear(self, slot: int) -> None:
        if await self._command(f"config ubd{slot}"):  # else it has none
            await self._remove(slot)

    async def _remove(self, slot: int) -> None:
        """The guest's search for partitions keeps a new disk open for some milliseconds: try again."""
        for _ in range(REMOVE_TRIES - 1):
            with contextlib.suppress(HypervisorError):
                await self._command(f"remove ubd{slot}")
                return
            await asyncio.sleep(0.01)
        await self._command(f"remove ubd{slot}")

    async def _command(self, text: str) -> str:
        return await _mconsole.command(self.run_dir / NAME / "mconsole", text)


class Uml(VmmHypervisor, name="uml", order=3):
    """UML has one CPU, and its guests' pages are a file that must be memory: /dev/shm."""

    title = "UML"
    run_dir_descriptor = CONTROL_DESCRIPTOR
    capabilities: ClassVar = Capabilities(
        isolation=Isolation.PROCESS,
        kernel="um",
        max_vcpus=1,
        min_memory_mib=32,
        disk_slots=SLOTS,
        nics=frozenset({NicKind.TAP, NicKind.PACKET}),
        pause=True,
        swap_disks=True,
        share=ShareKind.HOSTFS,
    )

    async def missing(self, *, cache: Path) -> str | None:
        if platform.machine() != "x86_64":
            return f"UML runs on x86_64, and this host is {platform.machine()}"
        if _memory_directory() is None:
            return "UML needs a tmpfs that is not mounted noexec, and /dev/shm is none"
        return _ptrace_missing() or _probe.kernel_missing(self, cache=cache)

    def command(self, config: MachineConfig, run_dir: Path) -> list[str]:
        nics = socket_nic_descriptors(config.nics)
        return [
            str(config.kernel),
            f"mem={config.memory_mib}M",
            *(f"uml_dir={RUN_DIR}/", f"umid={NAME}"),
            f"hyper_channel=fd:{CHANNEL_DESCRIPTOR}",
            f"initrd={RUN_DIR}/{INITRAMFS}",
            *(_ubd(slot, disk) for slot, disk in enumerate(config.disks)),
            *(_nic(number, nic, nics.get(nic.mac)) for number, nic in enumerate(config.nics)),
            f"hostfs={RUN_DIR}/{_shares.DIRECTORY}",
            *("con=null", "con0=null,fd:1", "ssl=null", "quiet", f"lpj={_LOOPS_PER_JIFFY}", "panic=-1"),
            *config.kernel_arguments,
        ]

    def _check(self, config: MachineConfig) -> None:
        super()._check(config)
        directory = _memory_directory()
        if directory is None:
            raise HypervisorError("UML needs a tmpfs that is not mounted noexec, and /dev/shm is none")
        free = shutil.disk_usage(directory).free >> 20
        if free < config.memory_mib:
            raise HypervisorError(
                f"{directory} has {free} MiB free, and the guest's memory is {config.memory_mib} MiB",
                hint=f"mount -o remount,size=... {directory}",
            )

    def _settle(self, config: MachineConfig, run_dir: Path) -> None:
        """UML, which wants its addresses to be the same each time, would execute itself once more for it."""
        super()._settle(config, run_dir)
        with contextlib.suppress(OSError):  # forbidden (LockPersonality of systemd): UML goes on without
            _mounts.fix_addresses()

    def _prepare(self, config: MachineConfig, run_dir: Path) -> None:
        _link(run_dir / INITRAMFS, config.initramfs)
        for slot, disk in enumerate(config.disks):
            _link(run_dir / _slot_name(slot), disk.path)

    def _environment(self, config: MachineConfig) -> dict[str, str]:
        return {"TMPDIR": str(_memory_directory()), "HOME": "/"}

    def _machine_of(self, config: MachineConfig, run_dir: Path, process: ProcessId) -> VmmMachine:
        return UmlMachine(config_id=config.id, run_dir=run_dir, process=process)

    async def _until_up(self, config: MachineConfig, run_dir: Path) -> None:
        """The kernel makes its mconsole among its first initcalls, after its memory."""
        while not (run_dir / NAME / "mconsole").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    def _program(self, config: MachineConfig) -> str:
        if not os.access(config.kernel, os.X_OK):
            raise HypervisorError(f"{config.kernel} is not executable", hint=f"chmod +x {config.kernel}")
        return str(config.kernel)


def _link(link: Path, target: Path) -> None:
    temporary = link.with_name(f".{link.name}")
    temporary.symlink_to(target.absolute())
    temporary.replace(link)


# --- The command line, part by part ---


def _slot_name(slot: int) -> str:
    return f"slot{slot}"


def _ubd(slot: int, disk: Disk) -> str:
    flags = "rs" if disk.read_only else ""  # s: unlocked, since an image is shared with other machines
    return f"ubd{slot}{flags}={RUN_DIR}/{_slot_name(slot)}"


def _nic(number: int, nic: Nic, descriptor: int | None) -> str:
    """Source: Documentation/virt/uml/user_mode_linux_howto_v2.rst, "Network Devices"."""
    if nic.kind is NicKind.TAP:
        return f"vec{number}:transport=tap,ifname={nic.backend},depth=128,gro=1,mac={nic.mac}"
    return f"vec{number}:transport=fd,fd={descriptor},vec=0,mac={nic.mac}"


# --- What the host must have ---


def _memory_directory() -> Path | None:
    """Where guests' memory lies: the first tmpfs from which pages may be executed."""
    candidates = ["/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "")]  # noqa: S108
    for candidate in candidates:
        if candidate and _is_memory(candidate):
            return Path(candidate)
    return None


def _is_memory(directory: str) -> bool:
    if not os.access(directory, os.W_OK):
        return False
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        return False
    return _is_tmpfs(directory, device=Path(directory).stat().st_dev)


@functools.cache
def _is_tmpfs(directory: str, *, device: int) -> bool:
    """``device`` is the directory's: while that stays, nothing else was mounted there."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return any(fields[1] == directory and fields[2] == "tmpfs" for fields in mounts)


def _ptrace_missing() -> str | None:
    """Yama's scope 2 wants CAP_SYS_PTRACE even for one's own children, and 3 allows nobody."""
    try:
        scope = int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):
        return None
    if scope >= 3 or (scope == 2 and os.geteuid() != 0):
        return f"UML traces its processes, and kernel.yama.ptrace_scope={scope} forbids it"
    return None
