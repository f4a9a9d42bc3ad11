"""What every driver promises (docs/drivers.md): a guest stands still, and an idle one costs little."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from hypercontainer.guest.protocol import Ping
from hypercontainer.hypervisors.base import Machine
from tests.hypervisors.machines import (
    Place,
    needs,
    processes_of,
)

pytestmark = pytest.mark.needs_machine


async def test_a_paused_guest_stands_still_and_goes_on(place: Place) -> None:
    needs(place.hypervisor.capabilities.pause, "pause")
    async with place.booted() as booted:
        await booted.machine.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await booted.agent.request(Ping())
        assert cpu_seconds(booted.machine, 0.5) < 0.1
        await booted.machine.resume()
        async with asyncio.timeout(10):
            await booted.agent.request(Ping())


async def test_a_paused_machine_can_be_killed(place: Place) -> None:
    needs(place.hypervisor.capabilities.pause, "pause")
    async with place.booted() as booted:
        await booted.machine.pause()
        await booted.machine.kill()
        assert processes_of(booted.machine.run_dir) == []


def cpu_seconds(machine: Machine, seconds: float) -> float:
    """CPU time that the machine's processes take in the next ``seconds``."""

    def used() -> int:
        total = 0
        for pid in processes_of(machine.run_dir):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    before = used()
    time.sleep(seconds)
    return (used() - before) / os.sysconf("SC_CLK_TCK")


async def test_an_idle_guest_takes_little_cpu(place: Place) -> None:
    async with place.booted() as booted:
        await asyncio.sleep(0.5)
        assert cpu_seconds(booted.machine, 2) < 0.5
