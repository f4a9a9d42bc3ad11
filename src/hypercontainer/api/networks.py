"""Routes of a pod's network: published ports and services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercontainer.api.routing import Routes
from hypercontainer.errors import (
    Conflict,
    GuestError,
    InvalidRequest,
    InvalidState,
    PodNotFound,
    Unavailable,
    Unsupported,
)
from hypercontainer.model.network import PortMapping, parse_publish
from hypercontainer.model.pod import ServiceSpec

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine

routes = Routes()

_CHANGE_ERRORS = (PodNotFound, InvalidRequest, Conflict, Unsupported, Unavailable)


@routes.get("/v1/pods/{pod}/ports", errors=(PodNotFound,))
def list_ports(engine: Engine, pod: str) -> list[PortMapping]:
    """What a pod publishes."""
    return engine.ports(pod)


@routes.post("/v1/pods/{pod}/ports", errors=_CHANGE_ERRORS)
async def add_ports(engine: Engine, pod: str, body: list[PortMapping]) -> list[PortMapping]:
    """Publish more ports of a pod, while it runs and at each start; all that it publishes then."""
    return await engine.add_ports(pod, body)


@routes.delete("/v1/pods/{pod}/ports", errors=_CHANGE_ERRORS)
async def remove_ports(engine: Engine, pod: str, *, port: tuple[str, ...]) -> list[PortMapping]:
    """Publish ports no more, each given as to --publish; all that the pod publishes then."""
    mappings = [mapping for text in port for mapping in parse_publish(text)]
    return await engine.remove_ports(pod, mappings)


@routes.get("/v1/pods/{pod}/services", errors=(PodNotFound,))
def list_services(engine: Engine, pod: str) -> list[ServiceSpec]:
    """The services of a pod."""
    return engine.services(pod)


@routes.put(
    "/v1/pods/{pod}/services", errors=(PodNotFound, InvalidRequest, InvalidState, GuestError, Unavailable)
)
async def set_services(engine: Engine, pod: str, body: list[ServiceSpec]) -> list[ServiceSpec]:
    """The services that a pod has from now on, in place of those before."""
    return await engine.set_services(pod, body)
