"""Machines saved when hyperstart was ready, by size, and the machines that start as copies of them.

The first machine of a size boots.  Its template is made in the background a while later, so that nobody
waits for it, from a machine of its own that no pod has touched.  A template has a directory named by the
hash of everything that went into it: what has changed has another name, and the old one goes.  Until it is
whole and a copy of it has answered, the directory is a draft, which the next hyperd removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec

from hypercontainer.config import Paths, Settings
from hypercontainer.engine import machines
from hypercontainer.engine.tasks import Tasks
from hypercontainer.errors import HyperError, HypervisorError, NotFound
from hypercontainer.faults import point
from hypercontainer.files import remove_tree, write_atomically
from hypercontainer.guest.protocol import BecomeTemplate, Ping
from hypercontainer.hypervisors.base import Hypervisor, Machine, end_orphans
from hypercontainer.model.machine import MachineConfig, Nic, NicKind
from hypercontainer.model.rest import TemplateView

logger = logging.getLogger(__name__)

NOTE = "template.json"
_DRAFT = ".draft"  # ends the name of a directory that is not whole
_SETTLE_S = 0.1  # for a guest whose channel was closed, until it waits for the next one
_NICENESS = 10  # of a machine that nobody waits for


class Note(msgspec.Struct, frozen=True):
    """What ``template.json`` says; the times of its last use are the file's own."""

    hypervisor: str
    vcpus: int
    memory_mib: int
    nics: int
    created: float


class Templates:
    """All templates of one daemon."""

    def __init__(self, paths: Paths, settings: Settings, tasks: Tasks) -> None:
        self._directory = paths.cache / "templates"
        self._machines = paths.run / "templates"
        self._settings = settings
        self._tasks = tasks
        self._one_at_a_time = asyncio.Lock()
        self._tried: set[str] = set()  # which are being made, or could not be

    async def clear_drafts(self) -> None:
        """End and remove what an earlier hyperd was at when it died."""
        await end_orphans(self._machines, ())
        remove_tree(self._machines)
        if self._directory.is_dir():
            for draft in self._directory.glob(f"*{_DRAFT}"):
                remove_tree(draft)

    # --- Machines ---

    async def launch(self, driver: Hypervisor, config: MachineConfig, run_dir: Path) -> Machine:
        """As ``driver.launch``: a copy of the template if there is one, and if not, one is made later."""
        if not (self._settings.templates and driver.capabilities.templates):
            return await driver.launch(config, run_dir)
        key = _key(driver, config)
        if (machine := await self._launch_copy(driver, config, run_dir, key)) is not None:
            return machine
        machine = await driver.launch(config, run_dir)
        if key not in self._tried:
            self._tried.add(key)
            self._tasks.start(self._make_later(driver, config, key), name=f"template {key}")
        return machine

    async def _launch_copy(
        self, driver: Hypervisor, config: MachineConfig, run_dir: Path, key: str
    ) -> Machine | None:
        """None when there is no template, or it does not work: then it is gone, and ``run_dir`` empty."""
        template = self._directory / key
        try:
            os.utime(template / NOTE)
        except OSError:  # there is none, or it cannot be reached
            return None
        try:
            return await driver.launch(replace(config, template=template), run_dir)
        except HypervisorError as error:
            logger.warning("template %s does not work and is removed: %s", key, error.message)
        self._tried.discard(key)
        remove_tree(template)
        remove_tree(run_dir)
        run_dir.mkdir(mode=0o700)
        return None

    def stamp(self, driver: Hypervisor, config: MachineConfig) -> str:
        """Tells apart the templates that there were for such a machine; empty when there is none."""
        if not (self._settings.templates and driver.capabilities.templates):
            return ""
        try:
            return str((self._directory / _key(driver, config)).stat().st_mtime_ns)
        except OSError:
            return ""

    # --- Making one ---

    async def _make_later(self, driver: Hypervisor, config: MachineConfig, key: str) -> None:
        await asyncio.sleep(self._settings.template_delay_s)
        async with self._one_at_a_time:
            try:
                await self._make(driver, config, key)
            except (HyperError, OSError) as error:
                logger.warning("no template was made for machines of %s: %s", driver.name, error)
            else:
                self._tried.discard(key)

    async def _make(self, driver: Hypervisor, config: MachineConfig, key: str) -> None:
        draft = self._directory / f"{key}{_DRAFT}"
        draft.mkdir(parents=True, mode=0o700)
        point("template begun")
        try:
            blank = _blank(config, key)
            await self._save(driver, replace(blank, save_in=draft))
            await self._try_copy(driver, replace(blank, template=draft))
            note = Note(driver.name, config.vcpus, config.memory_mib, len(config.nics), time.time())
            write_atomically(draft / NOTE, msgspec.json.encode(note))
            point("template complete")
            draft.rename(self._directory / key)
            point("template named")
        finally:
            remove_tree(draft)
        logger.info("made template %s of %s", key, driver.name)
        self._remove_superseded(key, note)
        self._keep_within_bounds(key)

    async def _save(self, driver: Hypervisor, config: MachineConfig) -> None:
        async with self._running(driver, config) as machine:
            with contextlib.suppress(OSError):  # it ended: what comes next says so
                os.setpriority(os.PRIO_PGRP, machine.process.pid, _NICENESS)
            async with await machines.answer(machine) as agent:
                await agent.request(BecomeTemplate())
            await asyncio.sleep(_SETTLE_S)
            await machine.save()
            point("template saved")

    async def _try_copy(self, driver: Hypervisor, config: MachineConfig) -> None:
        async with self._running(driver, config) as machine, await machines.answer(machine) as agent:
            await agent.request(Ping())

    @contextlib.asynccontextmanager
    async def _running(self, driver: Hypervisor, config: MachineConfig) -> AsyncIterator[Machine]:
        """A machine that no pod owns; the next hyperd ends it if this one dies."""
        run_dir = self._machines / config.id
        run_dir.mkdir(parents=True, mode=0o700)
        try:
            machine = await driver.launch(config, run_dir)
            try:
                yield machine
            finally:
                await asyncio.shield(machine.kill())
        finally:
            remove_tree(run_dir)

    # --- Keeping them ---

    def all(self) -> list[TemplateView]:
        """Those that are whole, the last used first."""
        if not self._directory.is_dir():
            return []
        views = [_view(each) for each in self._directory.iterdir() if each.suffix != _DRAFT]
        return sorted((view for view in views if view), key=lambda view: view.used, reverse=True)

    def remove(self, name: str) -> None:
        """By id, or the beginning of one; machines that are copies of it run on."""
        found = [view.id for view in self.all() if name and view.id.startswith(name)]
        if len(found) != 1:
            raise NotFound(
                f"{name!r} is {'the beginning of several templates' if found else 'no template'}",
                hint="hyper template ls shows them",
            )
        remove_tree(self._directory / found[0])

    def prune(self) -> list[TemplateView]:
        """Remove all; returns what went."""
        removed = self.all()
        for view in removed:
            remove_tree(self._directory / view.id)
        return removed

    def _remove_superseded(self, key: str, note: Note) -> None:
        """Those of the same size, which no machine will match any more."""
        for view in self.all():
            size = (view.hypervisor, view.vcpus, view.memory_mib, view.nics)
            if view.id != key and size == (note.hypervisor, note.vcpus, note.memory_mib, note.nics):
                remove_tree(self._directory / view.id)

    def _keep_within_bounds(self, newest: str) -> None:
        """The newest stays, whatever it takes; the longest unused go."""
        count = size = 0
        for view in sorted(self.all(), key=lambda view: view.id != newest):
            count, size = count + 1, size + view.size
            over = count > self._settings.template_count or size > self._settings.template_space_mib << 20
            if over and view.id != newest:
                remove_tree(self._directory / view.id)


def _key(driver: Hypervisor, config: MachineConfig) -> str:
    inputs = json.dumps([driver.name, *driver.inputs(config)])
    return hashlib.sha256(inputs.encode()).hexdigest()[:12]


def _blank(config: MachineConfig, key: str) -> MachineConfig:
    """The machine without anything that is a pod's."""
    nics = tuple(
        Nic(mac=f"02:00:00:00:00:{n:02x}", kind=NicKind.NONE, backend="") for n in range(len(config.nics))
    )
    return replace(config, id=f"template-{key}", disks=(), shares=(), nics=nics)


def _view(directory: Path) -> TemplateView | None:
    """None when it is no template, or just being removed."""
    try:
        note = msgspec.json.decode((directory / NOTE).read_bytes(), type=Note)
        used = (directory / NOTE).stat().st_mtime
        size = sum(file.stat().st_blocks for file in directory.iterdir()) * 512
    except (OSError, msgspec.DecodeError):
        return None
    return TemplateView(
        id=directory.name,
        hypervisor=note.hypervisor,
        vcpus=note.vcpus,
        memory_mib=note.memory_mib,
        nics=note.nics,
        size=size,
        created=note.created,
        used=used,
    )
