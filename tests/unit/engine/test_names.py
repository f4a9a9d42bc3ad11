"""What a pod may ask of names and services is checked before anything is made."""

from __future__ import annotations

import pytest

from hypercontainer.engine import names
from hypercontainer.errors import InvalidRequest
from hypercontainer.model.pod import Backend, PodSpec, ServiceSpec

BACKEND = Backend(ip="10.0.0.2", port=80)


def a_service(ip: str = "10.254.0.1", *backends: Backend, port: int = 80) -> ServiceSpec:
    return ServiceSpec(ip=ip, port=port, backends=backends or (BACKEND,))


def test_what_can_be_is_let_through() -> None:
    names.check(
        PodSpec(
            dns=("1.1.1.1", "fe80::1"),
            dns_search=("a.example",),
            dns_options=("ndots:2",),
            extra_hosts=("db:10.1.1.1", "six:fd00::1"),
            services=(
                a_service(),
                a_service(port=81),
                a_service("10.254.0.2", Backend(ip="127.0.0.1", port=1)),
            ),
        )
    )


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"dns": ("one.one",)}, "'one.one' is no IP address"),
        ({"dns_search": ("a b",)}, "cannot stand in a resolv.conf"),
        ({"dns_options": ("ndots:2\nnameserver 6.6.6.6",)}, "cannot stand in a resolv.conf"),
        ({"extra_hosts": ("db",)}, "is no IP address"),
        ({"extra_hosts": ("a b:10.1.1.1",)}, "is no host name"),
        ({"extra_hosts": ("db:10.1.1.1\n6.6.6.6 bank",)}, "is no IP address"),
        ({"services": (a_service(), a_service())}, "is there twice"),
        ({"services": (a_service("10.254.0.1", BACKEND, BACKEND),)}, "has a backend twice"),
        ({"services": (a_service("127.0.0.1"),)}, "loopback"),
        ({"services": (a_service("fd00::1"),)}, "is no IPv4 address"),
        ({"services": (a_service("224.0.0.1"),)}, "no single host"),
        ({"services": (a_service("10.254.0.1", Backend(ip="web", port=1)),)}, "'web' is no IPv4 address"),
        ({"services": tuple(a_service(port=port) for port in range(1, 300))}, "at most 256"),
    ],
)
def test_what_cannot_be_is_refused(field: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        names.check(PodSpec(**field))  # type: ignore[arg-type]
