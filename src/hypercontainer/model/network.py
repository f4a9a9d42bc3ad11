"""A pod's place in a network: the ports that it publishes, and the lease that is kept with its record."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from hypercontainer.errors import InvalidRequest

Protocol = Literal["tcp", "udp"]

# [ip:][host port or range:]container port or range[/protocol]; an IPv6 address stands in brackets.
_PUBLISH = re.compile(
    r"(?:(?P<ip>\[[^\]]*\]|[^:\[\]]*):(?=[^:]*:))?"
    r"(?:(?P<host>[^:/]*):)?"
    r"(?P<container>[^:/]+)"
    r"(?:/(?P<protocol>[^:/]*))?"
)
_PUBLISH_FORM = (
    "the form is [ADDRESS:][HOST_PORT:]PORT[/tcp|/udp], where ports may be ranges such as 8000-8009"
)


class PortMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port of the host that leads into the pod."""

    container_port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    host_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0  # 0: a free one is chosen
    host_ip: str = ""  # empty: every address of the host
    protocol: Protocol = "tcp"

    def __post_init__(self) -> None:
        if self.host_ip:
            ipaddress.ip_address(self.host_ip)  # its ValueError becomes the decoder's ValidationError

    def __str__(self) -> str:
        host = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip or "0.0.0.0"  # noqa: S104
        return f"{host}:{self.host_port}->{self.container_port}/{self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """All that a network gave a pod.  The engine stores it and hands it back; nobody else keeps it."""

    nic_name: str  # of the tap, or of passt's files: unique on this host, from the pod's id
    mac: str
    address: str  # CIDR
    gateway: str
    mtu: int
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()  # domains for names without dots, resolv.conf(5)
    ports: tuple[PortMapping, ...] = ()  # with the host ports that were chosen

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]


def parse_publish(text: str) -> list[PortMapping]:
    """The mappings that ``text`` asks for, in Docker's notation of ``--publish``."""
    match = _PUBLISH.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"invalid port {text!r}", hint=_PUBLISH_FORM)
    protocol = _protocol(match["protocol"], text)
    container = _port_range(match["container"], text)
    host = _port_range(match["host"], text) if match["host"] else [0] * len(container)
    if len(host) != len(container):
        raise InvalidRequest(
            f"invalid port {text!r}: {len(host)} host ports for {len(container)} container ports",
            hint="both ranges must be of the same length",
        )
    address = _address(match["ip"] or "", text)
    return [
        PortMapping(host_ip=address, host_port=outer, container_port=inner, protocol=protocol)
        for outer, inner in zip(host, container, strict=True)
    ]


def _protocol(name: str | None, text: str) -> Protocol:
    match "tcp" if name is None else name.lower():
        case "tcp":
            return "tcp"
        case "udp":
            return "udp"
    raise InvalidRequest(f"invalid port {text!r}: {name!r} is not tcp or udp", hint=_PUBLISH_FORM)


def _port_range(ports: str, text: str) -> list[int]:
    first, dash, last = ports.partition("-")
    numbers = (first, last) if dash else (first, first)
    if not all(re.fullmatch("[0-9]{1,5}", number) for number in numbers):
        raise InvalidRequest(f"invalid port {text!r}: {ports!r} is no port", hint=_PUBLISH_FORM)
    start, end = map(int, numbers)
    if not 1 <= start <= end <= 65535:
        raise InvalidRequest(f"invalid port {text!r}: {ports!r} is not within 1 to 65535", hint=_PUBLISH_FORM)
    return list(range(start, end + 1))


def _address(address: str, text: str) -> str:
    bare = address.removeprefix("[").removesuffix("]")
    if not bare:
        return ""
    try:
        parsed = ipaddress.ip_address(bare)
    except ValueError as error:
        raise InvalidRequest(
            f"invalid port {text!r}: {bare!r} is no IP address", hint=_PUBLISH_FORM
        ) from error
    return "" if parsed.is_unspecified and parsed.version == 4 else str(parsed)
