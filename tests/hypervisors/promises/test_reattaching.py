"""What every driver promises (docs/drivers.md): the next daemon finds its machines, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.guest.protocol import Ping
from hypercontainer.hypervisors.base import end_orphans
from hypercontainer.model.machine import MachineConfig
from hypercontainer.process import ProcessId
from tests.hypervisors.machines import (
    Place,
    connected,
    processes_of,
)

pytestmark = pytest.mark.needs_machine


async def test_another_daemon_reattaches(place: Place) -> None:
    config = place.config()
    machine = await place.launch(config)
    async with await connected(machine) as agent:
        started = agent.welcome.started_ns
    again = await place.hypervisor.reattach(config, machine.run_dir)
    assert again is not None
    async with await connected(again) as agent:
        assert agent.welcome.started_ns == started
    waiting = asyncio.ensure_future(again.wait())
    await again.kill()
    await waiting
    assert await place.hypervisor.reattach(config, machine.run_dir) is None


@pytest.mark.however_started
async def test_a_pid_that_another_process_has_now_is_not_the_machine(place: Place) -> None:
    config, run_dir = place.config(), place.run_dir()
    stranger = ProcessId.of(os.getpid())
    assert stranger is not None
    (run_dir / "machine.json").write_text(json.dumps({"pid": stranger.pid, "start_time": 1}))
    assert await place.hypervisor.reattach(config, run_dir) is None
    for nonsense in (b"", b"{", b"[]", b'{"pid": "x"}', b'{"pid": -1, "start_time": 0}'):
        (run_dir / "machine.json").write_bytes(nonsense)
        assert await place.hypervisor.reattach(config, run_dir) is None


LAUNCHER = """
import asyncio, os, sys
from pathlib import Path
from typing import NamedTuple
from hypercontainer.hypervisors.base import load
from hypercontainer.model.machine import MachineConfig
from tests.hypervisors import peer
from tests.hypervisors.machines import driver_names

async def main(name, kernel, initramfs, run_dir):
    driver_names()
    config = MachineConfig(
        id="m", vcpus=1, memory_mib=64, kernel=Path(kernel), initramfs=Path(initramfs))
    await load(name).launch(config, Path(run_dir))
    print("launched", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def launched_elsewhere(place: Place, config: MachineConfig, run_dir: Path) -> AsyncIterator[None]:
    """A machine whose launcher is a process of its own, and is killed."""
    name = place.hypervisor.name
    launcher = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LAUNCHER, name, config.kernel, config.initramfs, run_dir),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert launcher.stdout
    assert await launcher.stdout.readline() == b"launched\n"
    os.killpg(launcher.pid, signal.SIGKILL)
    await launcher.wait()
    yield


@pytest.mark.however_started
async def test_the_machine_survives_a_launcher_that_is_killed_with_its_group(place: Place) -> None:
    config, run_dir = place.config(), place.run_dir()
    async with launched_elsewhere(place, config, run_dir):
        machine = await place.hypervisor.reattach(config, run_dir)
        assert machine is not None
        place.machines.append(machine)
        async with await connected(machine) as agent:
            await agent.request(Ping())
        await machine.kill()
        assert processes_of(run_dir) == []


@pytest.mark.however_started
async def test_a_machine_without_a_record_is_found_and_ended(place: Place) -> None:
    config, run_dir = place.config(), place.run_dir()
    known = await place.launch(place.config())
    async with launched_elsewhere(place, config, run_dir):
        (run_dir / "machine.json").unlink()
        assert await end_orphans(run_dir.parent, [known.run_dir]) == [run_dir]
    assert processes_of(run_dir) == []
    assert known.process.is_alive()
