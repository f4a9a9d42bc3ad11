"""A client that holds every answer against the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from hypercontainer.api import openapi
from hypercontainer.api.app import table
from hypercontainer.api.routing import Found
from hypercontainer.client import Client
from hypercontainer.client.http import Answer
from hypercontainer.client.streams import Attached
from hypercontainer.errors import HyperError

DOCUMENT: dict[str, Any] = json.loads(openapi.document())
_TABLE = table()


class CheckedClient(Client):
    """Raises AssertionError or ValidationError when hyperd does not do what the document says."""

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        try:
            answer = super().request(method, path, query=query, body=body, headers=headers)
        except HyperError as error:
            _check_error(method, path, error)
            raise
        assert str(answer.status) in _responses(method, path)
        return answer

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
    ) -> Any:
        value = super().call(method, path, query=query, body=body)
        _check_answer(method, path, value)
        return value

    def upgrade(self, path: str, *, query: Mapping[str, object] | None = None) -> Attached:
        try:
            attached = super().upgrade(path, query=query)
        except HyperError as error:
            _check_error("POST", path, error)
            raise
        assert "101" in _responses("POST", path)
        return attached


def _responses(method: str, path: str) -> dict[str, Any]:
    found = _TABLE.find(method, path)
    assert isinstance(found, Found), f"{method} {path} is in no document"
    operation = DOCUMENT["paths"][found.route.path.replace(":path}", "}")][method.lower()]
    responses: dict[str, Any] = operation["responses"]
    return responses


def _check_answer(method: str, path: str, value: Any) -> None:
    success = next(answer for status, answer in _responses(method, path).items() if status.startswith("2"))
    if "content" not in success:
        assert value is None
        return
    schema = success["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def _check_error(method: str, path: str, error: HyperError) -> None:
    answer = _responses(method, path).get(str(error.http_status))
    assert answer is not None, f"{method} {path}: {error.http_status} is not documented ({error!r})"
    assert error.code in answer["description"].split(", "), f"{method} {path}: {error.code} is not documented"
