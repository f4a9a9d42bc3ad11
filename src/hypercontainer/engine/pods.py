"""The pods of one daemon, and which of them, of their containers and execs, a name or an id means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from hypercontainer.engine.container import Container, Exec
from hypercontainer.engine.pod import Pod
from hypercontainer.errors import ContainerNotFound, ExecNotFound, InvalidRequest, PodNotFound
from hypercontainer.model.pod import Name

T = TypeVar("T")


class Pods:
    """All pods of one daemon."""

    def __init__(self) -> None:
        self.by_id: dict[str, Pod] = {}  # those that are on their way out, too

    def add(self, pod: Pod) -> None:
        self.by_id[pod.id] = pod

    def live(self) -> list[Pod]:
        """Pods that a user can see, newest first; those that are gone are forgotten on the way."""
        for pod in [p for p in self.by_id.values() if p.is_gone]:
            del self.by_id[pod.id]
        pods = [pod for pod in self.by_id.values() if pod.record.target != "removed"]
        return sorted(pods, key=lambda pod: pod.record.created, reverse=True)

    async def close(self) -> None:
        """Let go of every pod; their machines run on."""
        for pod in self.by_id.values():
            if pod.running is not None:
                await pod.running.tasks.close()
                await pod.running.agent.close()
            pod.close()

    # --- By name or id ---

    def find_pod(self, name: str) -> Pod:
        """Raises PodNotFound, and InvalidRequest when the ids of several begin so."""
        found = _by_name(name, ((pod.record.name, pod.id, pod) for pod in self.live()))
        if found is None:
            raise PodNotFound(f"no such pod: {name}", hint="hyper list shows the pods")
        return found

    def find_container(self, name: str) -> tuple[Pod, Container]:
        """A container by its name or id, or the first container of a pod.

        Raises ContainerNotFound, and InvalidRequest when the ids of several begin so.
        """
        pods = self.live()
        every = [(c.record.name, c.record.id, (pod, c)) for pod in pods for c in pod.containers]
        found = _by_name(name, every)
        if found is None:
            found = _by_name(
                name, ((pod.record.name, pod.id, (pod, pod.containers[0])) for pod in pods if pod.containers)
            )
        if found is None:
            raise ContainerNotFound(f"no such container: {name}", hint="hyper ps -a shows the containers")
        return found

    def find_exec(self, exec_id: str) -> tuple[Pod, Exec]:
        """By its id, or a beginning that only one has.  Raises ExecNotFound."""
        found = [(pod, exec_) for pod in self.live() for exec_ in pod.execs.matching(exec_id)]
        if len(found) != 1 or not exec_id:
            raise ExecNotFound(
                f"no such exec: {exec_id[:64]}", hint="an exec is known as long as its pod runs"
            )
        return found[0]

    # What an earlier daemon left in the middle is waited for, before it is asked whether anything runs.

    async def recovered_pod(self, name: str) -> Pod:
        pod = self.find_pod(name)
        await pod.recovered.wait()
        return pod

    async def recovered_container(self, name: str) -> tuple[Pod, Container]:
        pod, found = self.find_container(name)
        await pod.recovered.wait()
        return pod, found

    async def recovered_exec(self, exec_id: str) -> tuple[Pod, Exec]:
        await self.find_exec(exec_id)[0].recovered.wait()
        return self.find_exec(exec_id)  # unless it ended with its pod


def checked_name(name: str) -> str:
    """A name that can be given.  Raises InvalidRequest that says what a name may be."""
    try:
        checked = msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"{name[:130]!r} is no name", hint="letters, digits, and _ . - inside"
        ) from error
    if not checked:
        raise InvalidRequest("a name cannot be empty")
    return checked


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
