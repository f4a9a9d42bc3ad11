"""Published ports as people write them."""

from __future__ import annotations

import msgspec
import pytest

from hypercontainer.cli.ports import looks_published, published
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.network import PortMapping


def typed(text: str) -> list[PortMapping]:
    return msgspec.convert(published(text), list[PortMapping])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("80", PortMapping(container_port=80)),
        ("8080:80", PortMapping(container_port=80, host_port=8080)),
        ("0:80", PortMapping(container_port=80)),
        (":80", PortMapping(container_port=80)),
        ("53:53/udp", PortMapping(container_port=53, host_port=53, protocol="udp")),
        ("53:53/UDP", PortMapping(container_port=53, host_port=53, protocol="udp")),
        ("127.0.0.1:8080:80", PortMapping(container_port=80, host_port=8080, host_ip="127.0.0.1")),
        ("127.0.0.1::80", PortMapping(container_port=80, host_ip="127.0.0.1")),
        ("[::1]:8080:80", PortMapping(container_port=80, host_port=8080, host_ip="::1")),
    ],
)
def test_a_port_is_read_as_docker_reads_it(text: str, wanted: PortMapping) -> None:
    assert typed(text) == [wanted]


def test_a_range_is_one_mapping_for_each_port() -> None:
    assert [(m.host_port, m.container_port) for m in typed("3000-3002:1300-1302")] == [
        (3000, 1300), (3001, 1301), (3002, 1302),
    ]  # fmt: skip
    assert [m.host_port for m in typed("7000-7003")] == [0] * 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "80:",
        "0",
        "65536",
        "80:70000",
        "1-3:1-2",
        "9-8",
        "80/",
        "80/sctp",
        "a.b:1:2",
        "1:2:3:4",
        "-1:80",
    ],
)
def test_what_is_no_port_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid port"):
        published(text)


@pytest.mark.parametrize("text", ["80", "8080:80", "53/udp", "127.0.0.1:1:2", "[::1]::53/udp", "3-5:6-8"])
def test_a_port_is_never_taken_for_a_podfile(text: str) -> None:
    assert looks_published(text)


@pytest.mark.parametrize("text", ["podfile.json", "./80", "pods/web.yaml", "web", "80.yaml", "/etc/pod.json"])
def test_a_podfile_is_never_taken_for_a_port(text: str) -> None:
    assert not looks_published(text)
