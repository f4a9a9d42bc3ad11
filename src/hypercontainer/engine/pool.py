"""Machines that were started ahead, each of which waits for a pod: as far as hyperstart's answer.

How many is a matter of memory (``pool_memory_mib``); of which sizes, of what pods asked for lately.  One
that was taken is replaced in the background, when no pod starts.  Each has its id, its run directory, its
NIC and its lease, as if a pod had it; but no record names it, so the next hyperd ends what a dead one leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hypercontainer.config import Paths, Settings
from hypercontainer.engine import machines, sizes
from hypercontainer.engine.choice import Drivers
from hypercontainer.engine.rehearsal import make_image, rehearse
from hypercontainer.engine.sizes import Size
from hypercontainer.engine.tasks import Tasks
from hypercontainer.engine.templates import Templates
from hypercontainer.errors import HyperError, Unsupported
from hypercontainer.faults import point
from hypercontainer.files import remove_tree
from hypercontainer.guest.agent import Agent
from hypercontainer.hypervisors.base import Hypervisor, Machine
from hypercontainer.images.work import in_thread
from hypercontainer.model.machine import MachineConfig, Nic, NicKind
from hypercontainer.model.network import Lease
from hypercontainer.model.pod import PodSpec
from hypercontainer.network.base import Networks
from hypercontainer.storage.disks import PodDisks

logger = logging.getLogger(__name__)

_SIZES = 4  # that are kept, the last ones asked for
_QUIET_S = 0.1  # without a start, until the next machine is made
_PATIENCE_S = 2.0  # then it is made all the same
_INTERVAL_S = 0.02
_NICENESS = 10  # of a machine that nobody waits for


class Origin(NamedTuple):
    """What a machine was made of."""

    inputs: list[str]
    template: str  # the stamp of the one that it is a copy of; empty: it booted

    def fits(self, now: Origin) -> bool:
        """Whether it is as good as one that is made now."""
        return self.inputs == now.inputs and self.template in {"", now.template}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A machine that waits for a pod."""

    id: str
    size: Size
    origin: Origin
    run_dir: Path
    hypervisor: Hypervisor
    machine: Machine
    agent: Agent
    met_ns: int  # when the agent got its Welcome, in the host's CLOCK_MONOTONIC
    lease: Lease | None


@dataclass(kw_only=True)
class Pool:
    """All machines that wait.  ``leases`` and ``leasing`` are those of the pods, as addresses are."""

    paths: Paths
    settings: Settings
    tasks: Tasks
    drivers: Drivers
    templates: Templates
    networks: Networks
    disks: PodDisks
    leases: dict[str, Lease]
    leasing: asyncio.Lock
    _waiting: list[Waiting] = field(default_factory=list)  # the longest first
    _watches: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # by machine
    _endings: set[asyncio.Future[None]] = field(default_factory=set)  # of machines that wait no longer
    _lately: list[Size] = field(default_factory=list)  # the last one asked for first
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _starts: int = 0  # under way
    _last_start: float = 0  # when it ended, by time.monotonic

    @property
    def is_on(self) -> bool:
        return self.settings.pool_memory_mib > 0

    @property
    def waiting(self) -> tuple[Size, ...]:
        """The sizes of the machines that wait."""
        return tuple(each.size for each in self._waiting)

    @property
    def waiting_mib(self) -> int:
        return sum(size.memory_mib for size in self.waiting)

    def open(self) -> None:
        """Begin to fill it, in the background."""
        if self.is_on:
            self.tasks.start(self._keep_full(), name="pool")

    async def close(self) -> None:
        """End every machine; the tasks of ``open`` and of the watches have ended."""
        for each in self._waiting:
            self._end_soon(each)
        self._waiting.clear()
        if self._endings:
            await asyncio.wait(self._endings)

    # --- For a pod that starts ---

    @contextlib.contextmanager
    def start_under_way(self) -> Iterator[None]:
        """In here nothing is made that could slow it down, unless it takes long."""
        self._starts += 1
        try:
            yield
        finally:
            self._starts -= 1
            self._last_start = time.monotonic()

    async def take(self, driver: Hypervisor, size: Size) -> Waiting | None:
        """A machine of this size, which is the caller's from now on; one that does not fit is ended."""
        nics = (Nic(mac="", kind=NicKind.NONE, backend=""),) if size.has_network else ()
        origin = self._origin(driver, self._config("", driver, size, nics))
        self._note(size)
        for each in [each for each in self._waiting if each.size == size]:
            self._let_go(each)
            if each.origin.fits(origin) and each.machine.process.is_alive() and each.agent.failure is None:
                _set_priority(each.machine, 0)
                return each
            self._end_soon(each)
        return None

    def _origin(self, driver: Hypervisor, config: MachineConfig) -> Origin:
        """Of a machine that is made now."""
        return Origin(driver.inputs(config), self.templates.stamp(driver, config))

    def _config(self, name: str, driver: Hypervisor, size: Size, nics: tuple[Nic, ...]) -> MachineConfig:
        return machines.config(
            name,
            driver,
            self.paths,
            self.settings,
            vcpus=size.vcpus,
            memory_mib=size.memory_mib,
            nics=nics,
        )

    def _note(self, size: Size) -> None:
        self._lately = [size, *(each for each in self._lately if each != size)][:_SIZES]
        self._changed.set()

    def _let_go(self, waiting: Waiting) -> None:
        self._waiting.remove(waiting)
        if (watch := self._watches.pop(waiting.id, None)) is not None:
            watch.cancel()
        self._changed.set()

    # --- Filling ---

    async def _keep_full(self) -> None:
        await self._expect_default()
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = sizes.ahead(self._lately, memory_mib=self.settings.pool_memory_mib)
            await self._shrink(sizes.missing(self.waiting, wanted))
            for size in sizes.missing(wanted, self.waiting):
                await self._until_quiet()
                if self._changed.is_set():
                    break
                await self._try_add(size)

    async def _expect_default(self) -> None:
        """What a pod asks for that asks for nothing, before any has asked."""
        spec = PodSpec()
        with contextlib.suppress(HyperError):  # no hypervisor works here: pods will say so
            driver = await self.drivers.choose(spec, default=self.settings.hypervisor)
            if (size := sizes.size_of(spec, driver.name)) is not None:
                self._note(size)

    async def _until_quiet(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if not self._starts and time.monotonic() - self._last_start >= _QUIET_S:
                return
            await asyncio.sleep(_INTERVAL_S)

    async def _shrink(self, surplus: Sequence[Size]) -> None:
        for size in surplus:
            found = next((each for each in self._waiting if each.size == size), None)
            if found is not None:
                self._let_go(found)
                await self.discard(found)

    async def _try_add(self, size: Size) -> None:
        try:
            await self._add(size)
        except (HyperError, OSError) as error:
            logger.warning("no machine of %s was started ahead: %s", size.hypervisor, error)
            # until a pod asks for it again; pods may have asked for so many others that it is not there
            self._lately = [each for each in self._lately if each != size]

    async def _add(self, size: Size) -> None:
        point("pool: adding")
        async with contextlib.AsyncExitStack() as undo:
            waiting = await self._start(size, undo)
            undo.pop_all()
        point("pool: added")
        self._waiting.append(waiting)
        watch = self.tasks.start(self._watch(waiting), name=f"watch machine {waiting.id}")
        self._watches[waiting.id] = watch

    async def _start(self, size: Size, undo: contextlib.AsyncExitStack) -> Waiting:
        driver = self.drivers.get(size.hypervisor)
        if not driver.capabilities.swap_disks:
            raise Unsupported("its machines can be given no disks once they run")
        name = secrets.token_hex(6)
        lease, nics = await self._connect(name, driver, size, undo)
        config = self._config(name, driver, size, nics)
        origin = self._origin(driver, config)
        run_dir = self.paths.machines / name
        run_dir.mkdir(parents=True, mode=0o700)
        undo.callback(remove_tree, run_dir)
        machine = await self.templates.launch(driver, config, run_dir)
        undo.push_async_callback(machine.kill)
        _set_priority(machine, _NICENESS)
        agent = await machines.answer(machine)
        met_ns = time.monotonic_ns()
        undo.push_async_callback(agent.close)
        await self._rehearse(run_dir, driver, machine, agent, lease)
        return Waiting(
            id=name,
            size=size,
            origin=origin,
            run_dir=run_dir,
            hypervisor=driver,
            machine=machine,
            agent=agent,
            met_ns=met_ns,
            lease=lease,
        )

    async def _rehearse(
        self, run_dir: Path, driver: Hypervisor, machine: Machine, agent: Agent, lease: Lease | None
    ) -> None:
        disk = run_dir / "rehearsal.img"
        try:
            await self.disks.create(disk, size_mib=self.settings.disk_size_mib)
            image = await in_thread(make_image, self.paths.cache)
            await rehearse(machine, agent, driver.capabilities, disk=disk, image=image, lease=lease)
        finally:
            disk.unlink(missing_ok=True)

    async def _connect(
        self, name: str, driver: Hypervisor, size: Size, undo: contextlib.AsyncExitStack
    ) -> tuple[Lease | None, tuple[Nic, ...]]:
        """Its address and its NIC, taken as for a pod."""
        if not size.has_network:
            return None, ()
        async with self.leasing:
            lease = await self.networks.allocate(name, others=list(self.leases.values()))
            self.leases[name] = lease
        undo.push_async_callback(self._disconnect, name, lease)
        nics = await self.networks.attach(lease, driver.capabilities.nics)
        await self.networks.ready(lease)
        return lease, nics

    async def _disconnect(self, name: str, lease: Lease) -> None:
        await self.networks.detach(lease)
        self.leases.pop(name, None)

    # --- Ends ---

    async def _watch(self, waiting: Waiting) -> None:
        """One that ends by itself is replaced."""
        ends = [asyncio.ensure_future(waiting.machine.wait()), asyncio.ensure_future(waiting.agent.closed())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        logger.warning(
            "machine %s, which waited for a pod, has ended: %s", waiting.id, waiting.machine.console()[-300:]
        )
        self._watches.pop(waiting.id)
        self._let_go(waiting)
        await self.discard(waiting)

    async def discard(self, waiting: Waiting) -> None:
        """End a machine that waits no longer, or was taken and could not be used.

        It is ended though the caller is cancelled, and what cannot be taken away is logged.
        """
        await asyncio.shield(self._end_soon(waiting))

    def _end_soon(self, waiting: Waiting) -> asyncio.Future[None]:
        """``close`` waits for it."""
        ending = asyncio.ensure_future(self._end(waiting))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    async def _end(self, waiting: Waiting) -> None:
        try:
            async with contextlib.AsyncExitStack() as parts:  # each, whatever becomes of the others
                if waiting.lease is not None:
                    parts.push_async_callback(self._disconnect, waiting.id, waiting.lease)
                parts.callback(remove_tree, waiting.run_dir)
                parts.push_async_callback(waiting.agent.close)
                parts.push_async_callback(waiting.machine.kill)
        except (HyperError, OSError) as error:
            logger.warning("machine %s, which waited for a pod, has left something: %s", waiting.id, error)


def _set_priority(machine: Machine, niceness: int) -> None:
    """Only root's can be raised again (setpriority(2))."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # it ended: what comes next says so
            os.setpriority(os.PRIO_PGRP, machine.process.pid, niceness)
