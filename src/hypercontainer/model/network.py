"""A pod's place in a network: what it asks for, and the lease that is kept with its record."""

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


class InterfaceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A NIC of the pod; what is empty is chosen."""

    bridge: str = ""  # of the host; empty: hyper's own
    address: str = ""  # IPv4, CIDR; needed with a bridge that is not hyper's
    name: str = ""  # in the pod; empty: eth0, eth1, ...
    mac: str = ""
    mtu: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    gateway: str = ""  # at most one interface of a pod has one

    def __post_init__(self) -> None:
        """Each ValueError becomes the decoder's ValidationError."""
        if self.address:
            ipaddress.IPv4Interface(self.address)
        if self.gateway:
            ipaddress.IPv4Address(self.gateway)
        if self.mac and not is_unicast(self.mac):
            raise ValueError(f"{self.mac!r} is no unicast MAC address, such as 02:00:00:00:00:01")
        if self.name and not _is_link_name(self.name):
            raise ValueError(f"{self.name!r} is no name for an interface: 1 to 15 characters, no blank, '/'")
        if self.bridge and not _is_link_name(self.bridge):
            raise ValueError(f"{self.bridge!r} is no name of a bridge")
        if 0 < self.mtu < 68:  # RFC 791
            raise ValueError(f"an MTU of {self.mtu} is too small for IPv4: 68 is the least")


class AllowLists(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may reach the pod, in CIDR: ``internal`` networks every port, ``external`` the published ones.

    Two empty lists restrict nothing, as in the original.
    """

    internal: tuple[str, ...] = ()
    external: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for network in (*self.internal, *self.external):
            ipaddress.IPv4Network(network)  # strict: 10.0.0.1/8 is a mistake, not 10.0.0.0/8

    def __bool__(self) -> bool:
        return bool(self.internal or self.external)


@dataclass(frozen=True, slots=True, kw_only=True)
class NicLease:
    """What a network gave one NIC of a pod."""

    nic_name: str  # of the tap, or of passt's files: unique on this host, from the pod's id
    mac: str
    address: str  # CIDR
    gateway: str = ""  # of the pod's default route; empty: another NIC has it, or none
    mtu: int
    name: str = "eth0"  # in the pod
    bridge: str = ""  # the host's, which is not ours; empty: hyper's own

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """All that a network gave a pod.  The engine stores it and hands it back; nobody else keeps it."""

    nics: tuple[NicLease, ...]  # at least one, in the order asked
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()  # domains for names without dots, resolv.conf(5)
    ports: tuple[PortMapping, ...] = ()  # with the host ports that were chosen
    allow: AllowLists | None = None  # None: nobody is kept out

    @property
    def own(self) -> tuple[NicLease, ...]:
        """The NICs on hyper's own network."""
        return tuple(nic for nic in self.nics if not nic.bridge)

    @property
    def ip(self) -> str:
        """The pod's address: where published ports lead, and what its hostname means."""
        return (self.own or self.nics)[0].ip


def is_unicast(mac: str) -> bool:
    """Whether ``mac`` is well formed, and the address of one station (IEEE 802: the first byte is even)."""
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", mac):
        return False
    return int(mac[:2], 16) % 2 == 0 and mac != "00:00:00:00:00:00"


def _is_link_name(name: str) -> bool:
    """As the kernel has it (dev_valid_name), and no pattern or name with a meaning of its own."""
    return re.fullmatch(r"[^\s/:%\x00]{1,15}", name) is not None and name not in {".", "..", "lo"}


def parse_publish(text: str) -> list[PortMapping]:
    """The mappings that ``text`` asks for, in Docker's notation of ``--publish``."""
    match = _PUBLISH.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"invalid port {text!r}", hint=_PUBLISH_FORM)
    protocol = _protocol(match["protocol"], text)
    container = _port_range(match["container"], text)
    host = _port_range(match["host"], text) if match["host"] not in {None, "", "0"} else [0] * len(container)
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
