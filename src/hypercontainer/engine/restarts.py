"""When what has ended is started again: Docker's policies, and its pauses between attempts. Pure."""

from __future__ import annotations

import msgspec

from hypercontainer.engine.records import ContainerRecord, Pause
from hypercontainer.model.pod import RestartPolicy
from hypercontainer.model.rest import ContainerState

_FIRST_S = 0.1
_LONGEST_S = 60.0
_STABLE_S = 10.0  # who has run as long begins with the first pause again


def wanted(policy: RestartPolicy, exit_code: int, attempts: int) -> bool:
    """Whether a container that ended by itself is started again; ``attempts`` were made already."""
    match policy.name:
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            return exit_code != 0 and (not policy.max_retries or attempts < policy.max_retries)
    return False


def next_pause(before: Pause, *, ran_s: float, now: float) -> Pause:
    """The pause after a run of ``ran_s`` seconds: twice the one before, up to a minute."""
    length = _FIRST_S if not before.length_s or ran_s >= _STABLE_S else before.length_s * 2
    length = min(length, _LONGEST_S)
    return Pause(length_s=length, until=now + length)


def after_end(container: ContainerRecord, *, now: float) -> ContainerRecord:
    """The record of a container whose process has ended: exited, or waiting to be started again."""
    process = container.process
    policy = container.spec.restart
    again = container.target == "running" and wanted(policy, process.exit_code or 0, container.restarts)
    if not again:
        return msgspec.structs.replace(container, state=ContainerState.EXITED)
    ran_s = process.finished - process.started if process.started else 0
    return msgspec.structs.replace(
        container,
        state=ContainerState.RESTARTING,
        restarts=container.restarts + 1,
        pause=next_pause(container.pause, ran_s=ran_s, now=now),
    )
