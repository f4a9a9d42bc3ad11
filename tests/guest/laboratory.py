"""A pod without a VM: the real hyperstart under the namespace driver, and words to talk to it.

The image is a busybox; what containers write goes to a directory of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.guest import boot
from hypercontainer.guest.agent import Agent, Process
from hypercontainer.guest.protocol import (
    NO_SLOT,
    CreateContainer,
    Exited,
    File,
    Mount,
    ResourceLimit,
    Setting,
    SetUpPod,
    Source,
    StartArchive,
    StartProcess,
    Stream,
)
from hypercontainer.hypervisors.base import Machine
from hypercontainer.hypervisors.namespace import Namespace
from hypercontainer.model.machine import Disk, MachineConfig
from tests.support.waiting import PATIENCE_S

HYPERSTART = Path(__file__).parents[2] / "guest/hyperstart"
POD_SLOT = 0
IMAGE_SLOT = 1
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1000:Joe:/home/joe:/bin/sh\n"
GROUP = "root:x:0:\nwheel:x:10:joe,ann\njoe:x:1000:\naudio:x:63:joe\n"


# One user of a user namespace is all that others than root have, and no cgroups of their own.
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="not on this host: as root only")

_numbers = itertools.count(1)


# --- What is needed ---


def build(target: str) -> Path:
    """One worker builds, and the others wait for it: a program that is half written would be packed."""
    with (HYPERSTART / "Makefile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "-C", str(HYPERSTART), target], check=True)
    return HYPERSTART / target


def libraries(program: Path) -> list[Path]:
    """What a dynamic program needs to start: only the sanitized one is dynamic."""
    listing = subprocess.run(["ldd", str(program)], env={"LC_ALL": "C"}, capture_output=True, text=True)
    if "not a dynamic executable" in listing.stderr:
        return []
    assert listing.returncode == 0, listing.stderr
    return [Path(name) for name in re.findall(r"(/\S+) \(0x", listing.stdout)]


def make_initramfs(hyperstart: Path, directory: Path) -> Path:
    """As the machine's, and the libraries behind it: the kernel and the driver unpack one after the other."""
    tree = directory / "tree"
    for library in libraries(hyperstart):
        copy = tree / str(library).lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, copy)
    path = directory / "initramfs.cpio"
    path.write_bytes(boot.pack(hyperstart.read_bytes()) + archive(tree))
    return path


def archive(tree: Path) -> bytes:
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    if not names:
        return b""
    command = ["cpio", "-o", "-H", "newc", "--quiet"]
    return subprocess.run(command, cwd=tree, input=names.encode(), check=True, capture_output=True).stdout


def make_image(root: Path) -> Path:
    """A root file system: busybox, users, and no more."""
    busybox = shutil.which("busybox")
    assert busybox, "the tests need a static busybox: apt-get install busybox-static"
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(busybox, root / "bin/busybox")
    for name in subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True
    ).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "bin/not-executable").write_text("#!/bin/sh\n")
    (root / "bin/wrong-format").write_bytes(b"\x7fELF, or so it says")
    (root / "bin/wrong-format").chmod(0o755)
    return root


# --- A machine with a pod ---


@dataclass
class Result:
    """What a process left behind."""

    status: int
    output: bytes
    errors: bytes
    exited: Exited

    @property
    def lines(self) -> list[str]:
        return self.output.decode().splitlines()


@dataclass
class Pod:
    """A machine under test; ``agent`` is the present connection."""

    machine: Machine
    agent: Agent
    writable: Path
    containers: list[str] = field(default_factory=list)

    async def set_up(
        self,
        *,
        hostname: str = "pod",
        sysctls: Sequence[Setting] = (),
        share_type: str = "",
        share_options: str = "",
    ) -> None:
        await self.agent.request(
            SetUpPod(
                hostname=hostname,
                clock_ns=time.time_ns(),
                entropy=os.urandom(32),
                sysctls=tuple(sysctls),
                shm_bytes=1 << 20,
                share_type=share_type,
                share_options=share_options,
            )
        )

    async def create(
        self,
        name: str = "c1",
        *,
        image: Source = Source(IMAGE_SLOT, ""),  # noqa: B008
        writable: Source | None = None,
        read_only: bool = False,
        mounts: Sequence[Mount] = (),
        files: Sequence[File] = (),
        memory_bytes: int = 0,
        cpu_millis: int = 0,
        pids: int = 0,
    ) -> str:
        await self.agent.request(
            CreateContainer(
                container=name,
                image=image,
                writable=writable or Source(POD_SLOT, name),
                read_only=read_only,
                mounts=tuple(mounts),
                files=tuple(files),
                memory_bytes=memory_bytes,
                cpu_millis=cpu_millis,
                pids=pids,
            )
        )
        return name

    async def start(self, *argv: str, container: str = "c1", **options: Any) -> Process:
        return await self.agent.start_process(a_process(*argv, container=container, **options))

    async def run(
        self, *argv: str, stdin: bytes | None = None, container: str = "c1", **options: Any
    ) -> Result:
        """Start a process, feed it, and wait for its end."""
        process = await self.start(*argv, container=container, stdin=stdin is not None, **options)
        feeding = asyncio.ensure_future(feed(process, stdin)) if stdin is not None else None
        try:
            return await finish(process)
        finally:
            if feeding:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

    async def shell(self, script: str, **options: Any) -> Result:
        return await self.run("sh", "-c", script, **options)

    async def output(self, script: str, **options: Any) -> str:
        """What ``script`` prints; it must succeed."""
        result = await self.shell(script, **options)
        assert result.status == 0, result
        return result.output.decode()

    async def pack(self, path: str, *, container: str = "c1", follow: bool = False) -> Result:
        """The tar stream of ``path`` as ``output``."""
        message = StartArchive(next(_numbers), container, path, False, follow, False)
        return await finish(await self.agent.start_process(message))

    async def unpack(
        self, path: str, tar: bytes, *, container: str = "c1", keep_owners: bool = True
    ) -> Result:
        message = StartArchive(next(_numbers), container, path, True, False, keep_owners)
        process = await self.agent.start_process(message)
        feeding = asyncio.ensure_future(feed(process, tar))
        try:
            return await finish(process)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    def hyperstart_pid(self) -> int:
        """As the host counts: the child of the driver's unshare."""
        leader = self.machine.process.pid
        children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    async def reconnect(self, **options: Any) -> None:
        """As a new hyperd does."""
        await self.agent.close()
        self.agent = await connect(self.machine, **options)


def a_process(*argv: str, container: str = "c1", **options: Any) -> StartProcess:
    fields: dict[str, Any] = {
        "process": next(_numbers),
        "container": container,
        "is_main": False,
        "argv": argv,
        "environment": (PATH,),
        "working_directory": "/",
        "user": "",
        "groups": (),
        "terminal": False,
        "rows": 0,
        "columns": 0,
        "stdin": False,
        "limits": (),
        "privileged": False,
        "in_machine": False,
    }
    return StartProcess(**(fields | options))


def a_limit(name: str, soft: int, hard: int) -> ResourceLimit:
    return ResourceLimit(name=name, soft=soft, hard=hard)


def a_file(path: str, data: bytes, *, mode: int = 0o644, owner: str = "") -> File:
    return File(path=path, mode=mode, owner=owner, data=data)


def a_tmpfs(target: str, options: str = "") -> Mount:
    return Mount(source=Source(NO_SLOT, ""), target=target, fstype="tmpfs", options=options, populate=False)


def a_bind(source: Source, target: str, options: str = "", *, populate: bool = False) -> Mount:
    return Mount(source=source, target=target, fstype="bind", options=options, populate=populate)


async def feed(process: Process, data: bytes) -> None:
    await process.write(data)
    await process.write_end()


async def finish(process: Process, *, forget: bool = True) -> Result:
    """Read a process to its end."""
    collected = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    while (output := await process.read()) is not None:
        stream = Stream(output.stream)
        assert output.offset == len(collected[stream])
        collected[stream] += output.data
        process.stored(stream, output.offset + len(output.data))
    ended = await process.exited()
    if forget:
        await process.forget()
    return Result(ended.status, bytes(collected[Stream.STDOUT]), bytes(collected[Stream.STDERR]), ended)


async def read_until(process: Process, wanted: bytes) -> bytes:
    """Output of stdout up to where it holds ``wanted``."""
    seen = b""
    async with asyncio.timeout(PATIENCE_S):
        while wanted not in seen:
            output = await process.read()
            assert output is not None, seen
            seen += output.data
            process.stored(Stream(output.stream), output.offset + len(output.data))
    return seen


async def connect(machine: Machine, **options: Any) -> Agent:
    async with asyncio.timeout(PATIENCE_S):
        return await Agent.connect(await machine.connect(), **options)


@contextlib.asynccontextmanager
async def booted(initramfs: Path, image: Path, directory: Path) -> AsyncIterator[Pod]:
    """A machine whose hyperstart answers, with no pod yet."""
    run_dir, writable = directory / "run", directory / "pod"
    run_dir.mkdir()
    writable.mkdir()
    config = MachineConfig(
        id=f"ring-{next(_numbers)}",
        vcpus=1,
        memory_mib=32,
        kernel=initramfs,
        initramfs=initramfs,
        disks=(Disk(path=writable, read_only=False), Disk(path=image, read_only=True)),
    )
    machine = await Namespace().launch(config, run_dir)
    try:
        pod = Pod(machine, await connect(machine), writable)
        try:
            yield pod
        finally:
            await pod.agent.close()
    finally:
        await machine.kill()
        assert "ERROR: AddressSanitizer" not in machine.console(), machine.console()
        assert "runtime error" not in machine.console(), machine.console()
