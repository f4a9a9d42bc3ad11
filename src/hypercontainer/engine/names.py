"""The names that a pod is told of: servers to ask, and hosts that it knows without asking."""

from __future__ import annotations

import ipaddress
import re

from hypercontainer.errors import InvalidRequest
from hypercontainer.model.pod import PodSpec

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


def _check_address(text: str, subject: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidRequest(f"{subject}: {text!r} is no IP address") from error
