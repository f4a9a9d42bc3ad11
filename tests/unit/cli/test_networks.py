"""Services as people write them."""

from __future__ import annotations

import msgspec
import pytest

from hypercontainer.cli.networks import _read_service
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.pod import Backend, ServiceSpec


def test_a_service_is_an_address_a_port_and_backends() -> None:
    read = msgspec.convert(_read_service("10.0.0.1:53/UDP", ["10.0.0.2:5353"]), ServiceSpec)
    assert read == ServiceSpec(
        ip="10.0.0.1", port=53, protocol="udp", backends=(Backend(ip="10.0.0.2", port=5353),)
    )
    assert msgspec.convert(_read_service("10.0.0.1:53", []), ServiceSpec).protocol == "tcp"


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "10.0.0.1:", ":80", "10.0.0.1:80/sctp", "10.0.0.1:80/", "a:b", "a:0"]
)
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        _read_service(text, [])
