"""Published ports as people write them: ``[[ADDRESS:]HOST:]CONTAINER[/tcp|udp]``, with ranges."""

from __future__ import annotations

import re

from hypercontainer.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# An address, ports and a protocol, and nothing that a file's name would need: -p 8080:80, -p [::1]::53/udp
# Compiled when it is asked for: at import it would cost each run half a millisecond.
_PUBLISHED = r"(\[[0-9a-fA-F:.%]*\]:|[0-9.]+:)?(\d*(-\d+)?:)?\d+(-\d+)?(/[a-z]+)?"


def looks_published(text: str) -> bool:
    """Whether ``-p text`` is a port, and not the name of a podfile."""
    return re.fullmatch(_PUBLISHED, text) is not None


def published(text: str) -> list[dict[str, Any]]:
    """``text`` as model.network.PortMapping objects in JSON; raises InvalidRequest."""
    rest, slash, protocol = text.partition("/")
    address, host, container = _split(rest)
    if slash and not protocol:
        raise _invalid(text, "there is no protocol after the slash")
    if address:
        import ipaddress  # 2 ms

        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise _invalid(text, f"{address!r} is no IP address") from error
    return mappings(text, container=container, host=host, protocol=protocol or "tcp", address=address)


def mappings(
    subject: str, *, container: str, host: str, protocol: str, address: str = ""
) -> list[dict[str, Any]]:
    """One mapping for each port of two ranges of the same size; ``host`` empty: hyperd chooses."""
    if protocol.lower() not in {"tcp", "udp"}:
        raise _invalid(subject, f"protocol {protocol!r} is neither tcp nor udp")
    inner = _range(subject, container)
    host = "" if host == "0" else host  # as Docker: any free one
    outer = _range(subject, host) if host else range(0)
    if host and len(outer) != len(inner):
        raise _invalid(subject, f"{len(outer)} ports of the host for {len(inner)} of the container")
    return [
        {
            "container_port": port,
            "host_port": outer[index] if outer else 0,
            "host_ip": address,
            "protocol": protocol.lower(),
        }
        for index, port in enumerate(inner)
    ]


def _split(text: str) -> tuple[str, str, str]:
    """Address, host ports and container ports of ``text``, each may be empty but the last."""
    rest, _, container = text.rpartition(":")
    address, _, host = rest.rpartition(":")
    return address.removeprefix("[").removesuffix("]"), host, container


def _range(subject: str, text: str) -> range:
    first, dash, last = text.partition("-")
    try:
        span = range(int(first), int(last if dash else first) + 1)
    except ValueError as error:
        raise _invalid(subject, f"{text!r} is no port or range of ports") from error
    if not span or span[0] < 1 or span[-1] > 65535:
        raise _invalid(subject, f"{text!r} is not within 1-65535, or runs backwards")
    return span


def _invalid(subject: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"invalid port {subject!r}: {why}",
        hint="for example 8080:80, 127.0.0.1:53:53/udp or 3000-3010:3000-3010",
    )
