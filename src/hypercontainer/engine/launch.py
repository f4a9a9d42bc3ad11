"""From a pod's record to a machine of its own: lease, NIC, disks, VMM, and hyperstart's answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from hypercontainer.engine import machines, mounting, network, slots, volumes
from hypercontainer.engine.pod import Pod
from hypercontainer.errors import Unavailable
from hypercontainer.guest.agent import Agent
from hypercontainer.guest.protocol import Stream
from hypercontainer.hypervisors.base import Hypervisor, Machine
from hypercontainer.model.machine import Disk, MachineConfig, Nic


async def prepare(pod: Pod) -> Hypervisor:
    """What a pod without a machine needs before it gets one; returns its driver."""
    driver = await usable_driver(pod)
    mounting.prepare(pod, mounting.mounts_of(pod))
    return driver


async def launch(pod: Pod, driver: Hypervisor) -> Machine:
    """Start the VMM of a pod that has none, and is prepared."""
    limit = driver.capabilities.disk_slots
    pod.decide(
        machine=secrets.token_hex(6),
        next_process=1,
        started=time.time(),
        slots=slots.assign((), wanted_disks(pod), limit=limit),
    )
    await network.take_lease(pod)
    nics = await network.attach(pod, driver)
    pod.timeline.mark("network attached")
    machine = await launch_machine(pod, driver, nics)
    pod.timeline.mark("VMM launched")
    return machine


async def launch_machine(pod: Pod, driver: Hypervisor, nics: tuple[Nic, ...]) -> Machine:
    """The machine that the record names, with the disks that it says."""
    config = await _machine_config(pod, driver, nics)
    pod.timeline.mark("disks ready")
    pod.run_dir.mkdir(parents=True, mode=0o700)
    return await pod.host.templates.launch(driver, config, pod.run_dir)


async def connect(pod: Pod, machine: Machine) -> Agent:
    """Wait for hyperstart's answer, as long as the guest takes to boot."""
    agent = await machines.answer(machine, resume=_stored(pod))
    pod.timeline.meet(agent.welcome)
    pod.timeline.mark("hyperstart answered")
    return agent


async def reattach(pod: Pod) -> Machine | None:
    """The machine that an earlier daemon launched for this pod, if it lives."""
    if not pod.record.machine or not pod.run_dir.is_dir():
        return None
    driver = pod.host.drivers.get(pod.record.hypervisor)
    config = MachineConfig(
        id=pod.record.machine,
        vcpus=pod.record.spec.vcpus,
        memory_mib=pod.record.spec.memory_mib,
        kernel=Path(),
        initramfs=Path(),
    )
    return await driver.reattach(config, pod.run_dir)


async def usable_driver(pod: Pod) -> Hypervisor:
    """The driver of the record, verified again: hosts change."""
    driver = pod.host.drivers.get(pod.record.hypervisor)
    if (reason := await pod.host.drivers.missing(driver)) is not None:
        raise Unavailable(f"hypervisor {driver.name} cannot run here: {reason}", hint="see hyper doctor")
    return driver


async def _machine_config(pod: Pod, driver: Hypervisor, nics: tuple[Nic, ...]) -> MachineConfig:
    """What the pod's record says of its machine."""
    return machines.config(
        pod.record.machine,
        driver,
        pod.host.paths,
        pod.host.settings,
        vcpus=pod.record.spec.vcpus,
        memory_mib=pod.record.spec.memory_mib,
        nics=nics,
        disks=tuple([await disk(pod, key) for key in pod.record.slots]),
        shares=mounting.shares(pod),
    )


def wanted_disks(pod: Pod) -> list[str]:
    """The keys of the disks that its containers need, beside the pod's own."""
    return [*(c.record.image_id for c in pod.containers), *mounting.disk_keys(pod)]


async def disk(pod: Pod, key: str) -> Disk:
    """The backing of the slot that has ``key``."""
    if key == slots.POD:
        return Disk(path=pod.disk, read_only=False)
    if (volume := mounting.disk(pod, key)) is not None:
        return volume
    return Disk(path=await pod.host.images.disk(pod.host.images.get(key)), read_only=True)


async def swap(pod: Pod, machine: Machine, changes: Mapping[int, str]) -> None:
    """Put what the pod wants into slots of a running machine, none of which the guest has mounted.

    With volumes all are emptied first: a file that is in another slot yet cannot be opened anew.
    """
    disks = {slot: await disk(pod, key) if key else None for slot, key in changes.items()}
    if any(volumes.is_slot_key(key) for key in changes.values()):
        for slot in disks:
            await machine.swap_disk(slot, None)
    for slot, backing in disks.items():
        await machine.swap_disk(slot, backing)


def _stored(pod: Pod) -> dict[int, dict[Stream, int]]:
    """How far each process's output is stored, for a guest that may have more of it."""
    stored = {c.record.process.number: c.log.offsets for c in pod.containers}
    return stored | pod.execs.stored()
