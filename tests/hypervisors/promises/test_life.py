"""What every driver promises (docs/drivers.md): a machine begins and ends, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.guest.protocol import ShutDown
from tests.hypervisors.machines import (
    Booted,
    Place,
    connected,
    needs,
    processes_of,
)
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs_machine


async def test_a_machine_boots_and_hyperstart_answers(place: Place) -> None:
    async with place.booted() as booted:
        assert booted.agent.welcome.kernel_release
        assert not booted.agent.welcome.has_pod


async def test_the_least_memory_is_enough_to_boot_and_run_a_process(place: Place) -> None:
    least = place.hypervisor.capabilities.min_memory_mib
    async with place.booted(place.config(memory_mib=least)) as booted:
        assert await booted.shell("echo alive") == b"alive\n"


async def test_two_machines_run_at_once_and_stay_apart(place: Place) -> None:
    async with place.booted() as one, place.booted() as two:
        await one.shell("echo one > /mark")
        status, _, _ = await two.shell_status("cat /mark")
        assert status != 0
        await one.machine.kill()
        assert await two.shell("echo still here") == b"still here\n"


async def test_as_many_cpus_as_asked(place: Place) -> None:
    needs(place.hypervisor.capabilities.max_vcpus > 1, "second CPU")
    async with place.booted(place.config(vcpus=2)) as booted:
        assert await booted.shell("nproc") == b"2\n"


async def test_a_guest_that_shuts_down_ends_its_machine(place: Place) -> None:
    async with place.booted() as booted:
        with contextlib.suppress(HyperError):
            await booted.agent.request(ShutDown())
        async with asyncio.timeout(PATIENCE_S):
            await booted.machine.wait()
        assert processes_of(booted.machine.run_dir) == []


async def test_kill_leaves_no_process_and_no_file_elsewhere(place: Place) -> None:
    before = outside_files()
    machine = await place.launch(place.config())
    async with await connected(machine):
        assert processes_of(machine.run_dir)
    await machine.kill()
    assert processes_of(machine.run_dir) == []
    until(lambda: outside_files() <= before)  # another's UML unlinks its file as soon as it has it open
    await machine.kill()  # one that has ended is no error


async def test_wait_returns_when_the_machine_is_killed(place: Place) -> None:
    machine = await place.launch(place.config())
    waiting = asyncio.ensure_future(machine.wait())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await machine.kill()
    async with asyncio.timeout(PATIENCE_S):
        await waiting


@pytest.mark.however_started
async def test_a_vmm_killed_from_outside_ends_the_wait_and_leaves_no_helper(place: Place) -> None:
    async with place.booted() as booted:
        os.kill(booted.machine.process.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            await booted.machine.wait()
        assert processes_of(booted.machine.run_dir) == []


@pytest.mark.however_started
async def test_no_zombie_stays_with_the_launcher(place: Place) -> None:
    machine = await place.launch(place.config())
    await machine.kill()
    async with asyncio.timeout(PATIENCE_S):
        while Path(f"/proc/{machine.process.pid}").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_launch_that_is_cancelled_leaves_nothing(place: Place) -> None:
    if place.templates:
        await place.template(place.config())
    for delay in (0.0, 0.002, 0.01, 0.05):
        run_dir = place.run_dir()
        launch = asyncio.ensure_future(place.launch(place.config(), run_dir))
        await asyncio.sleep(delay)
        launch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await launch).kill()  # it was faster
        assert processes_of(run_dir) == []


async def test_a_guest_has_a_good_clock(place: Place) -> None:
    async with place.booted() as booted:
        first = await uptime(booted)
        await asyncio.sleep(2)
        last = await uptime(booted)
        least, most = last.asked - first.answered, last.answered - first.asked
        assert least - 0.1 <= last.seconds - first.seconds <= most + 0.1
        sources = await booted.shell("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
        assert b"jiffies" not in sources  # a clock that steps by 10 ms


class Uptime(NamedTuple):
    """Of a guest, and when it was asked by the host's clock: a slow host takes long to be answered."""

    asked: float
    seconds: float
    answered: float


async def uptime(booted: Booted) -> Uptime:
    asked = time.monotonic()
    seconds = float((await booted.shell("cat /proc/uptime")).split()[0])
    return Uptime(asked, seconds, time.monotonic())


def outside_files() -> set[str]:
    """What UML or QEMU might leave outside the run directory."""
    patterns = ("/dev/shm/*", "/tmp/vm_file*", "/tmp/qemu*", "/var/tmp/vl.*", str(Path.home() / ".uml*"))
    return {str(path) for pattern in patterns for path in Path("/").glob(pattern.lstrip("/"))}
