"""What a hypervisor driver is: one file that registers itself, and the machines that it makes.

A driver takes a frozen MachineConfig and a run directory, and nothing else; it never sees a pod.
Every module of this package that does not begin with ``_`` and is not ``base`` holds drivers.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from hypercontainer.errors import InvalidRequest, Unsupported
from hypercontainer.files import identity, write_atomically
from hypercontainer.guest.channel import Channel
from hypercontainer.hypervisors import _processes
from hypercontainer.model.machine import Capabilities, Disk, MachineConfig, Nic, NicKind, Share
from hypercontainer.process import ProcessId

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Machine(ABC):
    """A running VM.  It outlives the daemon; ``Hypervisor.reattach`` finds it again."""

    def __init__(self, *, config_id: str, run_dir: Path, process: ProcessId) -> None:
        self.id = config_id
        self.run_dir = run_dir
        self.process = process

    @abstractmethod
    async def connect(self) -> Channel:
        """A new connection to hyperstart; the guest notices the end of the one before.

        Returns as soon as the VMM has the connection: the guest may still be booting.
        """

    async def wait(self) -> None:
        """Until the machine has ended, by itself or by a kill, with every process of its VMM.

        Whoever owns a machine waits for it all its life: a driver may tend to it meanwhile.
        """
        await self.process.wait()

    @abstractmethod
    async def kill(self) -> None:
        """End the machine at once, with every process of its VMM.  One that has ended is no error."""

    async def pause(self) -> None:
        raise Unsupported("this driver cannot pause a machine")

    async def resume(self) -> None:
        raise Unsupported("this driver cannot pause a machine")

    async def swap_disk(self, slot: int, disk: Disk | None) -> None:
        """Put ``disk``, or nothing, under ``slot`` while the guest runs with the slot unmounted.

        The slot may have had none.  The guest sees the size and kind of the new one when it looks for the
        slot again, as hyperstart does before it mounts.  After an error the slot has the disk that it had,
        or none.
        """
        raise Unsupported("this driver cannot swap a disk of a running machine")

    async def save(self) -> None:
        """Stop the machine and leave it in the ``save_in`` of its config; what is left to do is to kill it.

        Machines that are launched with that directory as ``template`` go on where it was.
        """
        raise Unsupported("this driver cannot save a machine")

    def shares(self) -> frozenset[str]:
        """The names of what the guest is shown of the host."""
        return frozenset()

    async def add_share(self, share: Share) -> None:
        """Show the guest ``share`` in its share at once.  A name that is taken is a HypervisorError."""
        raise Unsupported("this driver cannot share files of the host with a running machine")

    async def remove_share(self, name: str) -> None:
        """Take what ``name`` shows away from the guest, whatever it does there.  None is no error."""
        raise Unsupported("this driver cannot share files of the host with a running machine")

    def console(self) -> str:
        """The end of what the VMM and the guest's console said, for error messages."""
        try:
            text = (self.run_dir / "console.log").read_bytes()[-4096:]
        except OSError:
            return ""
        return text.decode(errors="replace").strip()


class Hypervisor(ABC):
    """A driver.  ``class Uml(Hypervisor, name="uml", order=2)`` registers it; auto tries by order."""

    name: ClassVar[str]
    order: ClassVar[int]  # auto takes the lowest that works; 0: never by itself
    capabilities: ClassVar[Capabilities]
    registry: ClassVar[dict[str, type[Hypervisor]]] = {}

    def __init_subclass__(cls, *, name: str = "", order: int = 0) -> None:
        if not name:
            return
        cls.name = name
        cls.order = order
        Hypervisor.registry[name] = cls

    @abstractmethod
    async def missing(self, *, cache: Path) -> str | None:
        """Why this driver cannot run here, in words for the user; None when it can.

        A verdict that takes a boot is kept in the directory ``cache``, for this boot of the host.
        """

    async def measure(self, *, cache: Path) -> float:
        """Seconds from the launch of a machine to hyperstart's answer: boots one and ends it.

        Raises HypervisorError, and Unavailable when there is no kernel; the caller sets the deadline.
        """
        from hypercontainer.hypervisors import _probe  # late: it stands on this file

        return await _probe.boot_time(self, _probe.machine_config(self, cache=cache), cache=cache)

    @abstractmethod
    def command(self, config: MachineConfig, run_dir: Path) -> list[str]:
        """The VMM's command line: pure, so that tests compare it."""

    def inputs(self, config: MachineConfig) -> list[str]:
        """All that must be the same in a machine that was made ahead and in the one that ``config`` wants.

        That may have other disks and shares, and other backends and addresses of its NICs, not more.  Of this
        boot of the host, as another may have another processor, or count its time otherwise.
        """
        nics = tuple(Nic(mac=str(n), kind=NicKind.NONE, backend="") for n in range(len(config.nics)))
        alike = replace(config, id="", disks=(), shares=(), nics=nics, template=None, save_in=None)
        files = [identity(path) for path in (config.kernel, config.initramfs)]
        return [*self.command(alike, Path("/")), *files, BOOT_ID.read_text()]

    @abstractmethod
    async def launch(self, config: MachineConfig, run_dir: Path) -> Machine:
        """Start a VM with its run directory ``run_dir``, which exists and is empty.

        The VMM is started with ``HYPER_MACHINE=<run_dir>`` in its environment, so that a daemon that
        died between the start and the record finds it.  Raises HypervisorError with the VMM's last
        words; nothing is left running then.
        """

    @abstractmethod
    async def reattach(self, config: MachineConfig, run_dir: Path) -> Machine | None:
        """The machine that an earlier daemon launched there, or None when it has ended.

        None also when that daemon died before it could note the machine: nothing of it is left then.
        """

    async def end_strays(self, machines: Path, known: Collection[Path]) -> list[Path]:
        """End what is no process, of machines whose run directories lie in ``machines`` and not in ``known``.

        For a driver whose machines outlive all their processes.  Returns those run directories.
        """
        return []


def save_process(run_dir: Path, process: ProcessId) -> None:
    """Note the VMM in ``machine.json``, for ``load_process`` in a later daemon."""
    note = {"pid": process.pid, "start_time": process.start_time}
    write_atomically(run_dir / "machine.json", json.dumps(note).encode())


def load_process(run_dir: Path) -> ProcessId | None:
    """The VMM noted in ``run_dir`` if it lives, else None."""
    try:
        note = json.loads((run_dir / "machine.json").read_bytes())
        process = ProcessId(int(note["pid"]), int(note["start_time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return process if process.is_alive() else None


async def end_orphans(machines: Path, known: Collection[Path]) -> list[Path]:
    """End every VMM whose run directory lies in ``machines`` and is not in ``known``; returns those.

    For a daemon that starts: what one that died left between a launch and its record.
    """
    orphans = [found for found in _processes.find_orphans(machines) if found[0] not in known]
    for _, process in orphans:
        await _processes.end_session(process)
    ended = {run_dir for run_dir, _ in orphans}
    for driver in drivers().values():
        ended.update(await driver().end_strays(machines, known))
    return sorted(ended)


def drivers() -> dict[str, type[Hypervisor]]:
    """Every driver by name, in the order that auto tries them."""
    package = importlib.import_module("hypercontainer.hypervisors")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_") and module.name != "base":
            importlib.import_module(f"hypercontainer.hypervisors.{module.name}")
    return dict(sorted(Hypervisor.registry.items(), key=lambda item: (item[1].order or 99, item[0])))


def load(name: str) -> Hypervisor:
    """The driver called ``name``."""
    known = drivers()
    if name not in known:
        raise InvalidRequest(
            f"there is no hypervisor driver {name!r}", hint=f"drivers: auto, {', '.join(known)}"
        )
    return known[name]()
