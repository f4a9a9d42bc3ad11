"""Machines to test: their files, their start, and shell commands in them.

An outside driver runs the same promises: ``HYPER_TEST_DRIVERS=package.module make test`` imports the
modules named there (comma-separated), so that their drivers register themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hypercontainer.guest import boot
from hypercontainer.guest.agent import Agent, Process
from hypercontainer.guest.protocol import BecomeTemplate, SetUpPod, StartProcess, Stream
from hypercontainer.hypervisors.base import Hypervisor, Machine, drivers, load
from hypercontainer.model.machine import Disk, MachineConfig, Nic, NicKind, Share
from tests.support.processes import seen
from tests.support.waiting import PATIENCE_S

# On every machine that tests hyper; in a lane, the driver that it is made for (tools/lanes).
LANE = os.environ.get("HYPER_LANE")
MUST_RUN = frozenset({LANE}) if LANE else frozenset({"uml", "tcg", "namespace"})
MIB = 1 << 20
LARGE_MIB = 1 << 20  # more than a template is made of
COPIES = "-copies"  # behind the name of a driver whose machines are to be copies of a template

_numbers = itertools.count(1)

# The block device of slot $1, found as hyperstart finds it.
FIND_SLOT = """
slot() {
    target=/sys/bus/scsi/devices/0:0:$1:0
    if [ -e /sys/class/scsi_host/host0 ]; then
        [ -e $target ] || echo 0 $1 0 > /sys/class/scsi_host/host0/scan
        while [ -e $target ]; do
            for block in $target/block/*; do
                [ -e $block ] &&
                head -c 1 /dev/${block##*/} >/dev/null 2>&1 && { echo /dev/${block##*/}; return; }
            done
            sleep 0.01
        done
        return 1
    fi
    letter=$(echo abcdefghijklmnop | cut -c $(($1 + 1)))
    for _ in 1 2 3 4 5 6 7 8; do
        for name in ubd$letter xvd$letter; do
            [ -e /sys/block/$name ] && { echo /dev/$name; return; }
        done
        [ -e /sys/bus/xen/drivers/vbd ] || break
        sleep 0.1
    done
    return 1
}
# Forget what is known of slot $1, which may have another disk now.
forget() {
    target=/sys/bus/scsi/devices/0:0:$1:0
    [ ! -e $target ] || echo 1 > $target/delete
}
"""


def driver_names() -> list[str]:
    """Every driver that is known here, whether or not it can run."""
    for module in filter(None, os.environ.get("HYPER_TEST_DRIVERS", "").split(",")):
        importlib.import_module(module)
    return list(drivers())


@dataclass(kw_only=True)
class Place:
    """Where a test's machines live, and with what they start."""

    hypervisor: Hypervisor
    root: Path
    initramfs: Path
    templates: Path | None = None  # where they are kept; None: every machine boots
    machines: list[Machine] = field(default_factory=list)

    def config(
        self,
        *,
        disks: tuple[Disk, ...] = (),
        nics: tuple[Nic, ...] = (),
        shares: tuple[Share, ...] = (),
        vcpus: int = 1,
        memory_mib: int = 64,
    ) -> MachineConfig:
        target = self.hypervisor.capabilities.kernel
        return MachineConfig(
            id=f"m{next(_numbers)}",
            vcpus=vcpus,
            memory_mib=memory_mib,
            kernel=boot.find_kernel(target).path if target else self.initramfs,
            initramfs=self.initramfs,
            disks=disks,
            nics=nics,
            shares=shares,
        )

    def run_dir(self, name: str = "") -> Path:
        path = self.root / "machines" / (name or f"r{next(_numbers)}")
        path.mkdir(parents=True)
        return path

    async def launch(self, config: MachineConfig, run_dir: Path | None = None) -> Machine:
        if self.templates and config.kernel == self.config().kernel and config.memory_mib < LARGE_MIB:
            config = replace(config, template=await self.template(config))
        machine = await self.hypervisor.launch(config, run_dir or self.run_dir())
        self.machines.append(machine)
        return machine

    async def template(self, config: MachineConfig) -> Path:
        """Of the size of ``config``; made when there is none."""
        assert self.templates
        directory = self.templates / f"{config.vcpus}-{config.memory_mib}-{len(config.nics)}"
        if not (directory / "whole").exists():
            shutil.rmtree(directory, ignore_errors=True)  # whoever made it was cancelled
            directory.mkdir()
            machine = await self.hypervisor.launch(a_blank(config, directory), self.run_dir())
            try:
                async with await connected(machine) as agent:
                    await agent.request(BecomeTemplate())
                await machine.save()
                (directory / "whole").touch()
            finally:
                await machine.kill()
        return directory

    @contextlib.asynccontextmanager
    async def booted(self, config: MachineConfig | None = None) -> AsyncIterator[Booted]:
        """A machine whose hyperstart has answered; killed at the end of the block."""
        machine = await self.launch(config or self.config())
        try:
            async with await connected(machine) as agent:
                yield Booted(machine, agent)
        finally:
            await machine.kill()


def a_blank(config: MachineConfig, directory: Path) -> MachineConfig:
    """A machine like ``config`` that is to be saved in ``directory``."""
    nics = tuple(Nic(mac=nic.mac, kind=NicKind.NONE, backend="") for nic in config.nics)
    return replace(config, disks=(), shares=(), nics=nics, save_in=directory)


async def connected(machine: Machine, *, resume: Mapping[int, Mapping[Stream, int]] | None = None) -> Agent:
    """An agent of ``machine``; the deadline is generous, as test machines are slow."""
    async with asyncio.timeout(PATIENCE_S):
        return await Agent.connect(await machine.connect(), resume=resume)


@dataclass
class Booted:
    machine: Machine
    agent: Agent

    async def shell(self, script: str, *, stdin: bytes | None = None, user: str = "") -> bytes:
        """What ``script`` prints when a shell beside hyperstart runs it; fails when that fails."""
        status, output, errors = await self.shell_status(script, stdin=stdin, user=user)
        assert status == 0, (status, output[-200:], errors)
        return output

    async def shell_status(
        self, script: str, *, stdin: bytes | None = None, user: str = ""
    ) -> tuple[int, bytes, bytes]:
        process = await self.agent.start_process(a_shell(script, stdin=stdin is not None, user=user))
        collected = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        feeding = asyncio.ensure_future(_feed(process, stdin or b""))
        try:
            while (output := await process.read()) is not None:
                stream = Stream(output.stream)
                collected[stream] += output.data
                process.stored(stream, output.offset + len(output.data))
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        ended = await process.exited()
        await process.forget()
        return ended.status, bytes(collected[Stream.STDOUT]), bytes(collected[Stream.STDERR])


async def _feed(process: Process, data: bytes) -> None:
    await process.write(data)
    await process.write_end()


def set_up(name: str) -> SetUpPod:
    return SetUpPod(
        hostname=name,
        clock_ns=time.time_ns(),
        entropy=os.urandom(64),
        sysctls=(),
        shm_bytes=1 << 20,
        share_type="",
        share_options="",
    )


def a_shell(script: str, *, stdin: bool = False, user: str = "") -> StartProcess:
    return StartProcess(
        process=next(_numbers),
        container="",
        is_main=False,
        argv=("/bin/sh", "-c", FIND_SLOT + script),
        environment=("PATH=/bin",),
        working_directory="/",
        user=user,
        groups=(),
        terminal=False,
        rows=0,
        columns=0,
        stdin=stdin,
        limits=(),
        privileged=True,
        in_machine=False,
    )


def make_initramfs(directory: Path) -> Path:
    """The real one, and a busybox for the tests behind it: the kernel unpacks one after the other."""
    busybox = shutil.which("busybox")
    assert busybox, "the tests need a static busybox: apt-get install busybox-static"
    tree = directory / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    for name in (
        "sh",
        "cat",
        "cut",
        "dd",
        "sync",
        "sleep",
        "sha256sum",
        "wc",
        "head",
        "nproc",
        "date",
        "mknod",
        "ls",
        "mkdir",
        "chown",
        "rm",
        "mv",
        "ln",
        "stat",
        "umount",
    ):
        (tree / "bin" / name).symlink_to("busybox")
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        cwd=tree,
        input=names.encode(),
        check=True,
        capture_output=True,
    ).stdout
    initramfs = directory / "both.cpio"
    first = boot.make_initramfs(directory).read_bytes()
    initramfs.write_bytes(first + bytes(-len(first) % 4) + archive)  # the kernel wants it aligned
    return initramfs


def a_disk(path: Path, content: bytes, *, size: int = MIB, read_only: bool = False) -> Disk:
    path.write_bytes(content)
    os.truncate(path, size)
    return Disk(path=path, read_only=read_only)


def processes_of(run_dir: Path) -> list[int]:
    """Every process of the host, zombies apart, that was started for ``run_dir``, or one below it."""
    return [each.process.pid for each in seen() if Path(each.machine).is_relative_to(run_dir)]


def needs(condition: object, what: str) -> None:
    if not condition:
        pytest.skip(f"this driver has no {what}")


def has_disks(place: Place) -> bool:
    """Without a kernel there are no block devices: slots are mounted directories and images."""
    return bool(place.hypervisor.capabilities.kernel and place.hypervisor.capabilities.disk_slots)


def needs_disks(place: Place) -> None:
    needs(has_disks(place), "disk")


def load_driver(name: str) -> Hypervisor:
    driver_names()
    return load(name)
