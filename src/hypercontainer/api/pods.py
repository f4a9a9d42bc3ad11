"""Routes of pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from hypercontainer.api.routing import Routes
from hypercontainer.errors import (
    Conflict,
    GuestError,
    HypervisorError,
    ImageNotFound,
    InvalidRequest,
    InvalidState,
    PodNotFound,
    Unavailable,
    Unsupported,
)
from hypercontainer.model.pod import AddedContainer, PodSpec
from hypercontainer.model.rest import (
    ContainerView,
    PodDetails,
    PodView,
    ProcessView,
    StatisticsView,
    TimelineView,
    WaitView,
)

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine

routes = Routes()

Signal = Annotated[int, Meta(ge=1, le=64)]
Seconds = Annotated[float, Meta(ge=0, le=86400)]


@routes.post(
    "/v1/pods", status=201, errors=(ImageNotFound, Conflict, Unsupported, Unavailable, HypervisorError)
)
async def create_pod(engine: Engine, body: PodSpec) -> PodView:
    """Create a pod; its images must be here."""
    return await engine.create_pod(body)


@routes.get("/v1/pods")
def list_pods(engine: Engine) -> list[PodView]:
    """All pods, the newest first."""
    return engine.pods()


@routes.get("/v1/pods/{pod}", errors=(PodNotFound,))
def inspect_pod(engine: Engine, pod: str) -> PodDetails:
    """A pod with what was asked of it."""
    return engine.pod_details(pod)


@routes.delete("/v1/pods/{pod}", errors=(PodNotFound, Conflict, InvalidState))
async def remove_pod(engine: Engine, pod: str, *, force: bool = False) -> None:
    """Remove a pod and its storage; force stops it first."""
    await engine.remove_pod(pod, force=force)


@routes.post(
    "/v1/pods/{pod}/start",
    errors=(PodNotFound, InvalidState, Conflict, Unavailable, GuestError, HypervisorError),
)
async def start_pod(engine: Engine, pod: str) -> PodView:
    """Start a pod: its machine, then its containers."""
    return await engine.start_pod(pod)


@routes.post("/v1/pods/{pod}/stop", errors=(PodNotFound, InvalidState))
async def stop_pod(engine: Engine, pod: str, *, timeout_s: Seconds | None = None) -> PodView:
    """Stop a pod: its containers get their stop signal, and SIGKILL when its time or this one is up."""
    return await engine.stop_pod(pod, timeout_s=timeout_s)


@routes.post(
    "/v1/pods/{pod}/rename",
    errors=(PodNotFound, Conflict, InvalidRequest),
)
def rename_pod(engine: Engine, pod: str, *, name: str) -> PodView:
    """Give a pod another name, and its container that has the pod's."""
    return engine.rename_pod(pod, name)


@routes.post(
    "/v1/pods/{pod}/containers",
    status=201,
    errors=(PodNotFound, ImageNotFound, Conflict, InvalidState, InvalidRequest),
)
async def add_container(engine: Engine, pod: str, body: AddedContainer) -> ContainerView:
    """Give a pod another container, whether it runs or not; its image must be here."""
    return await engine.add_container(pod, body)


@routes.post(
    "/v1/pods/{pod}/replace",
    errors=(PodNotFound, InvalidState, Conflict, Unsupported, Unavailable, GuestError, HypervisorError),
)
async def replace_pod(engine: Engine, pod: str, *, new: str, timeout_s: Seconds | None = None) -> PodView:
    """Run another, created pod on the machine of this one, which is then created."""
    return await engine.replace_pod(pod, new, timeout_s=timeout_s)


@routes.post("/v1/pods/{pod}/pause", errors=(PodNotFound, InvalidState, Unsupported, HypervisorError))
async def pause_pod(engine: Engine, pod: str) -> PodView:
    """Stop the pod's machine where it is."""
    return await engine.pause_pod(pod)


@routes.post("/v1/pods/{pod}/unpause", errors=(PodNotFound, InvalidState, Unsupported, HypervisorError))
async def unpause_pod(engine: Engine, pod: str) -> PodView:
    """Let a paused pod go on."""
    return await engine.unpause_pod(pod)


@routes.post("/v1/pods/{pod}/kill", errors=(PodNotFound, InvalidState, GuestError))
async def kill_pod(engine: Engine, pod: str, *, signal: Signal = 9) -> None:
    """Send a signal to each container of the pod."""
    await engine.signal_pod(pod, signal)


@routes.get("/v1/pods/{pod}/wait", errors=(PodNotFound,))
async def wait_for_pod(engine: Engine, pod: str) -> WaitView:
    """Held open until the pod's first container has ended."""
    return WaitView(exit_code=await engine.wait_pod(pod))


@routes.get("/v1/pods/{pod}/timeline", errors=(PodNotFound,))
def timeline(engine: Engine, pod: str) -> TimelineView:
    """Where the time of the pod's last start went."""
    return engine.timeline(pod)


@routes.get("/v1/pods/{pod}/statistics", errors=(PodNotFound, InvalidState, GuestError))
async def statistics(engine: Engine, pod: str) -> StatisticsView:
    """What the pod's machine and its containers use, from inside and from outside."""
    return await engine.statistics(pod)


@routes.get("/v1/pods/{pod}/processes", errors=(PodNotFound, InvalidState, GuestError))
async def pod_processes(engine: Engine, pod: str) -> list[ProcessView]:
    """The processes of all containers of a pod, at most 1,000."""
    return await engine.pod_processes(pod)
