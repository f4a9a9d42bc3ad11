"""What a pod uses, from inside as its guest tells and from outside as the host does; and its processes."""

from __future__ import annotations

import asyncio
import time

from hypercontainer.engine import memory
from hypercontainer.engine.container import Container
from hypercontainer.engine.pod import Pod
from hypercontainer.errors import InvalidState
from hypercontainer.guest import protocol
from hypercontainer.guest.protocol import GetProcesses, GetStatistics, ProcessEntry, Processes, Statistics
from hypercontainer.model.rest import (
    ContainerStatisticsView,
    DiskStatisticsView,
    NicStatisticsView,
    ProcessView,
    StatisticsView,
)


async def measure(pod: Pod) -> StatisticsView:
    """Counters since the machine's boot; rates are the difference of two by their ``uptime_s``."""
    running = pod.running_or_refuse("measure")
    pod.refuse_paused()
    inside = await running.agent.request(GetStatistics())
    if not isinstance(inside, Statistics):
        raise InvalidState("the guest gave no statistics")
    outside = await asyncio.to_thread(memory.of_session, running.machine.process.pid)
    return StatisticsView(
        uptime_s=inside.uptime_ns / 1e9,
        memory_total=inside.memory_total_bytes,
        memory_used=inside.memory_used_bytes,
        vmm_rss=outside.rss,
        vmm_pss=outside.pss,
        vmm_private=outside.private,
        cpus=inside.cpus,
        cpu_s=inside.cpu_ns / 1e9,
        disks=tuple(_disk(disk) for disk in inside.disks),
        nics=tuple(_nic(nic) for nic in inside.nics),
        containers=_containers(pod, inside),
    )


def _containers(pod: Pod, inside: Statistics) -> tuple[ContainerStatisticsView, ...]:
    told = {each.container: each for each in inside.containers}
    return tuple(
        _container(container, told[container.record.id], inside)
        for container in pod.containers
        if container.record.id in told and container.run is not None and container.run.is_running
    )


def _container(
    container: Container, told: protocol.ContainerStatistics, inside: Statistics
) -> ContainerStatisticsView:
    return ContainerStatisticsView(
        id=container.record.id,
        name=container.record.name,
        memory_used=told.memory_bytes,
        memory_limit=told.memory_limit_bytes or inside.memory_total_bytes,
        cpu_s=told.cpu_ns / 1e9,
        cpu_user_s=told.cpu_user_ns / 1e9,
        cpu_system_s=told.cpu_system_ns / 1e9,
        pids=told.pids,
        read_bytes=told.read_bytes,
        written_bytes=told.written_bytes,
        out_of_memory_kills=told.out_of_memory_kills,
    )


def _disk(disk: protocol.DiskStatistics) -> DiskStatisticsView:
    return DiskStatisticsView(
        slot=disk.slot,
        reads=disk.reads,
        read_bytes=disk.read_bytes,
        writes=disk.writes,
        written_bytes=disk.written_bytes,
        capacity=disk.capacity_bytes,
        used=disk.used_bytes,
        files=disk.files,
    )


def _nic(nic: protocol.NicStatistics) -> NicStatisticsView:
    return NicStatisticsView(
        name=nic.name,
        received_bytes=nic.received_bytes,
        received_packets=nic.received_packets,
        received_errors=nic.received_errors,
        received_dropped=nic.received_dropped,
        sent_bytes=nic.sent_bytes,
        sent_packets=nic.sent_packets,
        sent_errors=nic.sent_errors,
        sent_dropped=nic.sent_dropped,
    )


async def processes(pod: Pod, container: Container | None) -> list[ProcessView]:
    """The processes of a container, or of the whole pod, by their number."""
    running = pod.running_or_refuse("look into")
    pod.refuse_paused()
    if container is not None and (container.run is None or not container.run.is_running):
        raise InvalidState(f"container {container.record.name} is not running")
    statistics, table = await asyncio.gather(
        running.agent.request(GetStatistics()),
        running.agent.request(GetProcesses(container.record.id if container is not None else "")),
    )
    if not isinstance(table, Processes) or not isinstance(statistics, Statistics):
        raise InvalidState("the guest told no processes")
    booted = time.time() - statistics.uptime_ns / 1e9
    names = {each.record.id: each.record.name for each in pod.containers}
    return [_process(entry, names, booted) for entry in sorted(table.processes, key=lambda each: each.pid)]


def _process(entry: ProcessEntry, names: dict[str, str], booted: float) -> ProcessView:
    return ProcessView(
        container=names.get(entry.container, ""),
        pid=entry.pid,
        parent=entry.parent,
        user=entry.user,
        state=entry.state,
        terminal=entry.terminal,
        cpu_s=entry.cpu_ns / 1e9,
        started=booted + entry.started_ns / 1e9,
        memory=entry.memory_bytes,
        command=entry.command,
    )
