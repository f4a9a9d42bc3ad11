"""Routes of the daemon itself, and of machines."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, cast

from msgspec import Meta

from hypercontainer.api.messages import Answer, Stream
from hypercontainer.api.routing import Routes
from hypercontainer.api.streaming import JSON_LINES
from hypercontainer.engine.events import parse_filter
from hypercontainer.errors import InvalidRequest, Unavailable
from hypercontainer.model.json import encode
from hypercontainer.model.rest import DoctorView, EventView, InfoView, MachineView, VersionView

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine

routes = Routes()

Time = Annotated[float, Meta(ge=0)]


@routes.get("/v1/ping", media_type="text/plain")
def ping(_: Engine) -> Answer:
    """Whether hyperd answers: ``OK``."""
    return Answer(body=b"OK", content_type="text/plain")


@routes.get("/v1/version")
def version(engine: Engine) -> VersionView:
    """Versions of hyperd, of this API and of the guests' kernel."""
    return engine.version()


@routes.get("/v1/info")
async def info(engine: Engine) -> InfoView:
    """What this host is and how much hyperd has."""
    return await engine.info()


@routes.get("/v1/doctor", errors=(Unavailable,))
async def doctor(engine: Engine, *, measure: bool = False) -> DoctorView:
    """Which drivers work here and why the others do not; measure boots a machine with each."""
    return await engine.doctor(measure=measure)


@routes.get("/v1/openapi.json", media_type="application/json")
def openapi(_: Engine) -> Answer:
    """This document."""
    from hypercontainer.api.openapi import document  # late: it needs every route

    return Answer(body=document())


@routes.get("/v1/machines")
def machines(engine: Engine) -> list[MachineView]:
    """The machines that run."""
    return engine.machines()


@routes.get("/v1/events", errors=(InvalidRequest,), media_type=JSON_LINES, items=EventView)
def events(engine: Engine, *, since: Time = 0, until: Time = 0, filter: tuple[str, ...] = ()) -> Stream:
    """What happens, as it does; since: also what happened, of the newest 1,024; filter: KEY=VALUE."""
    parsed = [parse_filter(text) for text in filter]
    return Stream(chunks=_lines(engine.host.events.listen(since, until, parsed)), content_type=JSON_LINES)


async def _lines(events: AsyncIterator[EventView]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(cast("Any", events)):
        async for event in events:
            yield encode(event) + b"\n"
