"""What a pod's start asks of a guest, done once before there is a pod, and undone.

A kernel does things for the first time only once: caches are filled, pages touched, and under emulation its
code is translated, which takes most of a start.  A machine that waits has the time for it.  What is left is
what ``replace`` leaves of a pod, too: a guest as after its boot.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tarfile
import time
from pathlib import Path

from hypercontainer.engine import messages
from hypercontainer.engine.running import deadline
from hypercontainer.guest import boot
from hypercontainer.guest.agent import Agent
from hypercontainer.guest.protocol import (
    CreateContainer,
    File,
    SetUpPod,
    Source,
    StartProcess,
    Stream,
    TearDownPod,
)
from hypercontainer.hypervisors.base import Machine
from hypercontainer.images import disks
from hypercontainer.images.layers import PlainLayer
from hypercontainer.images.work import Stop
from hypercontainer.model.image import digest_of
from hypercontainer.model.machine import Capabilities, Disk
from hypercontainer.model.network import Lease

_TIMEOUT_S = 60.0
_WRITABLE, _IMAGE = 0, 1  # slots
_NAME = "rehearsal"
_PROCESS = (1 << 32) - 1  # no pod has come so far


async def rehearse(
    machine: Machine,
    agent: Agent,
    capabilities: Capabilities,
    *,
    disk: Path,
    image: Path,
    lease: Lease | None,
) -> None:
    """``disk`` is a pod's writable one, not used by any; ``image`` is from ``make_image``."""
    async with deadline(_TIMEOUT_S, "the guest did not rehearse a pod's start"):
        await machine.swap_disk(_WRITABLE, Disk(path=disk, read_only=False))
        await machine.swap_disk(_IMAGE, Disk(path=image, read_only=True))
        nics = lease.nics if lease else ()
        await asyncio.gather(
            agent.request(_set_up(capabilities)),
            *(agent.request(messages.configure_nic(nic)) for nic in nics),
            agent.request(_container()),
        )
        process = await agent.start_process(_process())
        while (output := await process.read()) is not None:
            process.stored(Stream(output.stream), output.offset + len(output.data))
        await process.exited()
        await agent.forget(_PROCESS)
        await agent.request(TearDownPod())
        await machine.swap_disk(_WRITABLE, None)
        await machine.swap_disk(_IMAGE, None)


def make_image(stop: Stop, cache: Path) -> Path:
    """A disk as images have them, with hyperstart as its only program; kept in ``cache``."""
    hyperstart = boot.find_hyperstart()
    digest = hashlib.sha256(hyperstart.read_bytes()).hexdigest()[:12]
    path = cache / f"rehearsal-{digest}.squashfs"
    if path.exists():
        return path
    for old in cache.glob("rehearsal-*.squashfs"):
        old.unlink(missing_ok=True)
    layer, draft = cache / ".rehearsal.tar", cache / ".rehearsal.squashfs"
    try:
        with tarfile.open(layer, "w") as archive:
            archive.add(hyperstart, arcname="init")
        whole = PlainLayer(path=layer, size=layer.stat().st_size, diff_id=digest_of(layer.read_bytes()))
        disks.make(stop, [whole], draft)
        draft.replace(path)
    finally:
        layer.unlink(missing_ok=True)
    return path


def _set_up(capabilities: Capabilities) -> SetUpPod:
    return SetUpPod(
        hostname=_NAME,
        clock_ns=time.time_ns(),
        entropy=os.urandom(64),
        sysctls=(),
        shm_bytes=1 << 20,
        share_type=capabilities.share or "",
        share_options=capabilities.share_options,
    )


def _container() -> CreateContainer:
    return CreateContainer(
        container=_NAME,
        image=Source(_IMAGE, ""),
        writable=Source(_WRITABLE, _NAME),
        read_only=False,
        mounts=(),
        files=(File("/etc/hosts", 0o644, "", b""),),
        memory_bytes=0,
        cpu_millis=0,
        pids=0,
    )


def _process() -> StartProcess:
    return StartProcess(
        process=_PROCESS,
        container=_NAME,
        is_main=True,
        argv=("/init", "--nothing"),
        environment=(),
        working_directory="/",
        user="",
        groups=(),
        terminal=False,
        rows=24,
        columns=80,
        stdin=False,
        limits=(),
        privileged=False,
        in_machine=False,
    )
