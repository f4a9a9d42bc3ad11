"""The names that a pod is told of: servers to ask, and hosts that it knows without asking."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from hypercontainer.errors import InvalidRequest
from hypercontainer.model.pod import PodSpec, ServiceSpec

_SERVICES, _BACKENDS = 256, 256
_HOST_NAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?")


def check(spec: PodSpec) -> None:
    """Refuse addresses and names that are none."""
    for server in spec.dns:
        _check_address(server, f"dns {server!r}")
    for entry in spec.extra_hosts:
        name, _, address = entry.partition(":")
        if not _HOST_NAME.fullmatch(name):
            raise InvalidRequest(f"extra host {entry!r}: {name!r} is no host name", hint="NAME:ADDRESS")
        _check_address(address, f"extra host {entry!r}")
    for word in (*spec.dns_search, *spec.dns_options):
        if not word or re.search(r"\s", word):
            raise InvalidRequest(f"{word!r} cannot stand in a resolv.conf", hint="one word for each entry")

    check_services(spec.services)


def check_services(services: Sequence[ServiceSpec]) -> None:
    """Refuse services that are there twice, and addresses that IPv4 cannot balance."""
    if len(services) > _SERVICES or any(len(each.backends) > _BACKENDS for each in services):
        raise InvalidRequest(f"a pod has at most {_SERVICES} services, each of {_BACKENDS} backends")
    seen = set()
    for each in services:
        name = f"service {each.ip}:{each.port}/{each.protocol}"
        if (key := (each.ip, each.port, each.protocol)) in seen:
            raise InvalidRequest(f"{name} is there twice")
        seen.add(key)
        _check_ipv4(each.ip, name)
        if ipaddress.ip_address(each.ip).is_loopback:
            raise InvalidRequest(f"{name}: a loopback address is no service's", hint="choose a private one")
        for backend in each.backends:
            _check_ipv4(backend.ip, f"{name}, backend {backend.ip}:{backend.port}")
        if len(set(each.backends)) < len(each.backends):
            raise InvalidRequest(f"{name} has a backend twice")


def _check_ipv4(text: str, subject: str) -> None:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise InvalidRequest(f"{subject}: {text!r} is no IPv4 address") from error
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        raise InvalidRequest(f"{subject}: {text} is the address of no single host")


def _check_address(text: str, subject: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidRequest(f"{subject}: {text!r} is no IP address") from error
