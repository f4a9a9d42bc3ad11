"""Boot a machine once and see: whether a driver really works here, and how fast it is."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from hypercontainer.errors import HypervisorError, Unavailable
from hypercontainer.files import remove_tree
from hypercontainer.guest import wire
from hypercontainer.guest.protocol import PROTOCOL_VERSION, Hello, Welcome
from hypercontainer.hypervisors.base import Hypervisor, Machine, end_orphans
from hypercontainer.model.machine import MachineConfig

MEMORY_MIB = 64  # of the probing machine

_one_at_a_time = asyncio.Lock()


def machine_config(hypervisor: Hypervisor, *, cache: Path) -> MachineConfig:
    """The least machine of ``hypervisor``; raises Unavailable when its kernel is not there."""
    from hypercontainer.guest import boot

    return MachineConfig(
        id="probe",
        vcpus=1,
        memory_mib=MEMORY_MIB,
        kernel=boot.find_kernel(hypervisor.capabilities.kernel).path,
        initramfs=boot.make_initramfs(cache),
    )


def kernel_missing(hypervisor: Hypervisor, *, cache: Path) -> str | None:
    """Why there is nothing to boot."""
    try:
        machine_config(hypervisor, cache=cache)
    except Unavailable as error:
        return f"{error.message}: {error.hint}" if error.hint else error.message
    return None


async def boot_time(hypervisor: Hypervisor, config: MachineConfig, *, cache: Path) -> float:
    """Seconds from the launch to hyperstart's Welcome.  The caller sets the deadline."""
    async with _one_at_a_time, _run_dir(cache) as run_dir:
        began = time.monotonic()
        machine = await hypervisor.launch(config, run_dir)
        try:
            await greet(machine)
            return time.monotonic() - began
        finally:
            await asyncio.shield(machine.kill())


async def greet(machine: Machine) -> Welcome:
    """Hello to Welcome on a connection of its own, closed again."""
    channel = await machine.connect()
    try:
        session = secrets.randbits(64)
        channel.writer.write(wire.encode(Hello(PROTOCOL_VERSION, session), 1))
        parser = wire.FrameParser()
        while data := await channel.reader.read(1 << 16):
            for message, _ in parser.feed(data):
                if isinstance(message, Welcome) and message.session == session:
                    return message
    except OSError:
        pass
    finally:
        channel.writer.close()
    raise HypervisorError(f"the machine ended before hyperstart answered: {machine.console()[-300:]}")


@contextlib.asynccontextmanager
async def _run_dir(cache: Path) -> AsyncIterator[Path]:
    """A run directory below ``cache``; what a daemon that died in a probe left there is ended."""
    probes = cache / "probes"
    await end_orphans(probes, ())
    remove_tree(probes)
    probes.mkdir(parents=True)
    try:
        yield Path(tempfile.mkdtemp(dir=probes))
    finally:
        remove_tree(probes)
