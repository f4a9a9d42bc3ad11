"""The engine's face: every verb of pods, containers, execs and images, by name or id.

It finds what a name means and calls it; what happens then is in ``lifecycle`` and ``processes``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec

from hypercontainer.config import Paths, Settings
from hypercontainer.engine import (
    containers,
    copying,
    doctor,
    endings,
    lifecycle,
    logs,
    network,
    plan,
    processes,
    recovery,
    replacement,
    slots,
    statistics,
    views,
    volumes,
)
from hypercontainer.engine.attachments import ProcessAttachment, follow_again
from hypercontainer.engine.choice import Drivers
from hypercontainer.engine.container import Container, Exec
from hypercontainer.engine.events import Events
from hypercontainer.engine.follower import Follower, LogRecord
from hypercontainer.engine.host import Host
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.pool import Pool
from hypercontainer.engine.process import exit_code
from hypercontainer.engine.records import ContainerRecord, PodRecord, Records
from hypercontainer.engine.streams import Attachment, Seen
from hypercontainer.engine.tasks import Tasks
from hypercontainer.engine.templates import Templates
from hypercontainer.errors import (
    ContainerNotFound,
    ExecNotFound,
    HyperError,
    InvalidRequest,
    InvalidState,
    PodNotFound,
    Unavailable,
)
from hypercontainer.files import remove_tree
from hypercontainer.hypervisors import base
from hypercontainer.images.store import Images
from hypercontainer.model.network import Lease, PortMapping
from hypercontainer.model.pod import AddedContainer, ExecSpec, Name, PodSpec, ServiceSpec
from hypercontainer.model.rest import (
    ContainerState,
    ContainerView,
    DoctorView,
    ExecView,
    InfoView,
    MachineView,
    PathView,
    PodDetails,
    PodState,
    PodView,
    ProcessView,
    RemovedView,
    StatisticsView,
    TimelineView,
    VersionView,
)
from hypercontainer.network.probe import open_networks
from hypercontainer.storage.disks import PodDisks
from hypercontainer.storage.sources import DiskClaims

logger = logging.getLogger(__name__)

_RECOVERY_TIMEOUT_S = 5.0  # before hyperd answers; a guest that takes longer is waited for beside the others

T = TypeVar("T")


class Engine:
    """All pods of one daemon."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.images = host.images
        self._pods: dict[str, Pod] = {}

    @classmethod
    async def open(cls, paths: Paths, settings: Settings) -> Engine:
        """Read the records, find the machines that run, and clear away what belongs to nobody."""
        for directory in (paths.state, paths.run, paths.machines, paths.pods, paths.cache):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        events = Events()
        tasks = Tasks()
        drivers, templates = Drivers(cache=paths.cache), Templates(paths, settings, tasks)
        networks, disks = open_networks(settings, paths), PodDisks(cache=paths.cache)
        leases: dict[str, Lease] = {}
        leasing = asyncio.Lock()
        pool = Pool(
            paths=paths,
            settings=settings,
            tasks=tasks,
            drivers=drivers,
            templates=templates,
            networks=networks,
            disks=disks,
            leases=leases,
            leasing=leasing,
        )
        host = Host(
            paths=paths,
            settings=settings,
            records=Records(paths.database, pods=paths.pods, listener=events),
            events=events,
            images=Images(
                paths.images,
                settings=settings,
                certificates=paths.config / "certs.d",
                changed=lambda action, image, name: events.publish("image", action, image, name),
            ),
            disks=disks,
            networks=networks,
            drivers=drivers,
            tasks=tasks,
            templates=templates,
            pool=pool,
            leases=leases,
            leasing=leasing,
            disk_claims=DiskClaims(),
        )
        engine = cls(host)
        await engine._recover()
        pool.open()
        return engine

    async def close(self) -> None:
        """Let go of everything; the machines of pods run on."""
        await self.host.tasks.close()
        await self.host.pool.close()
        for pod in self._pods.values():
            if pod.running is not None:
                await pod.running.tasks.close()
                await pod.running.agent.close()
            pod.close()
        await self.host.networks.close()
        self.images.close()
        self.host.records.close()

    async def abandon(self) -> None:
        """Let go of everything, and end the machines: what the next hyperd would find them by has gone."""
        await self.host.tasks.close()
        for pod in self._pods.values():
            try:
                await endings.tear_down(pod, clean=False)
            except (HyperError, OSError) as error:
                logger.warning("pod %s was not ended in full: %s", pod.record.name, error)
        await self.close()

    # --- Pods ---

    async def create_pod(self, spec: PodSpec) -> PodView:
        """Created: defined and allocated.  Raises ImageNotFound when an image is not in the store."""
        images = [self.images.get(container.image) for container in spec.containers]
        driver = await self.host.drivers.choose(spec, default=self.host.settings.hypervisor)
        network.check(self.host, spec)
        name = plan.pod_name(spec)
        record = PodRecord(
            id=plan.new_id(), name=name, spec=spec, created=time.time(), hypervisor=driver.name
        )
        records = [
            plan.container_record(
                c,
                image,
                pod=record,
                index=i,
                name=plan.container_name(spec, name, i),
                created=record.created,
            )
            for i, (c, image) in enumerate(zip(spec.containers, images, strict=True))
        ]
        disks = [*(image.id for image in images), *volumes.disk_names(spec)]
        slots.assign((), disks, limit=driver.capabilities.disk_slots)
        return await self._see_through(self._allocate(record, records))

    async def _allocate(self, record: PodRecord, containers: list[ContainerRecord]) -> PodView:
        """Storage first, the record last: what a crash leaves between the two is a stray, and removed."""
        with contextlib.ExitStack() as undo:
            undo.callback(remove_tree, self.host.paths.pods / record.id)
            try:
                pod = Pod(self.host, record, containers)
            except OSError as error:
                raise Unavailable(f"cannot allocate the pod's storage: {error.strerror}") from error
            undo.callback(pod.close)
            await pod.allocate()
            self.host.records.add_pod(record, containers)
            undo.pop_all()
        self._pods[record.id] = pod
        return self._pod_view(pod)

    def pods(self) -> list[PodView]:
        """Newest first, as Docker lists."""
        return [self._pod_view(pod) for pod in self._live()]

    def pod(self, name: str) -> PodView:
        return self._pod_view(self._find_pod(name))

    def pod_details(self, name: str) -> PodDetails:
        pod = self._find_pod(name)
        running = pod.running
        return PodDetails(
            pod=self._pod_view(pod),
            spec=pod.record.spec,
            kernel=running.agent.welcome.kernel_release if running else "",
            disk=str(pod.disk),
            console=str(pod.run_dir / "console.log") if running else "",
        )

    async def start_pod(self, name: str) -> PodView:
        pod = self._find_pod(name)
        await self._see_through(lifecycle.start(pod))
        return self._pod_view(pod)

    async def stop_pod(self, name: str, *, timeout_s: float | None = None) -> PodView:
        pod = self._find_pod(name)
        view = self._pod_view(pod)
        await self._see_through(lifecycle.stop(pod, timeout_s=timeout_s))
        return self._pod_view(pod) if pod.record.target != "removed" else view

    async def replace_pod(self, name: str, new: str, *, timeout_s: float | None = None) -> PodView:
        """Run the pod ``new`` on the machine of another, which ends Created."""
        old, successor = self._find_pod(name), self._find_pod(new)
        await self._see_through(replacement.replace(old, successor, timeout_s=timeout_s))
        return self._pod_view(successor)

    async def remove_pod(self, name: str, *, force: bool = False) -> None:
        await self._see_through(lifecycle.remove(self._find_pod(name), force=force))

    async def pause_pod(self, name: str) -> PodView:
        pod = self._find_pod(name)
        await self._see_through(lifecycle.pause(pod))
        return self._pod_view(pod)

    async def unpause_pod(self, name: str) -> PodView:
        pod = self._find_pod(name)
        await self._see_through(lifecycle.unpause(pod))
        return self._pod_view(pod)

    async def signal_pod(self, name: str, number: int) -> None:
        await processes.signal_all(await self._recovered_pod(name), _checked_signal(number))

    async def wait_pod(self, name: str) -> int:
        pod = await self._recovered_pod(name)
        if not pod.containers:
            raise InvalidState(f"pod {pod.record.name} has no containers whose end could be waited for")
        return await self._wait(pod.containers[0])

    def rename_pod(self, name: str, new: str) -> PodView:
        """Another name for a pod, and for a container that had the pod's name."""
        pod = self._find_pod(name)
        pod.rename(_checked_name(new))
        return self._pod_view(pod)

    def timeline(self, name: str) -> TimelineView:
        return self._find_pod(name).timeline.view()

    async def statistics(self, name: str) -> StatisticsView:
        return await statistics.measure(await self._recovered_pod(name))

    async def pod_processes(self, name: str) -> list[ProcessView]:
        return await statistics.processes(await self._recovered_pod(name), None)

    def ports(self, name: str) -> list[PortMapping]:
        return list(network.ports(self._find_pod(name)))

    async def add_ports(self, name: str, added: list[PortMapping]) -> list[PortMapping]:
        pod = self._find_pod(name)
        await self._see_through(network.add_ports(pod, added))
        return list(network.ports(pod))

    async def remove_ports(self, name: str, removed: list[PortMapping]) -> list[PortMapping]:
        pod = self._find_pod(name)
        await self._see_through(network.remove_ports(pod, removed))
        return list(network.ports(pod))

    def services(self, name: str) -> list[ServiceSpec]:
        return list(self._find_pod(name).record.spec.services)

    async def set_services(self, name: str, services: list[ServiceSpec]) -> list[ServiceSpec]:
        await self._see_through(network.set_services(self._find_pod(name), tuple(services)))
        return self.services(name)

    # --- Containers ---

    def containers(self) -> list[ContainerView]:
        return [views.container_view(pod, c) for pod in self._live() for c in pod.containers]

    def container(self, name: str) -> ContainerView:
        return views.container_view(*self._find_container(name))

    async def add_container(self, name: str, added: AddedContainer) -> ContainerView:
        """Another container of a pod, not started.  Raises ImageNotFound when its image is not here."""
        pod = self._find_pod(name)
        image = self.images.get(added.container.image)
        container = await self._see_through(containers.add(pod, added, image))
        return views.container_view(pod, container)

    async def start_container(self, name: str) -> ContainerView:
        pod, found = self._find_container(name)
        await self._see_through(containers.start(pod, found))
        return views.container_view(pod, found)

    async def stop_container(self, name: str, *, timeout_s: float | None = None) -> ContainerView:
        pod, found = self._find_container(name)
        await self._see_through(containers.stop(pod, found, timeout_s=timeout_s))
        return views.container_view(pod, found)

    async def remove_container(self, name: str, *, force: bool = False) -> None:
        pod, found = self._find_container(name)
        await self._see_through(containers.remove(pod, found, force=force))

    def rename_container(self, name: str, new: str) -> ContainerView:
        pod, found = self._find_container(name)
        pod.rename_container(found, _checked_name(new))
        return views.container_view(pod, found)

    async def container_processes(self, name: str) -> list[ProcessView]:
        return await statistics.processes(*await self._recovered_container(name))

    async def attach(
        self, container: str, *, start: bool = False, from_start: bool = False, seen: Seen | None = None
    ) -> Attachment:
        """Hold a container's process; with ``start``, start it first: with its pod, unless that runs.

        ``seen``: go on where a client of an earlier daemon was, also when the process has ended since.
        """
        pod, found = await self._recovered_container(container)
        is_running = found.run is not None and found.run.is_running
        if not start and not is_running and not (seen and found.record.process.started):
            raise InvalidState(
                f"cannot attach: container {found.record.name} is not running",
                hint=f"hyper start {pod.record.name}",
            )
        begin = seen or (found.log.unkept if from_start else found.log.seen)
        follower = _follow(found, from_start=from_start, seen=seen)
        try:
            if start:
                running = pod.state is not PodState.CREATED
                starting = containers.start(pod, found) if running else lifecycle.start(pod)
                await self._see_through(starting)
            if found.run is None and not seen:
                raise InvalidState(f"container {found.record.name} did not start")
            begin = Seen(run=found.log.run_start) if start else begin
        except BaseException:
            follower.close()
            raise
        return ProcessAttachment(
            found.run or found.record.process,
            begin,
            follower,
            pod.timeline,
            terminal=found.record.spec.terminal,
        )

    def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float = 0,
        until: float = 0,
    ) -> AsyncIterator[LogRecord]:
        """The stored output; InvalidState when the container keeps none."""
        _, found = self._find_container(container)
        logs.refuse_none(found)
        return logs.read(found, follow=follow, tail=tail, since=since, until=until)

    async def signal_container(self, container: str, number: int) -> None:
        pod, found = await self._recovered_container(container)
        if found.record.state is not ContainerState.RUNNING:
            raise InvalidState(f"cannot kill: container {found.record.name} is not running")
        await processes.signal(pod, found, _checked_signal(number))

    async def wait_container(self, container: str) -> int:
        _, found = await self._recovered_container(container)
        return await self._wait(found)

    async def _wait(self, container: Container) -> int:
        if container.run is not None:
            return exit_code(await container.run.wait())
        return exit_code(container.record.process)

    # --- Files ---

    async def look(self, container: str, path: str, *, follow: bool) -> PathView:
        """What is at ``path`` in a container.  Raises NotFound."""
        return await copying.look(*self._find_container(container), path, follow=follow)

    def pack(self, container: str, path: str, *, follow: bool) -> AsyncIterator[bytes]:
        """A tar of ``path`` in a container, which need not run.  Raises NotFound."""
        return copying.pack(*self._find_container(container), path, follow=follow)

    async def unpack(
        self, container: str, path: str, archive: AsyncIterator[bytes], *, keep_owners: bool
    ) -> None:
        """Write what ``archive`` holds into the directory ``path`` of a container.  Raises NotFound."""
        pod, found = self._find_container(container)
        await self._see_through(copying.unpack(pod, found, path, archive, keep_owners=keep_owners))

    # --- Execs ---

    async def create_exec(self, container: str, spec: ExecSpec) -> ExecView:
        pod, found = await self._recovered_container(container)
        return views.exec_view(processes.add_exec(pod, found, spec))

    async def start_exec(self, exec_id: str) -> Attachment:
        pod, exec_ = await self._unstarted_exec(exec_id)
        await self._see_through(processes.start_exec(pod, exec_, detached=False))
        return pod.execs.attach(exec_, pod.timeline)

    async def start_detached_exec(self, exec_id: str) -> ExecView:
        pod, exec_ = await self._unstarted_exec(exec_id)
        await self._see_through(processes.start_exec(pod, exec_, detached=True))
        return views.exec_view(exec_)

    async def attach_exec(self, exec_id: str, seen: Seen) -> Attachment:
        """Go on where a client of an earlier daemon was, also when the process has ended since."""
        pod, exec_ = await self._recovered_exec(exec_id)
        if not exec_.record.process.started:
            raise InvalidState(f"exec {exec_id[:12]} has not been started")
        return pod.execs.attach(exec_, pod.timeline, seen)

    async def wait_exec(self, exec_id: str) -> int:
        _, exec_ = await self._recovered_exec(exec_id)
        return exit_code(await exec_.run.wait() if exec_.run is not None else exec_.record.process)

    async def _unstarted_exec(self, exec_id: str) -> tuple[Pod, Exec]:
        pod, exec_ = await self._recovered_exec(exec_id)
        if exec_.record.process.number or exec_.record.process.exit_code is not None:
            raise InvalidState(f"exec {exec_id[:12]} has been started already")
        return pod, exec_

    def exec(self, exec_id: str) -> ExecView:
        return views.exec_view(self._find_exec(exec_id)[1])

    # --- Machines and images ---

    def machines(self) -> list[MachineView]:
        return [view for pod in self._live() if (view := views.machine_view(pod)) is not None]

    async def remove_image(self, name: str, *, force: bool) -> list[RemovedView]:
        in_use = {c.record.image_id for pod in self._live() for c in pod.containers}
        removed = await self.images.remove(name, force=force, in_use=in_use)
        return [
            RemovedView(action="Untagged", subject=each.untagged)
            if each.untagged
            else RemovedView(action="Deleted", subject=each.deleted)
            for each in removed
        ]

    # --- The daemon ---

    async def info(self) -> InfoView:
        pods = self._live()
        return await doctor.info(
            self.host,
            pods=len(pods),
            running=sum(pod.running is not None for pod in pods),
            containers=sum(len(pod.containers) for pod in pods),
        )

    def version(self) -> VersionView:
        return doctor.version(self.host)

    async def doctor(self, *, measure: bool) -> DoctorView:
        return await doctor.examine(self.host, measure=measure)

    async def _see_through(self, work: Coroutine[Any, Any, T]) -> T:
        """Finish ``work`` even when the client that asked for it goes away."""
        return await asyncio.shield(self.host.tasks.start(work, name=getattr(work, "__qualname__", "verb")))

    # --- Names ---

    def _live(self) -> list[Pod]:
        """Pods that a user can see, newest first; those that are gone are forgotten on the way."""
        for pod in [p for p in self._pods.values() if p.is_gone]:
            del self._pods[pod.id]
        pods = [pod for pod in self._pods.values() if pod.record.target != "removed"]
        return sorted(pods, key=lambda pod: pod.record.created, reverse=True)

    def _find_pod(self, name: str) -> Pod:
        pods = self._live()
        found = _by_name(name, ((pod.record.name, pod.id, pod) for pod in pods))
        if found is None:
            raise PodNotFound(f"no such pod: {name}", hint="hyper list shows the pods")
        return found

    def _find_container(self, name: str) -> tuple[Pod, Container]:
        """A container by its name or id, or the first container of a pod."""
        pods = self._live()
        every = [(c.record.name, c.record.id, (pod, c)) for pod in pods for c in pod.containers]
        found = _by_name(name, every)
        if found is None:
            found = _by_name(
                name, ((pod.record.name, pod.id, (pod, pod.containers[0])) for pod in pods if pod.containers)
            )
        if found is None:
            raise ContainerNotFound(f"no such container: {name}", hint="hyper ps -a shows the containers")
        return found

    def _find_exec(self, exec_id: str) -> tuple[Pod, Exec]:
        """By its id, or a beginning that only one has."""
        found = [(pod, exec_) for pod in self._live() for exec_ in pod.execs.matching(exec_id)]
        if len(found) != 1 or not exec_id:
            raise ExecNotFound(
                f"no such exec: {exec_id[:64]}", hint="an exec is known as long as its pod runs"
            )
        return found[0]

    # What an earlier daemon left in the middle is waited for, before it is asked whether anything runs.

    async def _recovered_pod(self, name: str) -> Pod:
        pod = self._find_pod(name)
        await pod.recovered.wait()
        return pod

    async def _recovered_container(self, name: str) -> tuple[Pod, Container]:
        pod, found = self._find_container(name)
        await pod.recovered.wait()
        return pod, found

    async def _recovered_exec(self, exec_id: str) -> tuple[Pod, Exec]:
        await self._find_exec(exec_id)[0].recovered.wait()
        return self._find_exec(exec_id)  # unless it ended with its pod

    def _pod_view(self, pod: Pod) -> PodView:
        driver = self.host.drivers.get(pod.record.hypervisor)
        return views.pod_view(pod, driver.capabilities)

    # --- After a restart ---

    async def _recover(self) -> None:
        await self.images.collect()
        self._read_records()
        await self._end_orphans()
        await self.host.templates.clear_drafts()
        for pod in self._pods.values():
            if pod.record.target == "running" and pod.record.lease is not None:
                self.host.leases[pod.id] = pod.record.lease
        await self._reconcile_network()
        recovering = [
            self.host.tasks.start(self._recover_pod(pod), name=f"recover {pod.record.name}")
            for pod in self._pods.values()
        ]
        if recovering:  # whoever has a guest that hangs keeps nobody else waiting
            await asyncio.wait(recovering, timeout=_RECOVERY_TIMEOUT_S)
        self._remove_strays()

    def _read_records(self) -> None:
        containers: dict[str, list[ContainerRecord]] = {}
        for container in self.host.records.containers():
            containers.setdefault(container.pod, []).append(container)
        for record in self.host.records.pods():
            own = sorted(containers.get(record.id, []), key=lambda container: container.index)
            self._pods[record.id] = Pod(self.host, record, own)
        owners = {c.record.id: pod for pod in self._pods.values() for c in pod.containers}
        for exec_ in self.host.records.execs():
            owners[exec_.container].execs.restore(exec_)

    async def _recover_pod(self, pod: Pod) -> None:
        """One pod that cannot be recovered is no reason to serve none."""
        pod.recovered.clear()
        try:
            await recovery.recover(pod, self._pods)
        except HyperError as error:
            logger.error("pod %s could not be recovered: %s", pod.record.name, error.message)
        except Exception:
            logger.exception("pod %s could not be recovered", pod.record.name)
        finally:
            pod.recovered.set()

    async def _reconcile_network(self) -> None:
        try:
            await self.host.networks.reconcile(list(self.host.leases.values()))
        except HyperError as error:
            logger.warning("the network could not be put in order: %s", error.message)

    async def _end_orphans(self) -> None:
        """End VMMs of ours that no record knows: hyperd died between two steps."""
        known = {pod.record.machine for pod in self._pods.values() if pod.record.machine}
        machines = self.host.paths.machines
        for run_dir in await base.end_orphans(machines, [machines / name for name in known]):
            logger.warning("ended machine %s, which no pod owns", run_dir.name)

    def _remove_strays(self) -> None:
        machines = {pod.record.machine for pod in self._pods.values() if pod.record.machine}
        for directory, known in (
            (self.host.paths.machines, machines),
            (self.host.paths.pods, set(self._pods)),
        ):
            for stray in directory.iterdir():
                if stray.name not in known:
                    remove_tree(stray)
        for draft in self.host.paths.cache.rglob(".*"):  # what gets its name when it is complete
            draft.unlink(missing_ok=True)


def _follow(container: Container, *, from_start: bool, seen: Seen | None) -> Follower:
    log = container.log
    if seen is None:
        return log.follow(max(log.run_start, log.start) if from_start else log.size, throttle=True)
    follower = follow_again(log, seen, f"container {container.record.name}")
    if container.run is None or not container.run.is_running:
        follower.end = log.size  # another run may come, which is not this client's
    return follower


def _by_name(name: str, candidates: Iterable[tuple[str, str, T]]) -> T | None:
    """By name, then by id, then by a prefix of the id that only one has."""
    candidates = list(candidates)
    for own_name, own_id, thing in candidates:
        if name in {own_name, own_id}:
            return thing
    matches = [thing for _, own_id, thing in candidates if name and own_id.startswith(name)]
    if len(matches) > 1:
        raise InvalidRequest(f"{name!r} is the beginning of {len(matches)} ids", hint="give more digits")
    return matches[0] if matches else None


def _checked_name(name: str) -> str:
    """Raises InvalidRequest that says what a name may be."""
    try:
        checked = msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"{name[:130]!r} is no name", hint="letters, digits, and _ . - inside"
        ) from error
    if not checked:
        raise InvalidRequest("a name cannot be empty")
    return checked


def _checked_signal(number: int) -> int:
    if not 1 <= number <= 64:
        raise InvalidRequest(f"{number} is no signal", hint="for example 15 for SIGTERM")
    return number
