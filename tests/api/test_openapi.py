"""The OpenAPI document: valid, complete, and the one that is committed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from hypercontainer.api.app import table
from hypercontainer.api.routing import Route
from hypercontainer.client import Client
from hypercontainer.errors import HyperError
from tests.api.serving import serving
from tests.support.checked import DOCUMENT
from tools import gen_api

ROUTES = table().routes


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT)


@pytest.mark.parametrize("path", gen_api.wanted(), ids=lambda path: path.name)
def test_what_is_committed_is_fresh(path: Path) -> None:
    assert path.read_bytes() == gen_api.wanted()[path], "run: python tools/gen_api.py"


def test_it_is_served(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert json.loads(Client(server.path).request("GET", "/v1/openapi.json").read()) == DOCUMENT


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_says_what_it_does_and_what_may_go_wrong(route: Route) -> None:
    assert len(route.summary) > 10
    assert route.summary.endswith(".")
    operation = DOCUMENT["paths"][route.path.replace(":path}", "}")][route.method.lower()]
    assert "500" in operation["responses"]
    for name in route.path_parameters:
        assert any(parameter["name"] == name for parameter in operation["parameters"])
    for status, answer in operation["responses"].items():
        if int(status) >= 400:
            schema = answer["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorView"}


def test_no_two_routes_have_one_name_or_one_path() -> None:
    assert len({route.handler.__name__ for route in ROUTES}) == len(ROUTES)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_every_code_that_is_documented_is_an_error_of_the_tree() -> None:
    codes = {kind.code for kind in HyperError.registry.values()} | {HyperError.code}
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and status != "426":
                    assert set(answer["description"].split(", ")) <= codes
