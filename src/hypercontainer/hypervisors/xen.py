"""Xen: each machine is a domain beside this one, PVH where the CPU can virtualize, and PV where it cannot.

The VMM's process is a keeper (``_xenkeeper.py``): it makes the domain with xl, and is its channel and its
console.  A domain outlives a keeper that is killed, so whoever ends a keeper ends the domain as well.

All disks are loop devices, which the kernel serves itself (blkback).  Xen's other way, a QEMU for each
domain, would lock no file, and a domain that started without one could be given no disk later.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

from hypercontainer.errors import HypervisorError, Unsupported
from hypercontainer.hypervisors import _loops, _probe, _verdict, _xenkeeper, _xl
from hypercontainer.hypervisors._vmm import X86_64_ARGUMENTS, VmmHypervisor, VmmMachine, check_disk
from hypercontainer.hypervisors._xenstore import SOCKET, Store
from hypercontainer.hypervisors.base import Machine
from hypercontainer.model.machine import Capabilities, Disk, Isolation, MachineConfig, Nic, NicKind
from hypercontainer.process import ProcessId, find_program

SLOTS = 16  # xvda to xvdp: names of one letter
HOTPLUG = Path(__file__).with_name("xen-hotplug")
KEEPER = "hypercontainer.hypervisors._xenkeeper"
INITRAMFS = "initramfs"
KERNEL = "kernel"
GUEST_TIMEOUT = 20.0  # seconds for a guest to see a change: its kernel is hostile, and may never
_VBD_MAJOR = 202  # include/uapi/linux/major.h of Linux; each disk has 16 numbers
_CONNECTED, _RECONFIGURING, _RECONFIGURED = "4", "7", "8"  # enum xenbus_state, public/io/xenbus.h


class XenMachine(VmmMachine):
    """A domain and its keeper."""

    async def wait(self) -> None:
        await super().wait()
        await _xl.destroy(self.run_dir)

    async def kill(self) -> None:
        await super().kill()
        await _xl.destroy(self.run_dir)

    async def pause(self) -> None:
        await _xl.xl("pause", str(self._domain()))

    async def resume(self) -> None:
        await _xl.xl("unpause", str(self._domain()))

    async def swap_disk(self, slot: int, disk: Disk | None) -> None:
        """Detach what the slot has, which waits for the guest to let it go, and attach another."""
        if not 0 <= slot < SLOTS:
            raise Unsupported(f"xen has {SLOTS} disk slots, and {slot} is asked")
        if disk and not disk.path.exists():
            raise HypervisorError(f"a machine's file is missing: {disk.path}")
        domain = self._domain()
        if _read(_state_of(domain, slot)) is not None:
            await _xl.xl("block-detach", str(domain), str(_device(slot)))
            await _until_seen(domain)
        if disk:
            check_disk(disk, Xen.capabilities.disk_formats)
            await _plug(domain, slot, disk)

    def _domain(self) -> int:
        domain = _xl.find(self.run_dir)
        if domain is None:
            raise HypervisorError("the machine has ended")
        return domain


async def _plug(domain: int, slot: int, disk: Disk) -> None:
    path, descriptor = _loops.attach(disk)
    try:
        await _xl.xl("block-attach", str(domain), _disk(slot, dataclasses.replace(disk, path=path)))
        await _until(_state_of(domain, slot), _CONNECTED)
    except TimeoutError as error:
        raise HypervisorError(f"the guest did not take the disk {disk.path}") from error
    finally:
        os.close(descriptor)


async def _until_seen(domain: int) -> None:
    """Until the guest has handled all that was changed in XenStore (hyper_xen_host_changed of hyper_xen.c).

    Else a disk that takes the place of another at once would be taken for that.
    """
    host, guest = f"/local/domain/{domain}/hyper/state", f"/local/domain/{domain}/device/hyper/0/state"
    try:
        for asked, answered in ((_RECONFIGURING, _RECONFIGURED), (_CONNECTED, _CONNECTED)):
            with Store() as store:
                store.write(host, asked)
            await _until(guest, answered)
    except TimeoutError as error:
        raise HypervisorError("the guest did not let go of a disk") from error


async def _until(path: str, value: str) -> None:
    """Until XenStore has ``value`` at ``path``; raises TimeoutError."""
    async with asyncio.timeout(GUEST_TIMEOUT):
        while _read(path) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _read(path: str) -> str | None:
    with Store() as store:
        return store.read(path)


def _state_of(domain: int, slot: int) -> str:
    """Where XenStore has how far the guest is with the slot's disk; nothing is there without one."""
    return f"/local/domain/{domain}/device/vbd/{_device(slot)}/state"


def _device(slot: int) -> int:
    return _VBD_MAJOR << 8 | slot * 16


class Xen(VmmHypervisor, name="xen", order=2):
    """Needs dom0, and root."""

    title = "Xen"
    capabilities: ClassVar = Capabilities(
        isolation=Isolation.HARDWARE,
        kernel="xen",
        max_vcpus=64,  # NR_CPUS of our kernel: Xen schedules them on the CPUs that there are
        min_memory_mib=48,
        disk_slots=SLOTS,
        nics=frozenset({NicKind.TAP}),
        pause=True,
        swap_disks=True,
    )

    async def missing(self, *, cache: Path) -> str | None:
        missing = _xl.host_missing() or _probe.kernel_missing(self, cache=cache)
        if missing or (missing := await _xl.version_missing()):
            return missing
        program = Path(find_program("xl", package=_xl.PACKAGE))
        config = _probe.machine_config(self, cache=cache)
        return await _verdict.boot_missing(self, config, subject="Xen", program=program, cache=cache)

    def command(self, config: MachineConfig, run_dir: Path) -> list[str]:
        taps = [nic.backend for nic in config.nics]
        name = _xl.name_of(run_dir)
        lines = [
            f'name = "{name}"',
            f'kernel = "{KERNEL}"',
            f'ramdisk = "{INITRAMFS}"',
            f'cmdline = "{" ".join(_arguments(config))}"',
            f"memory = {config.memory_mib}",
            f"vcpus = {config.vcpus}",
            *(f'{event} = "destroy"' for event in ("on_poweroff", "on_reboot", "on_crash")),
            'tsc_mode = "native"',
            _list("disk", [_disk(slot, disk) for slot, disk in enumerate(config.disks)]),
            _list("vif", [_vif(nic) for nic in config.nics]),
        ]
        return ["python3", "-S", "-m", KEEPER, name, *taps, "--", *lines]

    async def launch(self, config: MachineConfig, run_dir: Path) -> Machine:
        self._check(config)
        try:
            self._kind = "pvh" if await _xl.has_hardware() else "pv"
            with contextlib.ExitStack() as held:
                disks = tuple(_loop(disk, held) for disk in config.disks)
                return await super().launch(dataclasses.replace(config, disks=disks), run_dir)
        except BaseException:
            await asyncio.shield(_xl.destroy(run_dir))
            raise

    async def reattach(self, config: MachineConfig, run_dir: Path) -> Machine | None:
        machine = await super().reattach(config, run_dir)
        if machine is None:
            await _xl.destroy(run_dir)
        return machine

    async def end_strays(self, machines: Path, known: Collection[Path]) -> list[Path]:
        if not Path(SOCKET).exists() or not machines.is_dir():
            return []
        strays = [run_dir for run_dir in machines.iterdir() if run_dir not in known and _xl.find(run_dir)]
        for run_dir in strays:
            await _xl.destroy(run_dir)
        return strays

    def _prepare(self, config: MachineConfig, run_dir: Path) -> None:
        """Links, since xl's configuration cannot hold every path."""
        (run_dir / KERNEL).symlink_to(config.kernel.absolute())
        (run_dir / INITRAMFS).symlink_to(config.initramfs.absolute())

    def _start_command(self, config: MachineConfig, run_dir: Path) -> list[str]:
        command = self.command(config, run_dir)
        return [self._program(config), *command[1:], f'type = "{self._kind}"']

    def _settle(self, config: MachineConfig, run_dir: Path) -> None:
        """It has no share."""

    def _environment(self, config: MachineConfig) -> dict[str, str]:
        return {**_xl.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}

    def _machine_of(self, config: MachineConfig, run_dir: Path, process: ProcessId) -> VmmMachine:
        return XenMachine(config_id=config.id, run_dir=run_dir, process=process)

    async def _until_up(self, config: MachineConfig, run_dir: Path) -> None:
        while not (run_dir / _xenkeeper.READY).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def _program(self, config: MachineConfig) -> str:
        return sys.executable


def _loop(disk: Disk, held: contextlib.ExitStack) -> Disk:
    """The disk as a block device, which the domain's backend has opened when the launch is over."""
    path, descriptor = _loops.attach(disk)
    held.callback(os.close, descriptor)
    return dataclasses.replace(disk, path=path)


# --- The domain's configuration, part by part: xl.cfg(5), xl-disk-configuration(5) ---


def _arguments(config: MachineConfig) -> list[str]:
    """Without persistent grants, for which a guest keeps 4 MB of pages for each disk."""
    disks = "xen_blkfront.feature_persistent=0"
    ours = ("console=hvc0", "loglevel=2", "panic=-1", *X86_64_ARGUMENTS, disks)
    return [*ours, *config.kernel_arguments]


def _disk(slot: int, disk: Disk) -> str:
    access = "r" if disk.read_only else "w"
    options = f"format=raw,vdev=xvd{chr(ord('a') + slot)},access={access},backendtype=phy"
    return f"{options},script={HOTPLUG},target={disk.path}"  # the target is the last, and is not parsed


def _vif(nic: Nic) -> str:
    """The script finds the tap by what xl takes for a bridge's name."""
    return f"mac={nic.mac},bridge={nic.backend},script={HOTPLUG}"


def _list(name: str, values: list[str]) -> str:
    return f"{name} = [{', '.join(repr(value) for value in values)}]"
