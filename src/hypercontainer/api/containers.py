"""Routes of containers and of further processes in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from hypercontainer.api.messages import Stream, Upgrade
from hypercontainer.api.pods import Seconds, Signal
from hypercontainer.api.routing import Routes
from hypercontainer.api.streaming import FRAMES, attached, in_batches
from hypercontainer.engine.streams import Seen
from hypercontainer.errors import (
    Conflict,
    ContainerNotFound,
    ExecNotFound,
    GuestError,
    HypervisorError,
    InvalidRequest,
    InvalidState,
    Unavailable,
)
from hypercontainer.model import frames
from hypercontainer.model.pod import ExecSpec
from hypercontainer.model.rest import ContainerView, ExecView, ProcessView, WaitView

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine
    from hypercontainer.engine.follower import LogRecord

routes = Routes()

Lines = Annotated[int, Meta(ge=0)]
Time = Annotated[float, Meta(ge=0)]
Offset = Annotated[int, Meta(ge=0, le=2**62)]


@routes.get("/v1/containers")
def list_containers(engine: Engine) -> list[ContainerView]:
    """All containers, the ended ones too."""
    return engine.containers()


@routes.get("/v1/containers/{container}", errors=(ContainerNotFound,))
def inspect_container(engine: Engine, container: str) -> ContainerView:
    """A container by name or id; a pod's name is its first container."""
    return engine.container(container)


@routes.delete("/v1/containers/{container}", errors=(ContainerNotFound, InvalidState, GuestError))
async def remove_container(engine: Engine, container: str, *, force: bool = False) -> None:
    """Take a container away from its pod, with what it wrote; force stops it first."""
    await engine.remove_container(container, force=force)


@routes.post(
    "/v1/containers/{container}/start",
    errors=(ContainerNotFound, InvalidState, Unavailable, GuestError, HypervisorError),
)
async def start_container(engine: Engine, container: str) -> ContainerView:
    """Start a container of a running pod: a new one, or one that has ended."""
    return await engine.start_container(container)


@routes.post("/v1/containers/{container}/stop", errors=(ContainerNotFound, InvalidState))
async def stop_container(
    engine: Engine, container: str, *, timeout_s: Seconds | None = None
) -> ContainerView:
    """Stop a container: it gets its stop signal, and SIGKILL when its pod's time or this one is up."""
    return await engine.stop_container(container, timeout_s=timeout_s)


@routes.post("/v1/containers/{container}/rename", errors=(ContainerNotFound, Conflict, InvalidRequest))
def rename_container(engine: Engine, container: str, *, name: str) -> ContainerView:
    """Give a container another name."""
    return engine.rename_container(container, name)


@routes.post("/v1/containers/{container}/kill", errors=(ContainerNotFound, InvalidState, GuestError))
async def kill_container(engine: Engine, container: str, *, signal: Signal = 9) -> None:
    """Send a signal to the container's process."""
    await engine.signal_container(container, signal)


@routes.get("/v1/containers/{container}/processes", errors=(ContainerNotFound, InvalidState, GuestError))
async def container_processes(engine: Engine, container: str) -> list[ProcessView]:
    """The processes of a container, at most 1,000."""
    return await engine.container_processes(container)


@routes.get("/v1/containers/{container}/wait", errors=(ContainerNotFound,))
async def wait_for_container(engine: Engine, container: str) -> WaitView:
    """Held open until the container has ended."""
    return WaitView(exit_code=await engine.wait_container(container))


@routes.get("/v1/containers/{container}/logs", errors=(ContainerNotFound, InvalidState), media_type=FRAMES)
def logs(
    engine: Engine,
    container: str,
    *,
    follow: bool = False,
    tail: Lines | None = None,
    since: Time = 0,
    until: Time = 0,
) -> Stream:
    """What the container printed: frames of u64 nanoseconds since the epoch (big-endian) and data."""
    records = engine.logs(container, follow=follow, tail=tail, since=since, until=until)
    return Stream(chunks=in_batches(_framed(records)), content_type=FRAMES)


async def _framed(records: AsyncIterator[LogRecord]) -> AsyncIterator[bytes]:
    async for record in records:
        yield frames.encode(int(record.stream), record.time_ns.to_bytes(8, "big") + record.data)


@routes.post(
    "/v1/containers/{container}/attach",
    errors=(ContainerNotFound, InvalidState, Conflict, Unavailable, GuestError, HypervisorError),
    upgrade=True,
)
async def attach(
    engine: Engine,
    container: str,
    *,
    start: bool = False,
    from_start: bool = False,
    timeline: bool = False,
    run: Offset | None = None,
    stdout: Offset = 0,
    stderr: Offset = 0,
) -> Upgrade:
    """Take the connection over for the container's streams; start starts it first, or its pod.

    With run (the header Hyper-Run of an earlier attach): go on behind the bytes that were seen of it, also
    when it has ended since.
    """
    seen = None if run is None else Seen(run=run, stdout=stdout, stderr=stderr)
    attachment = await engine.attach(container, start=start, from_start=from_start, seen=seen)
    return attached(attachment, timeline=timeline)


@routes.post("/v1/containers/{container}/execs", status=201, errors=(ContainerNotFound, InvalidState))
async def create_exec(engine: Engine, container: str, body: ExecSpec) -> ExecView:
    """Define a further process in a running container."""
    return await engine.create_exec(container, body)


@routes.post("/v1/execs/{exec_id}/start", errors=(ExecNotFound, InvalidState, GuestError), upgrade=True)
async def start_exec(engine: Engine, exec_id: str) -> Upgrade:
    """Start the process and take the connection over for its streams."""
    return attached(await engine.start_exec(exec_id))


@routes.post("/v1/execs/{exec_id}/detach", errors=(ExecNotFound, InvalidState, GuestError))
async def start_detached_exec(engine: Engine, exec_id: str) -> ExecView:
    """Start the process and leave it to itself; what it prints goes nowhere."""
    return await engine.start_detached_exec(exec_id)


@routes.post("/v1/execs/{exec_id}/attach", errors=(ExecNotFound, InvalidState), upgrade=True)
async def attach_exec(
    engine: Engine, exec_id: str, *, run: Offset, stdout: Offset = 0, stderr: Offset = 0
) -> Upgrade:
    """Go on where an attached client was when hyperd died: run is the header Hyper-Run of its start."""
    return attached(await engine.attach_exec(exec_id, Seen(run=run, stdout=stdout, stderr=stderr)))


@routes.get("/v1/execs/{exec_id}/wait", errors=(ExecNotFound, InvalidState, HypervisorError))
async def wait_for_exec(engine: Engine, exec_id: str) -> WaitView:
    """Held open until the process has ended."""
    return WaitView(exit_code=await engine.wait_exec(exec_id))


@routes.get("/v1/execs/{exec_id}", errors=(ExecNotFound,))
def inspect_exec(engine: Engine, exec_id: str) -> ExecView:
    """The state of a further process; known as long as its pod runs."""
    return engine.exec(exec_id)
