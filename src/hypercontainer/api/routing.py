"""Routes from typed functions: the signature of a handler is what it takes, its annotation what it gives.

    @routes.post("/v1/pods/{pod}/stop", errors=(PodNotFound, InvalidState))
    async def stop_pod(engine: Engine, pod: str, *, timeout_s: float = 10) -> PodView:
        "Stop a pod."

``engine`` comes first.  What is named in the path comes from there (``{name:path}`` may hold slashes);
``body`` is the JSON body, or the body as it comes when its type is `Body`; ``request`` is the request
itself; keyword-only parameters are the query's.  The same facts make the OpenAPI document.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from hypercontainer.api.messages import Body, Request
from hypercontainer.errors import HyperError, InvalidRequest
from hypercontainer.model import json

MAX_PARAMETERS = 100
_IN_PATH = re.compile(r"\{(\w+)(:path)?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    name: str
    kind: Any
    default: Any = inspect.Parameter.empty

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def is_list(self) -> bool:
        return typing.get_origin(self.kind) is tuple

    def convert(self, values: list[str]) -> Any:
        """The query's ``values`` as the parameter's type; raises InvalidRequest that names it."""
        if len(values) > 1 and not self.is_list:
            raise InvalidRequest(f"query parameter {self.name!r} is given {len(values)} times")
        try:
            value = msgspec.convert(values if self.is_list else values[0], self.kind, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"query parameter {self.name!r}: {error}") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRequest(f"query parameter {self.name!r}: {values[0]!r} is no number here")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path, and all that is known of it."""

    method: str
    path: str
    handler: Callable[..., Any]
    status: int
    errors: tuple[type[HyperError], ...]
    media_type: str
    items: Any  # the type of each line of a stream of JSON lines; None: it is something else
    upgrade: bool
    path_parameters: tuple[str, ...]
    query: tuple[Parameter, ...]
    body: Any  # a type, `Body`, or None
    takes_request: bool
    answer: Any

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.handler) or "").partition("\n")[0]

    async def call(self, engine: Any, request: Request, found: dict[str, str]) -> Any:
        arguments: dict[str, Any] = {name: _unquote(value) for name, value in found.items()}
        arguments |= self._query_arguments(request.query)
        if self.takes_request:
            arguments["request"] = request
        if self.body is Body:
            arguments["body"] = request.body
        elif self.body is not None:
            arguments["body"] = json.decode(await request.read_json(), self.body, subject="the body")
        answer = self.handler(engine, **arguments)
        return await answer if inspect.isawaitable(answer) else answer

    def _query_arguments(self, query: str) -> dict[str, Any]:
        given: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
        except ValueError as error:
            raise InvalidRequest(f"the query cannot be read: {error}") from error
        for name, value in pairs:
            given.setdefault(name, []).append(value)
        known = {parameter.name: parameter for parameter in self.query}
        for name in given:
            if name not in known:
                raise InvalidRequest(
                    f"unknown query parameter {name[:100]!r}", hint=f"known: {', '.join(known) or 'none'}"
                )
        for name, parameter in known.items():
            if parameter.is_required and name not in given:
                raise InvalidRequest(f"query parameter {name!r} is needed")
        return {name: known[name].convert(values) for name, values in given.items()}


def _unquote(value: str) -> str:
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{value[:100]!r} is not UTF-8") from error


class Routes:
    """The routes of one noun."""

    def __init__(self) -> None:
        self.all: list[Route] = []

    def get(self, path: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self._route("GET", path, **facts)

    def post(self, path: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self._route("POST", path, **facts)

    def put(self, path: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self._route("PUT", path, **facts)

    def delete(self, path: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return self._route("DELETE", path, **facts)

    def _route(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        errors: tuple[type[HyperError], ...] = (),
        media_type: str = "application/json",
        items: Any = None,
        upgrade: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def add(handler: Callable[..., Any]) -> Callable[..., Any]:
            # Engine is known to type checkers only: routes are made before the engine is imported
            hints = typing.get_type_hints(handler, localns={"Engine": object}, include_extras=True)
            parameters = tuple(inspect.signature(handler).parameters.values())[1:]
            answer = hints.get("return", type(None))
            self.all.append(
                Route(
                    method=method,
                    path=path,
                    handler=handler,
                    status=204 if answer is type(None) else status,
                    errors=errors,
                    media_type=media_type,
                    items=items,
                    upgrade=upgrade,
                    path_parameters=tuple(name for name, _ in _IN_PATH.findall(path)),
                    query=tuple(
                        Parameter(name=parameter.name, kind=hints[parameter.name], default=parameter.default)
                        for parameter in parameters
                        if parameter.kind is parameter.KEYWORD_ONLY
                    ),
                    body=hints.get("body"),
                    takes_request="request" in hints,
                    answer=answer,
                )
            )
            return handler

        return add


@dataclass(frozen=True, slots=True)
class Found:
    route: Route
    parameters: dict[str, str]


class Table:
    """All routes, to be found by method and path: paths without parameters first, then as listed."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._plain: dict[str, dict[str, Route]] = {}
        self._patterns: dict[re.Pattern[str], dict[str, Route]] = {}
        for route in self.routes:
            if route.path_parameters:
                self._patterns.setdefault(_pattern(route.path), {})[route.method] = route
            else:
                self._plain.setdefault(route.path, {})[route.method] = route

    def find(self, method: str, path: str) -> Found | set[str]:
        """The route, or the methods that the path has: none when there is no such path."""
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        if plain := self._plain.get(path):
            if wanted in plain:
                return Found(plain[wanted], {})
            allowed |= set(plain)
        for pattern, methods in self._patterns.items():
            if match := pattern.fullmatch(path):
                if wanted in methods:
                    return Found(methods[wanted], match.groupdict())
                allowed |= set(methods)
        return allowed


def _pattern(path: str) -> re.Pattern[str]:
    parts = []
    at = 0
    for match in _IN_PATH.finditer(path):
        kind = ".+" if match[2] else "[^/]+"
        parts.append(re.escape(path[at : match.start()]) + f"(?P<{match[1]}>{kind})")
        at = match.end()
    return re.compile("".join(parts) + re.escape(path[at:]))
