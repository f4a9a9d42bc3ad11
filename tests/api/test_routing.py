"""From a request's text to a handler's arguments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from hypercontainer.api.routing import Routes
from hypercontainer.client import Client
from hypercontainer.errors import HyperError, InvalidRequest, NotFound
from tests.api.serving import serving


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    routes = Routes()

    @routes.get("/things")
    def plain(_: object) -> str:
        return "all"

    @routes.post("/things/new")
    def new(_: object, *, reference: str) -> str:
        return f"new {reference}"

    @routes.get("/things/{name}/parts/{part}")
    def part(_: object, name: str, part: str) -> list[str]:
        return [name, part]

    @routes.get("/images/{name:path}")
    def image(_: object, name: str) -> str:
        return name

    @routes.post("/images/pull")
    def pull(_: object, *, reference: str) -> str:
        return f"pull {reference}"

    @routes.get("/query")
    def query(
        _: object,
        *,
        flag: bool = False,
        count: Annotated[int, Meta(ge=0)] | None = None,
        seconds: Annotated[float, Meta(ge=0)] = 1.5,
        change: tuple[str, ...] = (),
    ) -> list[object]:
        return [flag, count, seconds, change]

    with serving(tmp_path, routes) as server:
        yield Client(server.path)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/things", "all"),
        ("/things/a%2Fb/parts/c%20d", ["a/b", "c d"]),
        ("/images/debian", "debian"),
        ("/images/registry.example:5000/a/b:1.2@sha256:00", "registry.example:5000/a/b:1.2@sha256:00"),
        ("/images/a%2Fb%3A1", "a/b:1"),
        ("/images/pull", "pull"),
        ("/images/%C3%A9", "é"),
        ("/images//", "/"),
        ("/query", [False, None, 1.5, []]),
        ("/query?flag=true&count=3&seconds=0.25&change=A%20b&change=c", [True, 3, 0.25, ["A b", "c"]]),
        ("/query?flag=0", [False, None, 1.5, []]),
    ],
)
def test_paths_and_queries_become_arguments(client: Client, path: str, answer: object) -> None:
    assert client.call("GET", path) == answer


def test_a_fixed_path_has_its_own_method(client: Client) -> None:
    assert client.call("POST", "/images/pull", query={"reference": "x:1"}) == "pull x:1"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/query?flag=maybe", "'flag': Expected `bool`"),
        ("/query?count=-1", "'count': Expected `int` >= 0"),
        ("/query?count=1e3x", "'count'"),
        ("/query?count=", "'count'"),
        ("/query?seconds=nan", "'seconds'"),
        ("/query?seconds=inf", "'seconds'"),
        ("/query?seconds=-1", "'seconds'"),
        ("/query?flag=1&flag=0", "'flag' is given 2 times"),
        ("/query?flog=1", "unknown query parameter 'flog'"),
        ("/query?" + "change=x&" * 200, "the query cannot be read"),
        ("/query?change=%FF", "the query cannot be read"),
        ("/images/%FF", "is not UTF-8"),
    ],
)
def test_a_bad_query_is_refused_by_its_parameter(client: Client, path: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        client.call("GET", path)
    assert message in refusal.value.message


def test_a_parameter_that_is_needed_is_named(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="'reference' is needed"):
        client.call("POST", "/things/new")


@pytest.mark.parametrize("path", ["/", "/thing", "/things/", "/things/a/parts", "/images/", "//things"])
def test_a_path_that_is_none_is_not_found(client: Client, path: str) -> None:
    with pytest.raises(NotFound, match="no such path"):
        client.call("GET", path)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_a_method_that_is_none_is_refused(client: Client, method: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{method} is no method"):
        client.call(method, "/things")


@pytest.mark.parametrize("kind", [HyperError, *HyperError.registry.values()], ids=lambda kind: kind.__name__)
def test_every_error_is_raised_again_by_the_client(kind: type[HyperError], tmp_path: Path) -> None:
    routes = Routes()

    @routes.get("/fail")
    def fail(_: object) -> str:
        raise kind('what "failed"\nand why', hint="what to do: é")

    with serving(tmp_path, routes) as server, pytest.raises(HyperError) as raised:
        Client(server.path).call("GET", "/fail")
    assert type(raised.value) is kind
    assert raised.value.message == 'what "failed"\nand why'
    assert raised.value.hint == "what to do: é"


def test_every_error_has_a_code_and_a_status_of_its_own_kind() -> None:
    kinds = HyperError.registry.values()
    assert len({kind.code for kind in kinds}) == len(list(kinds))
    assert all(400 <= kind.http_status < 600 for kind in kinds)
