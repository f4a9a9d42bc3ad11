"""Docker's notation of published ports, and what clumsy hands make of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercontainer.errors import InvalidRequest
from hypercontainer.model.network import PortMapping, parse_publish


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [PortMapping(container_port=80)]),
        ("8080:80", [PortMapping(host_port=8080, container_port=80)]),
        ("8080:80/udp", [PortMapping(host_port=8080, container_port=80, protocol="udp")]),
        ("8080:80/TCP", [PortMapping(host_port=8080, container_port=80)]),
        ("127.0.0.1:8080:80", [PortMapping(host_ip="127.0.0.1", host_port=8080, container_port=80)]),
        ("127.0.0.1::80", [PortMapping(host_ip="127.0.0.1", container_port=80)]),
        ("0.0.0.0:8080:80", [PortMapping(host_port=8080, container_port=80)]),
        ("[::1]:8080:80", [PortMapping(host_ip="::1", host_port=8080, container_port=80)]),
        (
            "8000-8001:9000-9001",
            [
                PortMapping(host_port=8000, container_port=9000),
                PortMapping(host_port=8001, container_port=9001),
            ],
        ),
        ("9000-9001", [PortMapping(container_port=9000), PortMapping(container_port=9001)]),
    ],
)
def test_dockers_notation_is_understood(text: str, expected: list[PortMapping]) -> None:
    assert parse_publish(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "x",
        "80:",
        "0",
        "65536",
        "8080:80/sctp",
        "8080:80/",
        "80-79",
        "8000-8002:80-81",
        "8080:80:80",
        "1.2.3:8080:80",
        "1.2.3.4:80",
        "::1:8080:80",
        "[::1]8080:80",
        "-1:80",
        "8080:80 ",
        "8080:٨٠",
        "80;drop:80",
        "1-65535:1-65534",
    ],
)
def test_nonsense_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid port") as caught:
        parse_publish(text)
    assert caught.value.hint


@given(st.text(alphabet="0123456789:-[]./tcpud \n{}", max_size=24))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        mappings = parse_publish(text)
    except InvalidRequest:
        return
    for mapping in mappings:
        assert 1 <= mapping.container_port <= 65535
        assert msgspec.json.decode(msgspec.json.encode(mapping), type=PortMapping) == mapping


@pytest.mark.parametrize(
    "document",
    [
        '{"container_port": 0}',
        '{"container_port": 80, "host_port": 65536}',
        '{"container_port": 80, "host_ip": "localhost"}',
        '{"container_port": 80, "host_ip": "1.2.3.4 }; flush ruleset"}',
        '{"container_port": 80, "protocol": "sctp"}',
        '{"container_port": 80, "port": 80}',
    ],
)
def test_bad_mappings_from_the_api_are_refused(document: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(document, type=PortMapping)
