"""The engine's face: every verb of pods, containers, execs and images, by name or id.

It finds what a name means (``pods``) and calls it; what happens then is in ``lifecycle``, ``processes`` and
the other modules beside this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

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
from hypercontainer.engine.container import Container
from hypercontainer.engine.follower import Follower, LogRecord
from hypercontainer.engine.host import Host
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.pods import Pods, checked_name
from hypercontainer.engine.process import exit_code
from hypercontainer.engine.records import ContainerRecord, PodRecord
from hypercontainer.engine.streams import Attachment, Seen
from hypercontainer.errors import HyperError, InvalidRequest, InvalidState, Unavailable
from hypercontainer.files import remove_tree
from hypercontainer.model.network import PortMapping
from hypercontainer.model.pod import AddedContainer, ExecSpec, PodSpec, ServiceSpec
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

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Engine:
    """All verbs of one daemon."""

    def __init__(self, host: Host, pods: Pods) -> None:
        self.host = host
        self.images = host.images
        self._pods = pods

    @classmethod
    async def open(cls, paths: Paths, settings: Settings) -> Engine:
        """Read the records, find the machines that run, and clear away what belongs to nobody."""
        host = Host.open(paths, settings)
        pods = await recovery.recover(host)
        host.pool.open()
        return cls(host, pods)

    async def close(self) -> None:
        """Let go of everything; the machines of pods run on."""
        await self.host.tasks.close()
        await self.host.pool.close()
        await self._pods.close()
        await self.host.close()

    async def abandon(self) -> None:
        """Let go of everything, and end the machines: what the next hyperd would find them by has gone."""
        await self.host.tasks.close()
        for pod in self._pods.by_id.values():
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
        self._pods.add(pod)
        return self._pod_view(pod)

    def pods(self) -> list[PodView]:
        """Newest first, as Docker lists."""
        return [self._pod_view(pod) for pod in self._pods.live()]

    def pod(self, name: str) -> PodView:
        return self._pod_view(self._pods.find_pod(name))

    def pod_details(self, name: str) -> PodDetails:
        pod = self._pods.find_pod(name)
        running = pod.running
        return PodDetails(
            pod=self._pod_view(pod),
            spec=pod.record.spec,
            kernel=running.agent.welcome.kernel_release if running else "",
            disk=str(pod.disk),
            console=str(pod.run_dir / "console.log") if running else "",
        )

    async def start_pod(self, name: str) -> PodView:
        pod = self._pods.find_pod(name)
        await self._see_through(lifecycle.start(pod))
        return self._pod_view(pod)

    async def stop_pod(self, name: str, *, timeout_s: float | None = None) -> PodView:
        pod = self._pods.find_pod(name)
        view = self._pod_view(pod)
        await self._see_through(lifecycle.stop(pod, timeout_s=timeout_s))
        return self._pod_view(pod) if pod.record.target != "removed" else view

    async def replace_pod(self, name: str, new: str, *, timeout_s: float | None = None) -> PodView:
        """Run the pod ``new`` on the machine of another, which ends Created."""
        old, successor = self._pods.find_pod(name), self._pods.find_pod(new)
        await self._see_through(replacement.replace(old, successor, timeout_s=timeout_s))
        return self._pod_view(successor)

    async def remove_pod(self, name: str, *, force: bool = False) -> None:
        await self._see_through(lifecycle.remove(self._pods.find_pod(name), force=force))

    async def pause_pod(self, name: str) -> PodView:
        pod = self._pods.find_pod(name)
        await self._see_through(lifecycle.pause(pod))
        return self._pod_view(pod)

    async def unpause_pod(self, name: str) -> PodView:
        pod = self._pods.find_pod(name)
        await self._see_through(lifecycle.unpause(pod))
        return self._pod_view(pod)

    async def signal_pod(self, name: str, number: int) -> None:
        await processes.signal_all(await self._pods.recovered_pod(name), _checked_signal(number))

    async def wait_pod(self, name: str) -> int:
        pod = await self._pods.recovered_pod(name)
        if not pod.containers:
            raise InvalidState(f"pod {pod.record.name} has no containers whose end could be waited for")
        return await self._wait(pod.containers[0])

    def rename_pod(self, name: str, new: str) -> PodView:
        """Another name for a pod, and for a container that had the pod's name."""
        pod = self._pods.find_pod(name)
        pod.rename(checked_name(new))
        return self._pod_view(pod)

    def timeline(self, name: str) -> TimelineView:
        return self._pods.find_pod(name).timeline.view()

    async def statistics(self, name: str) -> StatisticsView:
        return await statistics.measure(await self._pods.recovered_pod(name))

    async def pod_processes(self, name: str) -> list[ProcessView]:
        return await statistics.processes(await self._pods.recovered_pod(name), None)

    def ports(self, name: str) -> list[PortMapping]:
        return list(network.ports(self._pods.find_pod(name)))

    async def add_ports(self, name: str, added: list[PortMapping]) -> list[PortMapping]:
        pod = self._pods.find_pod(name)
        await self._see_through(network.add_ports(pod, added))
        return list(network.ports(pod))

    async def remove_ports(self, name: str, removed: list[PortMapping]) -> list[PortMapping]:
        pod = self._pods.find_pod(name)
        await self._see_through(network.remove_ports(pod, removed))
        return list(network.ports(pod))

    def services(self, name: str) -> list[ServiceSpec]:
        return list(self._pods.find_pod(name).record.spec.services)

    async def set_services(self, name: str, services: list[ServiceSpec]) -> list[ServiceSpec]:
        await self._see_through(network.set_services(self._pods.find_pod(name), tuple(services)))
        return self.services(name)

    # --- Containers ---

    def containers(self) -> list[ContainerView]:
        return [views.container_view(pod, c) for pod in self._pods.live() for c in pod.containers]

    def container(self, name: str) -> ContainerView:
        return views.container_view(*self._pods.find_container(name))

    async def add_container(self, name: str, added: AddedContainer) -> ContainerView:
        """Another container of a pod, not started.  Raises ImageNotFound when its image is not here."""
        pod = self._pods.find_pod(name)
        image = self.images.get(added.container.image)
        container = await self._see_through(containers.add(pod, added, image))
        return views.container_view(pod, container)

    async def start_container(self, name: str) -> ContainerView:
        pod, found = self._pods.find_container(name)
        await self._see_through(containers.start(pod, found))
        return views.container_view(pod, found)

    async def stop_container(self, name: str, *, timeout_s: float | None = None) -> ContainerView:
        pod, found = self._pods.find_container(name)
        await self._see_through(containers.stop(pod, found, timeout_s=timeout_s))
        return views.container_view(pod, found)

    async def remove_container(self, name: str, *, force: bool = False) -> None:
        pod, found = self._pods.find_container(name)
        await self._see_through(containers.remove(pod, found, force=force))

    def rename_container(self, name: str, new: str) -> ContainerView:
        pod, found = self._pods.find_container(name)
        pod.rename_container(found, checked_name(new))
        return views.container_view(pod, found)

    async def container_processes(self, name: str) -> list[ProcessView]:
        return await statistics.processes(*await self._pods.recovered_container(name))

    async def attach(
        self, container: str, *, start: bool = False, from_start: bool = False, seen: Seen | None = None
    ) -> Attachment:
        """Hold a container's process; with ``start``, start it first: with its pod, unless that runs.

        ``seen``: go on where a client of an earlier daemon was, also when the process has ended since.
        """
        pod, found = await self._pods.recovered_container(container)
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
        _, found = self._pods.find_container(container)
        logs.refuse_none(found)
        return logs.read(found, follow=follow, tail=tail, since=since, until=until)

    async def signal_container(self, container: str, number: int) -> None:
        pod, found = await self._pods.recovered_container(container)
        if found.record.state is not ContainerState.RUNNING:
            raise InvalidState(f"cannot kill: container {found.record.name} is not running")
        await processes.signal(pod, found, _checked_signal(number))

    async def wait_container(self, container: str) -> int:
        _, found = await self._pods.recovered_container(container)
        return await self._wait(found)

    async def _wait(self, container: Container) -> int:
        if container.run is not None:
            return exit_code(await container.run.wait())
        return exit_code(container.record.process)

    # --- Files ---

    async def look(self, container: str, path: str, *, follow: bool) -> PathView:
        """What is at ``path`` in a container.  Raises NotFound."""
        return await copying.look(*self._pods.find_container(container), path, follow=follow)

    def pack(self, container: str, path: str, *, follow: bool) -> AsyncIterator[bytes]:
        """A tar of ``path`` in a container, which need not run.  Raises NotFound."""
        return copying.pack(*self._pods.find_container(container), path, follow=follow)

    async def unpack(
        self, container: str, path: str, archive: AsyncIterator[bytes], *, keep_owners: bool
    ) -> None:
        """Write what ``archive`` holds into the directory ``path`` of a container.  Raises NotFound."""
        pod, found = self._pods.find_container(container)
        await self._see_through(copying.unpack(pod, found, path, archive, keep_owners=keep_owners))

    # --- Execs ---

    async def create_exec(self, container: str, spec: ExecSpec) -> ExecView:
        pod, found = await self._pods.recovered_container(container)
        return views.exec_view(processes.add_exec(pod, found, spec))

    async def start_exec(self, exec_id: str) -> Attachment:
        pod, exec_ = await self._pods.recovered_exec(exec_id)
        await self._see_through(processes.start_exec(pod, exec_, detached=False))
        return pod.execs.attach(exec_, pod.timeline)

    async def start_detached_exec(self, exec_id: str) -> ExecView:
        pod, exec_ = await self._pods.recovered_exec(exec_id)
        await self._see_through(processes.start_exec(pod, exec_, detached=True))
        return views.exec_view(exec_)

    async def attach_exec(self, exec_id: str, seen: Seen) -> Attachment:
        """Go on where a client of an earlier daemon was, also when the process has ended since."""
        pod, exec_ = await self._pods.recovered_exec(exec_id)
        if not exec_.record.process.started:
            raise InvalidState(f"exec {exec_id[:12]} has not been started")
        return pod.execs.attach(exec_, pod.timeline, seen)

    async def wait_exec(self, exec_id: str) -> int:
        _, exec_ = await self._pods.recovered_exec(exec_id)
        return exit_code(await exec_.run.wait() if exec_.run is not None else exec_.record.process)

    def exec(self, exec_id: str) -> ExecView:
        return views.exec_view(self._pods.find_exec(exec_id)[1])

    # --- Machines and images ---

    def machines(self) -> list[MachineView]:
        return [view for pod in self._pods.live() if (view := views.machine_view(pod)) is not None]

    async def remove_image(self, name: str, *, force: bool) -> list[RemovedView]:
        in_use = {c.record.image_id for pod in self._pods.live() for c in pod.containers}
        removed = await self.images.remove(name, force=force, in_use=in_use)
        return [
            RemovedView(action="Untagged", subject=each.untagged)
            if each.untagged
            else RemovedView(action="Deleted", subject=each.deleted)
            for each in removed
        ]

    # --- The daemon ---

    async def info(self) -> InfoView:
        pods = self._pods.live()
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

    def _pod_view(self, pod: Pod) -> PodView:
        driver = self.host.drivers.get(pod.record.hypervisor)
        return views.pod_view(pod, driver.capabilities)


def _follow(container: Container, *, from_start: bool, seen: Seen | None) -> Follower:
    log = container.log
    if seen is None:
        return log.follow(max(log.run_start, log.start) if from_start else log.size, throttle=True)
    follower = follow_again(log, seen, f"container {container.record.name}")
    if container.run is None or not container.run.is_running:
        follower.end = log.size  # another run may come, which is not this client's
    return follower


def _checked_signal(number: int) -> int:
    if not 1 <= number <= 64:
        raise InvalidRequest(f"{number} is no signal", hint="for example 15 for SIGTERM")
    return number
