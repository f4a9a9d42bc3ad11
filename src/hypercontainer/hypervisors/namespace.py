"""No VM at all: hyperstart as PID 1 of new namespaces, for the tests of hyperstart and of hyperd.

The initramfs is unpacked and becomes the root, and slots are directories, or images that are mounted
by loop devices; the rest is as in a machine.  It isolates nothing and is never chosen by itself: a hyperd
takes it only when its environment says ``HYPER_TEST_NAMESPACE=1``, and is asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from hypercontainer.errors import HypervisorError, Unsupported
from hypercontainer.hypervisors import _shares
from hypercontainer.hypervisors._vmm import CHANNEL_DESCRIPTOR, VmmHypervisor, VmmMachine
from hypercontainer.hypervisors.base import Machine
from hypercontainer.model.machine import Capabilities, Isolation, MachineConfig, Share, ShareKind
from hypercontainer.process import ProcessId, find_program

ROOT = "root"
READY = "ready"
ALLOWED = "HYPER_TEST_NAMESPACE"
_CLEAR_TIMEOUT_S = 5.0

# $1: cgroup to be made and joined, or empty; $2: root; then "ro" or "rw" and a path for each slot up to
# "--"; then options, name and path for each share up to "--"; then hyperstart's command.
_OUTSIDE = r"""
if [ -n "$1" ] && mkdir -p "$1" 2>/dev/null; then echo $$ >"$1/cgroup.procs"; fi
shift
exec "$@"
"""
_INSIDE = r"""
set -e
root=$1; shift
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
slot=0
while [ "$1" != -- ]; do
    mkdir -p "$root/disks/$slot"
    if [ -d "$2" ]; then option=bind; else option=loop,$1; fi
    mount -o "$option" "$2" "$root/disks/$slot"
    slot=$((slot + 1)); shift 2
done
shift
mkdir -p "$root/shares"
mount -n --bind -o ro "$root/../shares" "$root/shares"
while [ "$1" != -- ]; do
    mount -n --bind -o "$1" "$3" "$root/shares/$2"
    shift 3
done
shift
cd "$root"
mount -n --move . /  # -n: no note in the host's /run/mount
: >"$root/../ready"
exec chroot . "$@"
"""


class NamespaceMachine(VmmMachine):
    """A PID namespace; its end is the end of all in it."""

    def __init__(self, *, config: MachineConfig, run_dir: Path, process: ProcessId) -> None:
        super().__init__(config_id=config.id, run_dir=run_dir, process=process)
        self._cgroup = _cgroup(run_dir)
        self._written = {str(disk.path) for disk in config.disks if not disk.read_only}

    async def wait(self) -> None:
        await super().wait()
        await self._clear_away()

    async def kill(self) -> None:
        await super().kill()
        await self._clear_away()

    async def _clear_away(self) -> None:
        """The kernel unmounts a namespace some time after its last process: a disk is in use until then."""
        await _remove_cgroup(self._cgroup)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEAR_TIMEOUT_S):
                while self._written & _loop_files():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

    async def add_share(self, share: Share) -> None:
        """Its root hides the host's files: there is no path to mount from."""
        raise Unsupported("namespaces without a VM get their shares at their start only")

    async def remove_share(self, name: str) -> None:
        raise Unsupported("namespaces without a VM get their shares at their start only")


class Namespace(VmmHypervisor, name="namespace", order=0):
    """Needs root, or a kernel that lets users make namespaces."""

    title = "unshare"
    capabilities: ClassVar = Capabilities(
        isolation=Isolation.NONE,
        kernel="",
        max_vcpus=1,
        min_memory_mib=1,
        disk_slots=16,
        nics=frozenset(),
        pause=False,
        swap_disks=False,
        share=ShareKind.BIND,
        share_options="/shares",
    )

    async def missing(self, *, cache: Path) -> str | None:
        if os.environ.get(ALLOWED) != "1":
            return "it isolates nothing, and is there for tests"
        probe = ["unshare", *_namespaces(), "true"]
        child = await asyncio.create_subprocess_exec(
            *probe, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        if await child.wait() == 0:
            return None
        return "making namespaces needs root, or a kernel that lets users make user namespaces"

    def command(self, config: MachineConfig, run_dir: Path) -> list[str]:
        init = ["/init", "--channel-fd", str(CHANNEL_DESCRIPTOR)]
        slots = [word for disk in config.disks for word in ("ro" if disk.read_only else "rw", str(disk.path))]
        inside = [
            "/bin/sh",
            "-c",
            _INSIDE,
            "sh",
            str(run_dir / ROOT),
            *slots,
            "--",
            *_shares.words(config.shares),
            "--",
            *init,
        ]
        cgroup = _cgroup(run_dir)
        return [
            *("/bin/sh", "-c", _OUTSIDE, "sh", str(cgroup or "")),
            *("unshare", *_namespaces(), *inside),
        ]

    def _check(self, config: MachineConfig) -> None:
        if not config.initramfs.is_file():
            raise HypervisorError(f"a machine's file is missing: {config.initramfs}")
        _shares.check(config.shares)

    def _start_command(self, config: MachineConfig, run_dir: Path) -> list[str]:
        _shares.prepare(run_dir, config.shares)
        return [self._program(config), *self.command(config, run_dir)[1:]]

    def _prepare(self, config: MachineConfig, run_dir: Path) -> None:
        unpack(config.initramfs.read_bytes(), run_dir / ROOT)

    def _settle(self, config: MachineConfig, run_dir: Path) -> None:
        """Its command makes all its namespaces."""

    def _environment(self, config: MachineConfig) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath)} | {
            name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")
        }

    def _machine_of(self, config: MachineConfig, run_dir: Path, process: ProcessId) -> VmmMachine:
        return NamespaceMachine(config=config, run_dir=run_dir, process=process)

    async def launch(self, config: MachineConfig, run_dir: Path) -> Machine:
        try:
            return await super().launch(config, run_dir)
        except BaseException:
            await asyncio.shield(_remove_cgroup(_cgroup(run_dir)))
            raise

    async def reattach(self, config: MachineConfig, run_dir: Path) -> Machine | None:
        machine = await super().reattach(config, run_dir)
        if machine is None:
            await _remove_cgroup(_cgroup(run_dir))
        return machine

    async def _until_up(self, config: MachineConfig, run_dir: Path) -> None:
        while not (run_dir / READY).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    def _program(self, config: MachineConfig) -> str:
        find_program("unshare", package="util-linux")
        return "/bin/sh"


def _namespaces() -> list[str]:
    flags = ["--pid", "--fork", "--kill-child", "--mount", "--net", "--ipc", "--uts", "--cgroup"]
    return flags if os.geteuid() == 0 else [*flags, "--map-root-user"]


def _cgroup(run_dir: Path) -> Path | None:
    """A group of its own in the tree of cgroup v2, when that may be written."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, fstype, *_ = line.split()
        if fstype == "cgroup2" and os.access(path, os.W_OK):
            return Path(path) / f"{cgroup_prefix(run_dir.parent)}{run_dir.name}"
    return None


def cgroup_prefix(machines: Path) -> str:
    """How the names of the groups begin whose machines have their run directories in ``machines``."""
    return f"hyper-test-{hashlib.sha256(os.fsencode(machines)).hexdigest()[:12]}-"


async def _remove_cgroup(cgroup: Path | None) -> None:
    """It is busy until the last process in it has been reaped."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLEAR_TIMEOUT_S):
            while cgroup is not None and cgroup.exists():
                for directory, _, _ in os.walk(cgroup, topdown=False):
                    with contextlib.suppress(OSError):
                        Path(directory).rmdir()
                await asyncio.sleep(0.005)


def _loop_files() -> set[str]:
    """What the host's loop devices hold (loop(4); sysfs)."""
    found = set()
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.add(file.read_text().strip())
    return found


def unpack(archive: bytes, root: Path) -> None:
    """Directories, files and links of newc archives that follow one another; nodes come from the host."""
    root.mkdir()
    for name, mode, data in _members(archive):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(mode):
            path.mkdir(exist_ok=True)
        elif stat.S_ISLNK(mode):
            path.symlink_to(data.decode())
        elif stat.S_ISREG(mode):
            path.write_bytes(data)
            path.chmod(stat.S_IMODE(mode))


def _members(archive: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and data (buffer-format.rst of Linux: a header of 13 fields of 8 hexadecimal digits)."""
    at = 0
    while (at := archive.find(b"070701", at)) >= 0:
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = at + (110 + name_size + 3) // 4 * 4
        at = start + (size + 3) // 4 * 4
        if name != "TRAILER!!!":
            yield name.lstrip("./"), mode, archive[start : start + size]
