"""From requests to handlers: the routes of all nouns, and errors as answers."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from hypercontainer.api import archives, containers, images, networks, pods, system, templates
from hypercontainer.api.messages import Answer, Request, Stream, Upgrade
from hypercontainer.api.routing import Found, Table
from hypercontainer.api.streaming import UPGRADE
from hypercontainer.errors import HyperError, InvalidRequest, NotFound
from hypercontainer.model.json import encode
from hypercontainer.model.rest import ErrorView

if TYPE_CHECKING:
    from hypercontainer.engine.engine import Engine

log = logging.getLogger(__name__)


def table() -> Table:
    """Every route of the API."""
    return Table(
        [
            *system.routes.all,
            *pods.routes.all,
            *networks.routes.all,
            *containers.routes.all,
            *archives.routes.all,
            *images.routes.all,
            *templates.routes.all,
        ]
    )


class Api:
    """The application that the server serves."""

    def __init__(self, engine: Engine | Any, routes: Table | None = None) -> None:
        self._engine = engine
        self._table = routes or table()

    async def __call__(self, request: Request) -> Answer | Stream | Upgrade:
        started = time.monotonic()
        try:
            answer = await self._answer(request)
        except HyperError as error:
            log.log(_level(request, error), "%s %s: %s", request.method, request.path, error.message)
            return error_answer(error)
        except Exception:  # the edge of a request: the client learns that, we learn why
            log.exception("%s %s failed", request.method, request.path)
            return error_answer(
                HyperError(
                    f"an internal error of hyperd in {request.method} {request.path}",
                    hint="its log says more",
                )
            )
        spent_ms = (time.monotonic() - started) * 1e3
        log.log(_level(request), "%s %s: %.1f ms", request.method, request.path, spent_ms)
        return answer

    async def _answer(self, request: Request) -> Answer | Stream | Upgrade:
        found = self._table.find(request.method, request.path)
        if not isinstance(found, Found):
            return _no_route(request, found)
        if found.route.upgrade and not request.wants_upgrade_to(UPGRADE):
            error = InvalidRequest(
                f"{request.path} takes the connection over",
                hint=f"send the headers: Connection: Upgrade, Upgrade: {UPGRADE}",
            )
            return error_answer(error, status=426, headers=(("Upgrade", UPGRADE),))
        result = await found.route.call(self._engine, request, found.parameters)
        match result:
            case Answer() | Stream() | Upgrade():
                return result
            case None:
                return Answer(status=204)
        return Answer(status=found.route.status, body=encode(result))


def _level(request: Request, error: HyperError | None = None) -> int:
    """What an operator did is told; that somebody looked, and in vain, is for debugging."""
    if error is not None and error.http_status >= 500:
        return logging.WARNING
    return logging.DEBUG if request.method in {"GET", "HEAD"} else logging.INFO


def error_answer(
    error: HyperError, *, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    view = ErrorView(code=error.code, message=error.message, hint=error.hint)
    return Answer(status=status or error.http_status, body=encode(view), headers=headers)


def _no_route(request: Request, allowed: set[str]) -> Answer:
    if not allowed:
        return error_answer(NotFound(f"no such path: {request.path[:200]}"))
    methods = ", ".join(sorted(allowed))
    error = InvalidRequest(
        f"{request.method} is no method of {request.path[:200]}", hint=f"it has: {methods}"
    )
    return error_answer(error, status=405, headers=(("Allow", methods),))
