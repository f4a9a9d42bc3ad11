"""What drivers whose VMM is one host process have in common: start it, reach it, find it again, end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from abc import abstractmethod
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from hypercontainer.errors import HypervisorError, InvalidRequest, Unsupported
from hypercontainer.files import identity, short_path
from hypercontainer.guest.channel import Channel
from hypercontainer.hypervisors import _locks, _processes, _shares
from hypercontainer.hypervisors.base import Hypervisor, Machine, load_process, save_process
from hypercontainer.model.machine import Disk, DiskFormat, MachineConfig, Nic, NicKind, Share
from hypercontainer.process import ProcessId

CHANNEL = "channel.sock"
CONSOLE = "console.log"
CHANNEL_DESCRIPTOR = _processes.FIRST_DESCRIPTOR  # of every VMM
CONTROL_DESCRIPTOR = CHANNEL_DESCRIPTOR + 1  # QEMU's control socket, UML's run directory
CONSOLE_SIZE = 1 << 20  # bytes; longer ones are cut
CONSOLE_KEPT = 1 << 16  # bytes of a console that is cut
CONSOLE_INTERVAL = 2.0  # seconds between looks
NIC_DESCRIPTOR = CONTROL_DESCRIPTOR + 1  # the first of the NICs that are sockets
# Of an x86_64 guest's kernel: a pod's mounts wait for grace periods; and of its memory for each CPU's data,
# taken in chunks of 2 MiB, the second takes 4 MiB to account for each word.
X86_64_ARGUMENTS = ("rcupdate.rcu_expedited=1", "percpu_alloc=page")


class VmmMachine(Machine):
    """A machine that is a session of host processes, with its channel at ``channel.sock``."""

    child: _processes.Child | None = None  # of the daemon that launched it

    async def connect(self) -> Channel:
        connection = await _processes.connect(self.run_dir / CHANNEL)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        return Channel(reader, writer)

    async def wait(self) -> None:
        """As promised, and meanwhile keep the console from growing: what it says is the guest's choice."""
        waiting = asyncio.ensure_future(self.process.wait())
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=CONSOLE_INTERVAL)
                _trim(self.run_dir / CONSOLE)
            await waiting
        finally:
            waiting.cancel()
        await _processes.end_session(self.process)

    def console(self) -> str:
        """With how the VMM ended, where it did not end well and its parent is asked."""
        said = super().console()
        status = self.child.status if self.child else None
        return f"{said} (its VMM {_processes.ending(status)})".lstrip() if status else said

    async def kill(self) -> None:
        await _processes.end_session(self.process)

    def shares(self) -> frozenset[str]:
        return _shares.names(self.run_dir)

    async def add_share(self, share: Share) -> None:
        await _shares.add(self.process, self.run_dir, share)

    async def remove_share(self, name: str) -> None:
        await _shares.remove(self.process, self.run_dir, name)


def _trim(console: Path) -> None:
    """Keep the end of a console that has grown too long; its writers append (open(2), O_APPEND)."""
    with contextlib.suppress(OSError):
        if console.stat().st_size > CONSOLE_SIZE:
            with console.open("r+b") as file:
                file.seek(-CONSOLE_KEPT, os.SEEK_END)
                end = file.read(CONSOLE_KEPT)
                file.truncate(0)
            with console.open("ab") as file:
                file.write(end)


class VmmHypervisor(Hypervisor):
    """The steps of a launch; a driver fills in what is its own."""

    title: str  # what messages call the VMM
    run_dir_descriptor: int | None = None  # under which the VMM has its run directory

    def _inherit(self, run_dir: Path, held: contextlib.ExitStack) -> int | Path:
        """What the VMM gets as CONTROL_DESCRIPTOR: a descriptor that ``held`` keeps open, or a directory."""
        return run_dir

    @abstractmethod
    def _environment(self, config: MachineConfig) -> dict[str, str]:
        """What the VMM's environment holds besides HYPER_MACHINE."""

    @abstractmethod
    def _machine_of(self, config: MachineConfig, run_dir: Path, process: ProcessId) -> VmmMachine: ...

    @abstractmethod
    async def _until_up(self, config: MachineConfig, run_dir: Path) -> None:
        """Until the VMM has taken its whole command line, so that it will not die of it."""

    def _fit_to_host(self, config: MachineConfig) -> MachineConfig:
        """``config`` with what only this host can tell; ``command`` stays pure."""
        return config

    def _prepare(self, config: MachineConfig, run_dir: Path) -> None:
        """Make what the VMM looks for in its run directory."""

    @abstractmethod
    def _program(self, config: MachineConfig) -> str:
        """The path of the VMM's executable."""

    def inputs(self, config: MachineConfig) -> list[str]:
        return [*super().inputs(config), identity(Path(self._program(config)).resolve())]

    async def launch(self, config: MachineConfig, run_dir: Path) -> Machine:
        self._check(config)
        config = self._fit_to_host(config)
        output = run_dir / CONSOLE
        self._prepare(config, run_dir)
        command = self._start_command(config, run_dir)
        with contextlib.ExitStack() as held:
            child = _processes.spawn(
                command,
                output=output,
                descriptors=self._descriptors(config, run_dir, held),
                environment={**self._environment(config), "HYPER_MACHINE": str(run_dir)},
                settle=partial(self._settle, config, run_dir),
            )
        try:
            save_process(run_dir, child.process)
        except BaseException:
            await _processes.end_session(child.process)
            raise
        await _processes.until_ready(
            child, ready=lambda: self._until_up(config, run_dir), output=output, name=self.title
        )
        machine = self._machine_of(config, run_dir, child.process)
        machine.child = child
        return machine

    def _start_command(self, config: MachineConfig, run_dir: Path) -> list[str]:
        """What is executed: the command that becomes the VMM in a namespace where it finds its share."""
        _shares.prepare(run_dir, config.shares)
        program = self._program(config)
        if not _shares.is_possible():
            return [program, *self._alone(self.command(config, run_dir))[1:]]
        vmm = [program, *self.command(config, run_dir)[1:]]
        if _shares.can_enter():
            return vmm
        return _shares.command(vmm, run_dir, config.shares, descriptor=self.run_dir_descriptor)

    def _settle(self, config: MachineConfig, run_dir: Path) -> None:
        """In the thread that starts the VMM: what it is to have of its own."""
        if _shares.can_enter():
            _shares.enter(run_dir, config.shares)

    def _alone(self, command: list[str]) -> list[str]:
        """``command`` for a VMM that can have no namespace of its own, and so nothing in its share."""
        return command

    async def reattach(self, config: MachineConfig, run_dir: Path) -> Machine | None:
        process = load_process(run_dir)
        if process is None:
            await _processes.end_processes_of(run_dir)
            return None
        return self._machine_of(config, run_dir, process)

    def _descriptors(
        self, config: MachineConfig, run_dir: Path, held: contextlib.ExitStack
    ) -> Sequence[int | Path]:
        channel = held.enter_context(_processes.listen(run_dir / CHANNEL))
        nics = [held.enter_context(_connect_nic(nic)) for nic in _sockets(config.nics)]
        return [channel.fileno(), self._inherit(run_dir, held), *(nic.fileno() for nic in nics)]

    def _check(self, config: MachineConfig) -> None:
        can = self.capabilities
        if config.memory_mib < can.min_memory_mib:
            raise InvalidRequest(
                f"{config.memory_mib} MiB of memory are too few for {self.name}",
                hint=f"the least is {can.min_memory_mib} MiB",
            )
        if config.vcpus > can.max_vcpus:
            raise Unsupported(f"{self.name} has at most {can.max_vcpus} vCPU, not {config.vcpus}")
        if len(config.disks) > can.disk_slots:
            raise Unsupported(
                f"{self.name} has {can.disk_slots} disk slots, and {len(config.disks)} are asked"
            )
        for nic in config.nics:
            if nic.kind not in can.nics:
                raise Unsupported(f"{self.name} has no NICs of the kind {nic.kind}")
            if nic.kind is NicKind.TAP and not Path("/sys/class/net", nic.backend, "tun_flags").exists():
                raise HypervisorError(f"there is no tap {nic.backend}")  # a VMM of root's would make one
        for path in (config.kernel, config.initramfs):
            if not path.is_file():
                raise HypervisorError(f"a machine's file is missing: {path}")
        for disk in config.disks:
            check_disk(disk, can.disk_formats)
        _shares.check(config.shares)


def check_disk(disk: Disk, formats: Collection[DiskFormat]) -> None:
    """Raise why ``disk`` cannot be attached: it is not there, of a wrong format, or another machine's."""
    if not (disk.path.is_file() or disk.path.is_block_device()):
        raise HypervisorError(f"a machine's file is missing: {disk.path}")
    if disk.format not in formats:
        raise Unsupported(
            f"this driver has no disks of the format {disk.format}: {disk.path}",
            hint=f"qemu-img convert -O {DiskFormat.RAW} makes a raw one",
        )
    if not disk.read_only and _locks.is_held(disk.path):
        raise HypervisorError(
            f"another machine writes to the disk {disk.path}",
            hint="stop it first, or use the disk read-only in both",
        )


def socket_nic_descriptors(nics: Sequence[Nic]) -> dict[str, int]:
    """By MAC address, the descriptor under which the VMM inherits a NIC's socket."""
    return {nic.mac: NIC_DESCRIPTOR + number for number, nic in enumerate(_sockets(nics))}


def _sockets(nics: Sequence[Nic]) -> list[Nic]:
    return [nic for nic in nics if nic.kind in {NicKind.STREAM, NicKind.PACKET}]


def _connect_nic(nic: Nic) -> socket.socket:
    kind = socket.SOCK_SEQPACKET if nic.kind is NicKind.PACKET else socket.SOCK_STREAM
    connection = socket.socket(socket.AF_UNIX, kind)
    try:
        with short_path(Path(nic.backend)) as name:
            connection.connect(name)
    except OSError as error:
        connection.close()
        raise HypervisorError(f"NIC {nic.mac}: nothing listens on {nic.backend}: {error.strerror}") from error
    return connection
