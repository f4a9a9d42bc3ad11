"""Addresses as people write them, checked and in one form: for flags, podfiles and manifests."""

from __future__ import annotations

import re
from collections.abc import Callable

from hypercontainer.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HOST = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?\.?")
_LINK = re.compile(r"[^\s/:%\x00]{1,15}")
_MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")


def address(text: str) -> str:
    """An IP address."""
    import ipaddress  # late: 6 ms

    return _read(ipaddress.ip_address, text, "IP address")


def gateway(text: str) -> str:
    """An IPv4 address."""
    import ipaddress

    return _read(ipaddress.IPv4Address, text, "IPv4 address", hint="for example 10.1.0.1")


def network(text: str) -> str:
    """An IPv4 network in CIDR form; an address alone is the network of only it."""
    import ipaddress

    try:
        return str(ipaddress.IPv4Network(text))
    except ValueError as error:
        if "host bits" in str(error):
            mask = ipaddress.IPv4Network(text, strict=False)
            raise InvalidRequest(
                f"{text!r} is an address in a network", hint=f"the network is {mask}"
            ) from error
        raise InvalidRequest(
            f"{text[:60]!r} is no IPv4 network in CIDR form", hint="for example 10.1.0.0/16"
        ) from error


def interface(text: str) -> str:
    """An IPv4 address of a NIC, with the length of its network's prefix where it has one."""
    import ipaddress

    read = ipaddress.IPv4Interface if "/" in text else ipaddress.IPv4Address
    return _read(read, text, "IPv4 address of an interface", hint="for example 10.1.0.5/24")


def _read(read: Callable[[str], object], text: str, what: str, *, hint: str = "") -> str:
    """In the form of what ``read`` makes of it; its ValueError says that ``text`` is no ``what``."""
    try:
        return str(read(text))
    except ValueError as error:
        raise InvalidRequest(f"{text[:60]!r} is no {what}", hint=hint) from error


def mac(text: str) -> str:
    if not _MAC.fullmatch(text):
        raise InvalidRequest(f"{text[:60]!r} is no MAC address", hint="for example 52:54:00:12:34:56")
    if int(text[:2], 16) & 1:
        raise InvalidRequest(f"{text} is the address of a group", hint="the first byte of a NIC's is even")
    if not int(text.replace(":", ""), 16):
        raise InvalidRequest(f"{text} is no NIC's address", hint="for example 52:54:00:12:34:56")
    return text.lower()


def link(text: str) -> str:
    """The name of an interface or of a bridge, as the kernel takes it (dev_valid_name)."""
    if not _LINK.fullmatch(text) or text in {".", "..", "lo"}:
        raise InvalidRequest(f"{text[:60]!r} is no name of an interface", hint="for example eth0")
    return text


def extra_host(text: str) -> str:
    """``name:address``, or Docker's ``name=address``, for /etc/hosts; an IPv6 one may stand in brackets."""
    match = re.fullmatch(r"([^:=]+)[:=](.+)", text)
    if not match or not _HOST.fullmatch(match[1]):
        raise InvalidRequest(f"{text[:60]!r} is no name and address", hint="for example db:10.1.0.5")
    return f"{match[1]}:{address(match[2].removeprefix('[').removesuffix(']'))}"


def nic(**words: Any) -> dict[str, Any]:
    """A model.pod.InterfaceSpec with what is said of it."""
    return {key: value for key, value in words.items() if value}
