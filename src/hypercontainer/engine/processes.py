"""Processes in a running pod: starting one, signals, and those that are added to a container."""

from __future__ import annotations

import asyncio
import contextlib
import time
from signal import SIGKILL

import msgspec

from hypercontainer.engine import messages
from hypercontainer.engine.container import Container, Exec
from hypercontainer.engine.pod import Pod
from hypercontainer.engine.records import ProcessRecord
from hypercontainer.engine.running import Running, exec_failure
from hypercontainer.errors import GuestError, HyperError, InvalidState, Unavailable
from hypercontainer.guest.protocol import StartProcess
from hypercontainer.model.pod import ExecSpec

_START_TIMEOUT_S = 30.0


async def start(running: Running, message: StartProcess) -> None:
    """Raises CommandNotFound or CommandNotExecutable, or the guest's own error.

    Unavailable when the guest does not answer in time: then the process may start yet, unseen.
    """
    await running.cleared.wait()
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            await running.agent.start_process(message)
    except TimeoutError as error:
        raise Unavailable(
            f"the guest did not start {message.argv[0]!r} within {_START_TIMEOUT_S:.0f} s",
            hint="hyper list shows whether it answers at all; hyper stop ends it in any case",
        ) from error
    except GuestError as error:
        raise exec_failure(error, message) from error


def refuse_unresponsive(pod: Pod, running: Running) -> None:
    if not running.is_responsive:
        raise Unavailable(
            f"the guest of pod {pod.record.name} does not answer",
            hint="hyper stop ends it in any case",
        )


async def signal_all(pod: Pod, number: int) -> None:
    """Signal the main process of every container that runs."""
    pod.running_or_refuse("kill")
    for container in pod.containers:
        await signal(pod, container, number)


async def signal(pod: Pod, container: Container, number: int) -> None:
    pod.running_or_refuse("kill")
    pod.refuse_paused()
    if number in {SIGKILL, container.record.stop_signal}:  # as in Docker: who ends it wants it ended
        pod.save_container(container, target="created")
    if container.run is not None:
        with contextlib.suppress(GuestError):  # it has just ended by itself
            await container.run.signal(number)


def add_exec(pod: Pod, container: Container, spec: ExecSpec) -> Exec:
    """Define a process beside a container's main one; nothing is started."""
    pod.running_or_refuse("exec")
    if container.run is None or not container.run.is_running:
        raise InvalidState(f"container {container.record.name} is not running")
    return pod.execs.add(container, spec)


def _refuse_started(exec_: Exec) -> None:
    if exec_.record.process.number or exec_.record.process.exit_code is not None:
        raise InvalidState(f"exec {exec_.record.id[:12]} has been started already")


async def start_exec(pod: Pod, exec_: Exec, *, detached: bool) -> None:
    """Start the process of an exec; raises CommandNotFound or CommandNotExecutable."""
    _refuse_started(exec_)
    running = pod.running_or_refuse("exec")
    pod.refuse_paused()
    if pod.is_replaced:  # the next process numbers are those of the pod that gets the machine
        raise InvalidState(f"pod {pod.record.name} is being replaced")
    refuse_unresponsive(pod, running)
    container = pod.container(exec_.record.container)
    message = messages.start_exec(exec_.record.spec, container.record, pod.record, process=pod.next_process())
    pod.execs.save(exec_, ProcessRecord(number=message.process), detached=detached)
    try:
        await start(running, message)
    except HyperError as error:
        pod.execs.save(exec_, ProcessRecord(exit_code=error.exit_status, error=error.message))
        raise
    pod.execs.save(exec_, msgspec.structs.replace(exec_.record.process, started=time.time()))
    pod.execs.follow(running, exec_)
