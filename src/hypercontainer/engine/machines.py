"""Machines, whoever has them: what they are made of, and how their hyperstart is reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hypercontainer.config import Paths, Settings
from hypercontainer.engine.running import deadline
from hypercontainer.guest import boot
from hypercontainer.guest.agent import Agent
from hypercontainer.guest.protocol import Stream
from hypercontainer.hypervisors.base import Hypervisor, Machine
from hypercontainer.model.machine import Disk, MachineConfig, Nic, Share

_BOOT_TIMEOUT_S = 60.0


def config(
    name: str,
    driver: Hypervisor,
    paths: Paths,
    settings: Settings,
    *,
    vcpus: int,
    memory_mib: int,
    nics: tuple[Nic, ...] = (),
    disks: tuple[Disk, ...] = (),
    shares: tuple[Share, ...] = (),
) -> MachineConfig:
    """What a machine of ``driver`` is launched with.  Raises Unavailable when there is no kernel."""
    target = driver.capabilities.kernel
    return MachineConfig(
        id=name,
        vcpus=vcpus,
        memory_mib=memory_mib,
        kernel=boot.find_kernel(target, override=settings.kernel).path if target else Path(),
        initramfs=boot.make_initramfs(paths.cache),
        disks=disks,
        nics=nics,
        shares=shares,
        kernel_arguments=boot.KERNEL_ARGUMENTS,
    )


async def answer(machine: Machine, *, resume: Mapping[int, Mapping[Stream, int]] | None = None) -> Agent:
    """A connection to the machine's hyperstart, as long as it takes to boot; ``resume``: as Agent.connect."""
    async with deadline(_BOOT_TIMEOUT_S, "the guest did not answer"):
        channel = await machine.connect()
        return await Agent.connect(channel, resume=resume)
