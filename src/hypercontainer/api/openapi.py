"""The OpenAPI 3.1 document and the table of routes in the documentation, from the routes themselves."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

import msgspec

from hypercontainer.api.messages import Body
from hypercontainer.api.routing import Parameter, Route
from hypercontainer.errors import HyperError, InvalidRequest
from hypercontainer.model.rest import ErrorView, StreamKind

_REFERENCES = "#/components/schemas/{name}"

_DESCRIPTION = """\
hyperd's API on its Unix socket. An error is an ErrorView with the HTTP status of its kind; `code` says
which. Attached streams take the connection over (101, `Upgrade: hyper`) and carry frames both ways:
u8 kind, 3 zero bytes, u32 length (big-endian), payload. Kinds: """


@functools.cache
def document() -> bytes:
    """The document as JSON, the same bytes each time."""
    from hypercontainer.api.app import table

    return json.dumps(describe(table().routes), indent=1, sort_keys=True).encode() + b"\n"


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    routes = tuple(routes)
    kinds = list(dict.fromkeys(kind for route in routes for kind in _types(route)))
    schemas, components = msgspec.json.schema_components(
        kinds, ref_template=_REFERENCES, schema_hook=_schema_of_object
    )
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = route.path.replace(":path}", "}")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schema_of)
    frames = ", ".join(f"{kind.value} {kind.name}" for kind in StreamKind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HyperContainer",
            "version": version("hypercontainer"),
            "description": _DESCRIPTION.replace("\n", " ") + frames + ".",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _schema_of_object(kind: type) -> dict[str, Any]:
    """Of what strangers' documents may hold: anything."""
    if kind is object:
        return {"description": "Anything."}
    raise NotImplementedError(kind)


def _types(route: Route) -> Iterator[Any]:
    yield ErrorView
    if route.items is not None:
        yield route.items
    if route.body is not None and route.body is not Body:
        yield route.body
    if _is_json(route):
        yield route.answer
    for parameter in route.query:
        yield parameter.kind


def _is_json(route: Route) -> bool:
    """Whether the answer is the JSON of a type, and no stream, text or nothing."""
    plain = route.media_type == "application/json" and not route.upgrade
    return plain and getattr(route.answer, "__module__", "") != "hypercontainer.api.messages"


def _operation(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "tags": [route.path.split("/")[2].partition(".")[0]],
        "parameters": [
            *(_path_parameter(name) for name in route.path_parameters),
            *(_query_parameter(parameter, schema_of) for parameter in route.query),
        ],
        "responses": _responses(route, schema_of),
    }
    if route.body is Body:
        operation["requestBody"] = {"required": True, "content": {"application/x-tar": {}}}
    elif route.body is not None:
        content = {"application/json": {"schema": schema_of[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameter(parameter: Parameter, schema_of: dict[Any, Any]) -> dict[str, Any]:
    schema = dict(schema_of[parameter.kind])
    if not parameter.is_required and parameter.default is not None:
        schema["default"] = parameter.default
    return {"name": parameter.name, "in": "query", "required": parameter.is_required, "schema": schema}


def _responses(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    responses = {str(route.status): _success(route, schema_of)}
    if route.upgrade:
        responses = {"101": {"description": "The connection carries frames from here on."}}
    needs_check = route.query or route.body is not None or route.path_parameters
    errors = [HyperError, *([InvalidRequest] if needs_check else [])]
    errors += [kind for parent in route.errors for kind in _with_subclasses(parent)]
    for status in sorted({error.http_status for error in errors}):
        codes = dict.fromkeys(error.code for error in errors if error.http_status == status)
        responses[str(status)] = _error(", ".join(codes), schema_of)
    if route.upgrade:
        responses["426"] = _error("invalid_request: no upgrade was asked for", schema_of)
    return responses


def _with_subclasses(kind: type[HyperError]) -> list[type[HyperError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _with_subclasses(child))]


def _success(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    if route.status == 204:
        return {"description": "Done."}
    if _is_json(route):
        return {
            "description": "The answer.",
            "content": {"application/json": {"schema": schema_of[route.answer]}},
        }
    if route.items is not None:
        name = str(schema_of[route.items]["$ref"]).rpartition("/")[2]
        description = f'JSON lines: {name}; a failure is a last line {{"error": ErrorView}}.'
        return {"description": description, "content": {route.media_type: {}}}
    return {"description": route.summary, "content": {route.media_type: {}}}


def _error(codes: str, schema_of: dict[Any, Any]) -> dict[str, Any]:
    return {"description": codes, "content": {"application/json": {"schema": schema_of[ErrorView]}}}


def markdown_table() -> str:
    """The routes, for docs/api.md."""
    from hypercontainer.api.app import table

    lines = ["| method and path | query | body | answer | what it does |", "|---|---|---|---|---|"]
    lines += [_row(route) for route in table().routes]
    return "\n".join(lines) + "\n"


def _row(route: Route) -> str:
    query = ", ".join(
        parameter.name if parameter.is_required else f"{parameter.name}={_shown(parameter.default)}"
        for parameter in route.query
    )
    path = f"`{route.method} {route.path.replace(':path}', '}')}`"
    cells = [path, query, _type_name(route.body), _answer_name(route), route.summary]
    return "| " + " | ".join(cells) + " |"


def _shown(default: Any) -> str:
    if default is None or default in ("", ()):
        return ""
    return str(default).lower()


def _answer_name(route: Route) -> str:
    if route.upgrade:
        return "101, frames"
    if route.items is not None:
        return f"lines of {route.items.__name__}"
    if _is_json(route) or route.status == 204:
        return "204" if route.status == 204 else f"{route.status} {_type_name(route.answer)}"
    return route.media_type


def _type_name(kind: Any) -> str:
    if kind is None:
        return ""
    if kind is Body:
        return "tar"
    return re.sub(r"\w+\.", "", str(kind)) if hasattr(kind, "__args__") else str(kind.__name__)
