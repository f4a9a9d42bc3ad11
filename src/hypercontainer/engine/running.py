"""What a running pod owns, and how its machine is reached: launch to Welcome, or why not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypercontainer.engine.tasks import Tasks
from hypercontainer.errors import (
    CommandNotExecutable,
    CommandNotFound,
    GuestError,
    HyperError,
    HypervisorError,
    Unavailable,
)
from hypercontainer.guest.agent import Agent
from hypercontainer.guest.protocol import StartProcess
from hypercontainer.hypervisors.base import Hypervisor, Machine

T = TypeVar("T")
_END_SEEN_S = 1.0


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True, kw_only=True)
class Running:
    """What a running pod owns."""

    hypervisor: Hypervisor
    machine: Machine
    agent: Agent
    has_pod: bool = False  # whether the guest has been told of the pod
    mounted: set[str] = field(default_factory=set)  # ids of the containers that have their roots
    known: set[int] = field(default_factory=set)  # processes that the guest had before we came
    is_responsive: bool = True  # as of the last Ping
    cleared: asyncio.Event = field(default_factory=_set)  # no disk of a pod before is in the machine
    tasks: Tasks = field(default_factory=Tasks)

    @classmethod
    def found(cls, hypervisor: Hypervisor, machine: Machine, agent: Agent) -> Running:
        """A machine with what its guest says that it has."""
        welcome = agent.welcome
        return cls(
            hypervisor=hypervisor,
            machine=machine,
            agent=agent,
            has_pod=welcome.has_pod,
            mounted=set(welcome.containers),
            known={process.process for process in welcome.processes},
        )


async def before_end(work: Coroutine[Any, Any, T], machine: Machine) -> T:
    """The result of ``work``, unless the machine ends first: then HypervisorError with its last words."""
    task = asyncio.create_task(work)
    end = asyncio.create_task(machine.wait())
    try:
        await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
        if _is_cut_off(task):  # a channel breaks a moment before its machine is seen to have ended
            await asyncio.wait({end}, timeout=_END_SEEN_S)
        if not task.done() or (_is_cut_off(task) and end.done()):
            end.result()  # else the watch itself has failed, and says how
            last = machine.console()[-600:] or "it said nothing"
            raise HypervisorError(f"the machine ended while it started: {last}", hint="see hyper doctor")
        return task.result()
    finally:
        for each in (task, end):
            each.cancel()
        await asyncio.gather(task, end, return_exceptions=True)


def _is_cut_off(task: asyncio.Task[T]) -> bool:
    return task.done() and not task.cancelled() and isinstance(task.exception(), Unavailable)


@contextlib.asynccontextmanager
async def deadline(seconds: float, failure: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise HypervisorError(
            f"{failure} within {seconds:.0f} s", hint="the machine's console log is below the run directory"
        ) from error


def exec_failure(error: GuestError, message: StartProcess) -> HyperError:
    """Why a process could not be started, with the exit status that shells and Docker give."""
    command = message.argv[0]
    if error.operation != "execve":  # an unknown user, say
        return error
    if error.errno == errno.ENOENT:
        return CommandNotFound(f"cannot run {command!r}: no such file or directory in the container")
    if error.errno in {errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.ENOTDIR, errno.ELOOP}:
        return CommandNotExecutable(f"cannot run {command!r}: {os.strerror(error.errno).lower()}")
    return error
