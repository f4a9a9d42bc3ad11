"""Choices: a subnet that is free on this host, an address in it for a pod, names of NICs.  Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypercontainer.errors import InvalidRequest, Unavailable

_PRIVATE = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))  # RFC 1918


def parse_subnet(text: str) -> IPv4Network:
    """The setting ``subnet``; raises InvalidRequest for what cannot hold a gateway and two pods."""
    try:
        subnet = IPv4Network(text)
    except ValueError as error:
        raise InvalidRequest(
            f"subnet {text!r} is no IPv4 network: {error}", hint="for example 10.88.0.0/16"
        ) from error
    if not 8 <= subnet.prefixlen <= 29:
        raise InvalidRequest(
            f"subnet {text!r} is too {'large' if subnet.prefixlen < 8 else 'small'}",
            hint="its prefix must be from /8 to /29",
        )
    return subnet


def free_subnet(wanted: IPv4Network, taken: Collection[IPv4Network]) -> IPv4Network:
    """``wanted``, or the next of its size that overlaps nothing that the host has a route to."""
    for candidate in _candidates(wanted):
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise Unavailable(
        f"subnet {wanted} and its neighbours overlap networks that this host already reaches",
        hint="set subnet in hyperd.toml to a private network that the host does not use",
    )


def _candidates(wanted: IPv4Network) -> Iterator[IPv4Network]:
    """``wanted`` first, then its neighbours upwards, within the private block that it is in."""
    yield wanted
    block = next((private for private in _PRIVATE if wanted.subnet_of(private)), wanted)
    count = block.num_addresses // wanted.num_addresses
    first = (int(wanted.network_address) - int(block.network_address)) // wanted.num_addresses
    for step in range(1, min(count, 256)):
        offset = (first + step) % count * wanted.num_addresses
        yield IPv4Network((int(block.network_address) + offset, wanted.prefixlen))


def free_address(gateway: IPv4Interface, pod_id: str, taken: Iterable[IPv4Address]) -> IPv4Interface:
    """An address beside ``gateway``: the search starts where the pod's id says.

    So an address is not given to the next pod as soon as it is free, while the host's connection
    tracking may still remember the pod before.
    """
    network, used = gateway.network, {*taken, gateway.ip}
    usable = network.num_addresses - 2
    start = int.from_bytes(hashlib.sha256(pod_id.encode()).digest()[:8]) % usable
    for step in range(usable):
        address = network.network_address + 1 + (start + step) % usable
        if address not in used:
            return IPv4Interface((address, network.prefixlen))
    raise Unavailable(
        f"network {network} is full: all of its {usable - 1} addresses are leased",
        hint="remove pods, or set a larger subnet in hyperd.toml",
    )


def mac_of(address: IPv4Address) -> str:
    """A locally administered MAC that says the address: who gets an address again gets its MAC too.

    Then no neighbour's ARP cache is ever wrong.
    """
    return ":".join(f"{byte:02x}" for byte in b"\x02h" + address.packed)


def letters(text: str, count: int) -> str:
    """A short name for a long one: 5 bits of its SHA-256 for each letter."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:count]


def nic_prefix(owner: str) -> str:
    """How the names of all NICs of the daemon begin whose state directory is ``owner``."""
    return f"hy{letters(owner, 4)}"


def nic_name(owner: str, pod_id: str, index: int = 0) -> str:
    """Unique on the host, the same after a restart, and of the 15 bytes that a link may have (IFNAMSIZ)."""
    return f"{nic_prefix(owner)}{letters(f'{pod_id}/{index}' if index else pod_id, 9)}"
