"""What every driver promises (docs/drivers.md): what goes wrong is told, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest

from hypercontainer.errors import HyperError, HypervisorError, InvalidRequest, Unsupported
from hypercontainer.guest.protocol import Ping
from hypercontainer.hypervisors import _vmm
from hypercontainer.hypervisors._processes import START_TIMEOUT
from hypercontainer.model.machine import MachineConfig
from tests.hypervisors.machines import (
    Place,
    a_disk,
    connected,
    has_disks,
    needs,
    needs_disks,
    processes_of,
)
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.needs_machine


@pytest.mark.however_started
@pytest.mark.parametrize("kernel", ["text", "program", "empty", "missing"])
async def test_a_wrong_kernel_is_an_error_with_the_reason_and_leaves_nothing(
    place: Place, tmp_path: Path, kernel: str
) -> None:
    needs(place.hypervisor.capabilities.kernel, "kernel")
    path = tmp_path / "kernel"
    if kernel != "missing":
        content = {"text": b"no kernel\n" * 9999, "program": Path("/bin/false").read_bytes(), "empty": b""}
        path.write_bytes(content[kernel])
        path.chmod(0o755)
    config, run_dir = replaced(place.config(), kernel=path), place.run_dir()
    began = time.monotonic()
    with pytest.raises(HypervisorError) as caught:
        await place.launch(config, run_dir)
    assert time.monotonic() - began < START_TIMEOUT / 2  # it isn't waited for
    assert len(caught.value.message) > 20
    assert processes_of(run_dir) == []


async def test_a_missing_disk_is_an_error_that_names_it(place: Place, tmp_path: Path) -> None:
    needs_disks(place)
    disk = a_disk(tmp_path / "gone", b"")
    disk.path.unlink()
    run_dir = place.run_dir()
    with pytest.raises(HypervisorError, match="gone"):
        await place.launch(place.config(disks=(disk,)), run_dir)
    assert processes_of(run_dir) == []


@pytest.mark.however_started
async def test_more_than_the_driver_can_is_refused(place: Place, tmp_path: Path) -> None:
    can = place.hypervisor.capabilities
    needs(can.kernel, "limits")
    with pytest.raises(InvalidRequest):
        await place.launch(place.config(memory_mib=can.min_memory_mib - 1))
    with pytest.raises(Unsupported):
        await place.launch(place.config(vcpus=can.max_vcpus + 1))
    disk = a_disk(tmp_path / "disk", b"", read_only=True)
    with pytest.raises(Unsupported):
        await place.launch(place.config(disks=(disk,) * (can.disk_slots + 1)))


@pytest.mark.however_started
async def test_more_memory_than_the_host_has_is_an_error(place: Place) -> None:
    needs(place.hypervisor.capabilities.kernel, "memory of its own")
    run_dir = place.run_dir()
    with pytest.raises(HypervisorError):
        await place.launch(place.config(memory_mib=1 << 26), run_dir)
    assert processes_of(run_dir) == []


@pytest.mark.however_started
async def test_a_run_directory_with_a_long_odd_path_is_fine(place: Place) -> None:
    config, run_dir = place.config(), place.run_dir("x" * 120 + "/a,b c:d=e%/" + "y" * 120)
    machine = await place.launch(config, run_dir)
    async with await connected(machine) as agent:
        await agent.request(Ping())
    if place.hypervisor.capabilities.pause:
        await machine.pause()
        await machine.resume()
    again = await place.hypervisor.reattach(config, run_dir)
    assert again is not None
    await again.kill()


@pytest.mark.however_started
async def test_the_console_says_why_a_guest_died(place: Place) -> None:
    needs(place.hypervisor.capabilities.kernel, "console")
    async with place.booted() as booted:
        with contextlib.suppress(HyperError, TimeoutError):
            async with asyncio.timeout(10):
                await booted.shell("echo c > /proc/sysrq-trigger")
        async with asyncio.timeout(PATIENCE_S):
            await booted.machine.wait()
        assert "sysrq" in booted.machine.console().lower()


@pytest.mark.however_started
async def test_a_vmm_that_was_killed_is_told_from_one_that_ended(place: Place) -> None:
    async with place.booted() as booted:
        os.kill(booted.machine.process.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            await booted.machine.wait()
            while "was killed by signal 9" not in booted.machine.console():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_healthy_boot_says_nothing_on_the_console(place: Place, tmp_path: Path) -> None:
    disks = (a_disk(tmp_path / "disk", b""),) if has_disks(place) else ()
    async with place.booted(place.config(disks=disks)) as booted:
        assert booted.machine.console() == ""


@pytest.mark.however_started
async def test_a_guest_that_floods_its_console_does_not_fill_the_host(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(place.hypervisor.capabilities.kernel, "console")
    monkeypatch.setattr(_vmm, "CONSOLE_INTERVAL", 0.05)
    monkeypatch.setattr(_vmm, "CONSOLE_SIZE", 10_000)
    monkeypatch.setattr(_vmm, "CONSOLE_KEPT", 5_000)
    async with place.booted() as booted:
        waiting = asyncio.ensure_future(booted.machine.wait())
        console = booted.machine.run_dir / "console.log"
        await booted.shell("head -c 15000 /dev/zero > /dev/console; sleep 0.3; echo the end > /dev/console")
        async with asyncio.timeout(PATIENCE_S):
            while not (booted.machine.console().endswith("the end") and console.stat().st_size <= 10_000):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await booted.machine.kill()
        await waiting


def replaced(config: MachineConfig, *, kernel: Path) -> MachineConfig:
    return dataclasses.replace(config, kernel=kernel)
