"""Whether KVM really runs a guest here: a /dev/kvm proves nothing, so one is booted."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

from hypercontainer.errors import HyperError
from hypercontainer.files import write_atomically
from hypercontainer.hypervisors import _probe
from hypercontainer.hypervisors.base import Hypervisor
from hypercontainer.model.machine import MachineConfig

DEVICE = Path("/dev/kvm")
DEADLINE = 20.0  # seconds for the one boot: hardware takes a tenth of one, KVM on an emulated CPU several


def device_missing() -> str | None:
    """What can be seen without a boot."""
    if not DEVICE.exists():
        return "there is no /dev/kvm: hardware virtualization is off, or the kvm modules are not loaded"
    if not {"svm", "vmx"} & _cpu_flags():
        return "there is a /dev/kvm, but the CPU offers neither svm nor vmx"
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return "/dev/kvm is not readable and writable for this user: add it to the group kvm"
    return None


def _cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split())
    return set()


async def boot_missing(
    hypervisor: Hypervisor, config: MachineConfig, *, program: Path, cache: Path
) -> str | None:
    """Why ``config`` does not boot; remembered for this boot of the host, this kernel and this QEMU."""
    note = cache / f"kvm-{_key(config.kernel, program)}"
    try:
        return note.read_text() or None
    except OSError:
        verdict = await _boot(hypervisor, config, cache=cache)
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob("kvm-*"):
        old.unlink(missing_ok=True)
    write_atomically(note, verdict.encode())
    return verdict or None


async def _boot(hypervisor: Hypervisor, config: MachineConfig, *, cache: Path) -> str:
    try:
        async with asyncio.timeout(DEADLINE):
            await _probe.boot_time(hypervisor, config, cache=cache)
    except TimeoutError:
        return f"/dev/kvm exists, but a guest did not come up in {DEADLINE:.0f} s"
    except HyperError as error:
        return f"/dev/kvm exists, but a guest did not start: {error.message}"
    return ""


def _key(*files: Path) -> str:
    """Of this boot of the host and of the contents that a boot depends on."""
    key = hashlib.sha256(Path("/proc/sys/kernel/random/boot_id").read_bytes())
    for file in files:
        state = file.stat()
        key.update(f"{file}:{state.st_size}:{state.st_mtime_ns}:{state.st_ino}\n".encode())
    return key.hexdigest()[:24]
