"""A pod as hyperd holds it: its records, and while it runs its machine.

    create ──▶ Created ──start──▶ Running ──stop, or its containers end──▶ Created ──rm──▶ gone

What was decided is recorded first (``PodRecord.target``, ``machine``, ``lease``), then done by steps
that can be repeated.  The modules beside this one do them: ``launch`` makes the machine, ``conduct``
tells the guest, ``endings`` ends what runs, ``lifecycle`` holds the verbs, and ``recovery`` brings a pod
that an earlier daemon left anywhere to where it belongs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hypercontainer.engine.container import Container
from hypercontainer.engine.execs import Execs
from hypercontainer.engine.host import Host
from hypercontainer.engine.output import open_log
from hypercontainer.engine.records import ContainerRecord, PodRecord, ProcessRecord, despite_full_disk
from hypercontainer.engine.running import Running
from hypercontainer.engine.timeline import StartTimeline
from hypercontainer.errors import ContainerNotFound, InvalidState
from hypercontainer.model.pod import PodSpec
from hypercontainer.model.rest import ContainerState, PodState


class Pod:
    """A pod's record and, while it runs, its machine.  Every verb holds ``lock``."""

    def __init__(self, host: Host, record: PodRecord, containers: list[ContainerRecord]) -> None:
        self.host = host
        self.record = record
        self.directory = host.paths.pods / record.id
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.containers = [Container(c, open_log(self._log_path(c.id), c.spec.log)) for c in containers]
        self.execs = Execs(host.records, self.directory)
        self.running: Running | None = None
        self.timeline = StartTimeline()
        self.lock = asyncio.Lock()
        self.recovered = asyncio.Event()  # it is where its record says, and no more as a hyperd left it
        self.recovered.set()
        self.is_gone = False  # removed, with its storage
        self.is_replaced = False  # another pod is about to have its machine

    # --- What it is ---

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def state(self) -> PodState:
        is_left = bool(self.record.machine) and not self.recovered.is_set()
        if self.has_ended or (self.running is None and not is_left):
            return PodState.CREATED
        return PodState.PAUSED if self.record.paused else PodState.RUNNING

    @property
    def has_ended(self) -> bool:
        """Whether its containers have run and none runs on: then its machine is on its way out.

        A machine that was made without containers stays, whatever becomes of those that it was given.
        """
        has_run = any(c.record.state is ContainerState.EXITED for c in self.containers)
        return bool(self.record.spec.containers) and has_run and not any(c.is_alive for c in self.containers)

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def run_dir(self) -> Path:
        return self.host.paths.machines / self.record.machine

    def _log_path(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    @property
    def processes(self) -> set[int]:
        """The numbers of the processes in its guest that its records know."""
        return {c.record.process.number for c in self.containers} | self.execs.processes

    def container(self, container_id: str) -> Container:
        return next(c for c in self.containers if c.record.id == container_id)

    def refuse_forgotten(self, container: Container) -> None:
        """For who has waited for the lock: ``container`` may have been removed meanwhile."""
        if container not in self.containers:
            raise ContainerNotFound(f"no such container: {container.record.name}")

    def running_or_refuse(self, verb: str) -> Running:
        if self.running is None:
            raise InvalidState(
                f"cannot {verb}: pod {self.record.name} is {self.state}",
                hint=f"hyper start {self.record.name}",
            )
        return self.running

    def refuse_paused(self) -> None:
        if self.record.paused:
            raise InvalidState(f"pod {self.record.name} is paused", hint="unpause it first")

    async def allocate(self) -> None:
        """Make the storage of a new pod.  No VMM is started."""
        await self.host.disks.create(self.disk, size_mib=self.host.settings.disk_size_mib)

    def close(self) -> None:
        """Close the files that this object holds open."""
        for container in self.containers:
            container.log.close()

    # --- Records ---

    def next_process(self) -> int:
        """A process number that this machine has not seen."""
        number = self.record.next_process
        self.decide(next_process=number + 1)
        return number

    def decide_process(self, container: Container) -> int:
        """As ``next_process``, for the main process of ``container``, which is recorded with it."""
        number = self.record.next_process
        own = msgspec.structs.replace(self.record, next_process=number + 1)
        record = msgspec.structs.replace(
            container.record, state=ContainerState.CREATED, process=ProcessRecord(number=number)
        )
        self.host.records.save_containers(record, pod=own)
        self.record, container.record = own, record
        return number

    def decide(self, **changes: object) -> None:
        """Record what is about to be done; Unavailable when it cannot be, and then it is not done."""
        record = msgspec.structs.replace(self.record, **changes)
        self.host.records.save_pod(record)
        self.record = record

    def save(self, **changes: object) -> None:
        """Record what has happened.  It has, whether or not the disk has room for it."""
        self.record = msgspec.structs.replace(self.record, **changes)
        with despite_full_disk():
            self.host.records.save_pod(self.record)

    def save_process(self, container: Container, state: ContainerState, process: ProcessRecord) -> None:
        self.save_container(container, state=state, process=process)

    def save_container(self, container: Container, **changes: object) -> None:
        """Record what has happened to a container."""
        self.save_containers([container], **changes)

    def save_containers(self, containers: Sequence[Container], **changes: object) -> None:
        """Record what has happened to several containers, at once."""
        for container in containers:
            container.record = msgspec.structs.replace(container.record, **changes)
        with despite_full_disk():
            self.host.records.save_containers(*(container.record for container in containers))

    def adopt(self, record: ContainerRecord, spec: PodSpec) -> Container:
        """Another container, and what the pod's spec is with it.  Conflict when its name is taken."""
        own = msgspec.structs.replace(self.record, spec=spec)
        self.host.records.add_container(record, own)
        self.record = own
        container = Container(record, open_log(self._log_path(record.id), record.spec.log))
        self.containers.append(container)
        return container

    def forget(self, container: Container) -> None:
        """A container that does not run is gone; what it wrote is to be erased from the disk."""
        record = msgspec.structs.replace(self.record, erase=(*self.record.erase, container.record.id))
        self.host.records.remove_container(container.record.id, record)
        self.record = record
        self.execs.forget(container)
        self.containers.remove(container)
        container.log.remove()

    def rename(self, name: str) -> None:
        """Conflict when the name is taken.  A container that had the pod's name has the new one, too."""
        same = [c for c in self.containers if c.record.name == self.record.name]
        record = msgspec.structs.replace(self.record, name=name)
        renamed = [msgspec.structs.replace(container.record, name=name) for container in same]
        self.host.records.rename(record, *renamed)
        self.record = record
        for container, own in zip(same, renamed, strict=True):
            container.record = own

    def rename_container(self, container: Container, name: str) -> None:
        """Conflict when the name is taken."""
        record = msgspec.structs.replace(container.record, name=name)
        self.host.records.rename(record)
        container.record = record
