"""What happened to pods, containers, execs and images, in Docker's words: told, and kept a while.

Events of pods, containers and execs come from their records: whoever writes one has told what happened.
A recorded event is the difference between a record and the one before it; those of images come from the
store of images.  The newest are kept in memory for who asks later, and go with the daemon.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence

from hypercontainer.engine.records import ContainerRecord, ExecRecord, PodRecord, Record
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.rest import ContainerState, EventView

KEPT = 1024  # of the newest, for `hyper events --since`
_BEHIND = 4096  # that a listener may be; then it has lost some, and is told so by the end of its stream


class Events:
    """All events of one daemon.  ``record`` is called with each change of a record."""

    def __init__(self) -> None:
        self._recent: deque[EventView] = deque(maxlen=KEPT)
        self._listeners: set[asyncio.Queue[EventView]] = set()
        self._records: dict[str, Record] = {}  # as they were, by id
        self._owners: dict[str, str] = {}  # the name of the pod that has a machine, or had it last

    def publish(
        self, kind: str, action: str, subject: str, name: str, attributes: dict[str, str] | None = None
    ) -> None:
        event = EventView(
            type=kind,
            action=action,
            id=subject,
            name=name,
            attributes=attributes or {},
            time_ns=time.time_ns(),
        )
        self._recent.append(event)
        for queue in [each for each in self._listeners if each.full()]:
            self._listeners.discard(queue)
        for queue in self._listeners:
            queue.put_nowait(event)

    async def listen(
        self, since: float = 0, until: float = 0, filters: Sequence[tuple[str, str]] = ()
    ) -> AsyncIterator[EventView]:
        """Those kept that are not older than ``since`` (0: none), then all that come, up to ``until``."""
        async for event in self._all(since, until):
            if matches(event, filters):
                yield event

    async def _all(self, since: float, until: float) -> AsyncIterator[EventView]:
        queue: asyncio.Queue[EventView] = asyncio.Queue(_BEHIND)
        recent = [event for event in self._recent if since and event.time_ns >= since * 1e9]
        self._listeners.add(queue)
        try:
            for event in recent:
                if until and event.time_ns > until * 1e9:
                    return
                yield event
            while (left := until - time.time() if until else None) is None or left > 0:
                try:
                    yield await asyncio.wait_for(queue.get(), left)
                except TimeoutError:
                    return
                if queue not in self._listeners and queue.empty():
                    return
        finally:
            self._listeners.discard(queue)

    # --- From records ---

    def known(self, record: Record) -> None:
        """A record that an earlier daemon wrote: no event."""
        self._records[_key(record)] = record
        if isinstance(record, PodRecord) and record.machine:
            self._owners[record.machine] = record.name

    def record(self, after: Record) -> None:
        """``after`` was written."""
        before = self._records.get(_key(after))
        self._records[_key(after)] = after
        match after:
            case PodRecord():
                self._pod(before if isinstance(before, PodRecord) else None, after)
            case ContainerRecord():
                self._container(before if isinstance(before, ContainerRecord) else None, after)
            case ExecRecord():
                self._exec(before if isinstance(before, ExecRecord) else None, after)

    def gone(self, subject: str) -> None:
        """The record of a pod, container or exec was removed, and with a pod those of its containers."""
        record = self._records.pop(subject, None)
        if isinstance(record, PodRecord):
            self._records[subject] = record  # its containers are still told as its own
            for container in [c for c in self._containers() if c.pod == subject]:
                self.gone(container.id)
            del self._records[subject]
            self._owners.pop(record.machine, None)
            self.publish("pod", "destroy", record.id, record.name)
        elif isinstance(record, ContainerRecord):
            self.publish("container", "destroy", record.id, record.name, self._about(record))

    def _about(self, container: ContainerRecord) -> dict[str, str]:
        pod = self._records.get(container.pod)
        return {
            "image": container.spec.image,
            "pod": pod.name if isinstance(pod, PodRecord) else "",
            "podID": container.pod,
        }

    def _containers(self) -> Iterator[ContainerRecord]:
        return (record for record in self._records.values() if isinstance(record, ContainerRecord))

    def _pod(self, before: PodRecord | None, after: PodRecord) -> None:
        for action, attributes in pod_actions(before, after, self._owners):
            self.publish("pod", action, after.id, after.name, attributes)
        if after.machine:
            self._owners[after.machine] = after.name

    def _container(self, before: ContainerRecord | None, after: ContainerRecord) -> None:
        for action, attributes in container_actions(before, after):
            self.publish("container", action, after.id, after.name, self._about(after) | attributes)

    def _exec(self, before: ExecRecord | None, after: ExecRecord) -> None:
        container = self._records.get(after.container)
        if not isinstance(container, ContainerRecord):
            return
        about = self._about(container) | {"execID": after.id, "command": " ".join(after.spec.command)[:200]}
        for action, attributes in exec_actions(before, after):
            self.publish("container", action, container.id, container.name, about | attributes)


_FILTERS = ("type", "event", "pod", "container", "image")


def parse_filter(text: str) -> tuple[str, str]:
    """``event=die`` in two; raises InvalidRequest."""
    key, equals, value = text.partition("=")
    if key not in _FILTERS or not equals:
        raise InvalidRequest(
            f"invalid filter {text[:100]!r}", hint=f"KEY=VALUE, with a key of {', '.join(_FILTERS)}"
        )
    return key, value


def matches(event: EventView, filters: Sequence[tuple[str, str]]) -> bool:
    """As Docker: of filters with one key, any suffices; of different keys, all are needed."""
    return all(any(_has(event, key, value) for other, value in filters if other == key) for key, _ in filters)


def _has(event: EventView, key: str, value: str) -> bool:
    match key:
        case "type":
            return event.type == value
        case "event":
            return event.action == value
        case "image":
            image = event.name if event.type == "image" else event.attributes.get("image", "")
            return value in {image, image.removesuffix(":latest")}
        case "pod" if event.type == "container":
            return value == event.attributes["pod"] or event.attributes["podID"].startswith(value)
    return event.type == key and (event.name == value or event.id.startswith(value))


Actions = Iterator[tuple[str, dict[str, str]]]


def pod_actions(before: PodRecord | None, after: PodRecord, owners: dict[str, str]) -> Actions:
    """What happened to a pod; ``owners`` has who had a machine last: from another pod it was taken over."""
    if before is None:
        yield "create", {}
        return
    if after.name != before.name:
        yield "rename", {"oldName": before.name}
    if after.machine and after.machine != before.machine:
        owner = owners.get(after.machine, after.name)
        yield ("start", {}) if owner == after.name else ("replace", {"old": owner})
    if after.paused != before.paused and after.machine:
        yield ("pause" if after.paused else "unpause"), {}
    if before.machine and not after.machine:
        yield "stop", {"reason": after.reason} if after.reason else {}


def container_actions(before: ContainerRecord | None, after: ContainerRecord) -> Actions:
    """What happened to a container."""
    if before is None:
        yield "create", {}
        return
    if after.name != before.name:
        yield "rename", {"oldName": before.name}
    process, was = after.process, before.process
    if process.started and (process.number, bool(was.started)) != (was.number, True):
        yield "start", {}
    if after.state is ContainerState.EXITED and process.exit_code is not None and process != was:
        if process.out_of_memory:
            yield "oom", {}
        yield "die", {"exitCode": str(process.exit_code)}


def exec_actions(before: ExecRecord | None, after: ExecRecord) -> Actions:
    """What happened to an exec."""
    if before is None:
        yield "exec_create", {}
        return
    if after.process.started and not before.process.started:
        yield "exec_start", {}
    if after.process.exit_code is not None and before.process.exit_code is None:
        yield "exec_die", {"exitCode": str(after.process.exit_code)}


def _key(record: Record) -> str:
    assert isinstance(record, PodRecord | ContainerRecord | ExecRecord)
    return record.id
