"""Machines saved with their memory, and their copies: what these share, and what no two may have."""

from __future__ import annotations

import os
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from hypercontainer.errors import GuestError, HypervisorError, Unsupported
from hypercontainer.guest.protocol import BecomeTemplate
from hypercontainer.hypervisors.base import load
from hypercontainer.model.machine import Disk, MachineConfig, Nic, NicKind, Share
from tests.hypervisors.conftest import ways
from tests.hypervisors.machines import COPIES, Booted, Place, a_blank, connected, processes_of, set_up

pytestmark = [
    pytest.mark.needs_machine,
    pytest.mark.parametrize("driver", [way for way in ways() if way.endswith(COPIES)], indirect=True),
]

MANY = int(os.environ.get("HYPER_COPIES", "6"))
RANDOM = "/proc/sys/kernel/random"
OWN = f"head -c 32 /dev/urandom | sha256sum; cat {RANDOM}/boot_id {RANDOM}/uuid"


def a_nic(number: int) -> Nic:
    return Nic(mac=f"02:00:00:00:01:{number:02x}", kind=NicKind.NONE, backend="")


async def macs(booted: Booted) -> list[str]:
    """Of its virtio NICs; those of the kernel itself have no device."""
    found = await booted.shell("for nic in /sys/class/net/*/device; do cat ${nic%device}address; done")
    return found.decode().split()


# --- What is a copy's own ---


async def test_no_two_copies_have_anything_of_their_own_in_common(place: Place) -> None:
    seen = list[bytes]()
    for number in range(MANY):
        async with place.booted(place.config(nics=(a_nic(number),))) as copy:
            await copy.agent.request(set_up(f"pod-{number}"))
            seen += (await copy.shell(OWN)).split()
            assert await macs(copy) == [a_nic(number).mac]
    own = [word for word in seen if word != b"-"]
    assert len(own) == len(set(own)) == 3 * MANY


async def test_a_copy_has_the_hosts_time_and_its_own_clock_goes_on(place: Place) -> None:
    async with place.booted() as copy:
        asked = time.time()
        await copy.agent.request(set_up("late"))
        now = int(await copy.shell("date +%s"))
        assert int(asked) <= now <= time.time() + 1
        before, after = [float((await copy.shell("cat /proc/uptime")).split()[0]) for _ in range(2)]
        assert 0 < before <= after < 60


async def test_a_copys_time_begins_when_it_is_first_asked(place: Place) -> None:
    machine = await place.launch(place.config())
    async with await connected(machine) as agent:
        started, now = agent.welcome.started_ns, agent.welcome.now_ns
    assert 0 <= now - started < 1e9
    async with await connected(machine) as agent:
        assert agent.welcome.started_ns == started


async def test_copies_see_nothing_of_one_another_and_leave_the_template_as_it_was(place: Place) -> None:
    config = place.config()
    template = await place.template(config)
    before = checksums(template)
    async with place.booted(config) as one, place.booted(config) as other:
        await one.shell("head -c 1000000 /dev/urandom > /mark")
        status, _, _ = await other.shell_status("cat /mark")
        assert status != 0
    assert checksums(template) == before


def checksums(template: Path) -> list[int]:
    return [zlib.crc32((template / name).read_bytes()) for name in ("memory", "state")]


# --- What goes wrong ---


async def test_a_machine_with_a_pod_becomes_no_template(place: Place) -> None:
    async with place.booted() as copy:
        await copy.agent.request(set_up("taken"))
        with pytest.raises(GuestError, match="pod"):
            await copy.agent.request(BecomeTemplate())


async def test_a_machine_that_was_not_started_for_it_is_not_saved(place: Place) -> None:
    machine = await place.launch(place.config())
    with pytest.raises(Unsupported):
        await machine.save()


@pytest.mark.parametrize("file", ["state", "memory"])
@pytest.mark.parametrize("size", [None, 0, 20000])
async def test_a_template_that_is_not_whole_is_an_error_and_leaves_nothing(
    place: Place, tmp_path: Path, file: str, size: int | None
) -> None:
    config, run_dir = place.config(), place.run_dir()
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (await place.template(config)).iterdir():
        (broken / path.name).symlink_to(path)
    (broken / file).unlink()
    if size is not None:
        (broken / file).write_bytes((await place.template(config) / file).read_bytes()[:size])
    with pytest.raises(HypervisorError):
        await place.hypervisor.launch(replace(config, template=broken), run_dir)
    assert processes_of(run_dir) == []


async def test_a_save_that_finds_no_room_says_so_and_the_machine_can_be_ended(
    place: Place, tmp_path: Path
) -> None:
    directory = tmp_path / "template"
    directory.mkdir()
    (directory / "state").symlink_to("/dev/full")
    machine = await place.hypervisor.launch(a_blank(place.config(), directory), place.run_dir())
    place.machines.append(machine)
    async with await connected(machine) as agent:
        await agent.request(BecomeTemplate())
    with pytest.raises(HypervisorError):
        await machine.save()
    await machine.kill()
    assert processes_of(machine.run_dir) == []


# --- What makes a template another ---


def changed(config: MachineConfig, tmp_path: Path) -> dict[str, MachineConfig]:
    other = tmp_path / "other"
    other.write_bytes(config.initramfs.read_bytes())
    return {
        "vcpus": replace(config, vcpus=2),
        "memory": replace(config, memory_mib=96),
        "a NIC": replace(config, nics=(a_nic(1),)),
        "kernel": replace(config, kernel=other),
        "initramfs": replace(config, initramfs=other),
        "command line": replace(config, kernel_arguments=("quiet",)),
    }


async def test_machines_of_one_template_differ_in_what_it_has_not(place: Place, tmp_path: Path) -> None:
    driver, config = load(place.hypervisor.name), place.config(nics=(a_nic(1),))
    tap = Nic(mac="02:00:00:00:00:09", kind=NicKind.TAP, backend="hyper0.9")
    another = replace(
        config,
        id="another",
        nics=(tap,),
        disks=(Disk(path=tmp_path / "disk", read_only=True),),
        shares=(Share(name="s", path=tmp_path, read_only=True),),
    )
    assert driver.inputs(another) == driver.inputs(config)


async def test_a_template_is_of_one_size_and_one_kernel(place: Place, tmp_path: Path) -> None:
    driver, config = load(place.hypervisor.name), place.config()
    inputs = [driver.inputs(each) for each in (config, *changed(config, tmp_path).values())]
    assert len({tuple(each) for each in inputs}) == len(inputs)
    config.initramfs.touch()
    assert driver.inputs(config) != inputs[0]
