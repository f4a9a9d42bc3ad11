"""Whether a hypervisor really runs a guest here: a device file proves nothing, so one is booted, once."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from hypercontainer.errors import HyperError
from hypercontainer.files import identity, write_atomically
from hypercontainer.hypervisors import _probe
from hypercontainer.hypervisors.base import BOOT_ID, Hypervisor
from hypercontainer.model.machine import MachineConfig

DEADLINE = 20.0  # seconds for the one boot: hardware takes a tenth of one, an emulated CPU several


async def boot_missing(
    hypervisor: Hypervisor, config: MachineConfig, *, subject: str, program: Path, cache: Path
) -> str | None:
    """Why ``config`` does not boot although ``subject`` exists.

    Remembered for this boot of the host, this kernel and this ``program`` that starts machines.
    """
    note = cache / f"{hypervisor.name}-{_key(config.kernel, program)}"
    try:
        return note.read_text() or None
    except OSError:
        verdict = await _boot(hypervisor, config, subject=subject, cache=cache)
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob(f"{hypervisor.name}-*"):
        old.unlink(missing_ok=True)
    write_atomically(note, verdict.encode())
    return verdict or None


async def _boot(hypervisor: Hypervisor, config: MachineConfig, *, subject: str, cache: Path) -> str:
    try:
        async with asyncio.timeout(DEADLINE):
            await _probe.boot_time(hypervisor, config, cache=cache)
    except TimeoutError:
        return f"{subject} exists, but a guest did not come up in {DEADLINE:.0f} s"
    except HyperError as error:
        return f"{subject} exists, but a guest did not start: {error.message}"
    return ""


def _key(*files: Path) -> str:
    """Of this boot of the host and of the contents that a boot depends on."""
    told = [BOOT_ID.read_text(), *(identity(file) for file in files)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:24]
