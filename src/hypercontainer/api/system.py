"""Routes of the daemon itself, and of machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercontainer.api.messages import Answer
from hypercontainer.api.routing import Routes
from hypercontainer.errors import Unavailable
from hypercontainer.model.rest import DoctorView, InfoView, MachineView, VersionView

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine

routes = Routes()


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
