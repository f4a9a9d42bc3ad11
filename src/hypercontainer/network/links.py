"""The host's links and routes through ``ip`` of iproute2: one process for a whole batch of changes.

A batch of three commands takes 3 ms, process included, so nothing faster is needed.  Removing a link
takes the kernel 15 to 50 ms (it waits for readers of the link), whoever asks.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv4Network

import msgspec

from hypercontainer.errors import Unavailable
from hypercontainer.process import find_program, run


class LinkAddress(msgspec.Struct):
    family: str = ""
    local: str = ""
    prefixlen: int = 32


class LinkInfo(msgspec.Struct):
    info_kind: str = ""


class Link(msgspec.Struct):
    """A network interface as ``ip -json -details address`` tells it."""

    ifname: str = ""
    ifalias: str = ""
    address: str = ""  # the MAC
    mtu: int = 1500
    master: str = ""
    linkinfo: LinkInfo = msgspec.field(default_factory=LinkInfo)
    addr_info: list[LinkAddress] = []

    @property
    def kind(self) -> str:
        return self.linkinfo.info_kind

    @property
    def interface(self) -> IPv4Interface | None:
        """The first IPv4 address, with its network."""
        for address in self.addr_info:
            if address.family == "inet":
                return ipaddress.IPv4Interface(f"{address.local}/{address.prefixlen}")
        return None


class Route(msgspec.Struct):
    dst: str
    dev: str = ""

    @property
    def network(self) -> IPv4Network:
        return IPv4Network("0.0.0.0/0" if self.dst == "default" else self.dst, strict=False)


def program() -> str:
    return find_program("ip", package="iproute2")


async def links() -> dict[str, Link]:
    """Every link of the host by name."""
    found = msgspec.json.decode(await _show("address"), type=list[Link])
    return {link.ifname: link for link in found if link.ifname}


async def routes() -> list[Route]:
    """The IPv4 routes of the main table."""
    return msgspec.json.decode(await _show("route"), type=list[Route])


async def _show(what: str) -> bytes:
    return (await run([program(), "-json", "-details", what])).strip() or b"[]"


async def change(commands: Sequence[str]) -> None:
    """Apply ``commands`` in order; raises Unavailable at the first that fails, which ends the batch."""
    if commands:
        await run([program(), "-batch", "-"], stdin="".join(f"{line}\n" for line in commands).encode())


async def remove(names: Sequence[str]) -> None:
    """Remove links; one that is already gone is no error."""
    names = [name for name in names if exists(name)]
    try:
        await change([f"link delete dev {name}" for name in names])
    except Unavailable:
        if any(exists(name) for name in names):
            raise


def exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)  # not /sys: that shows the network of whoever mounted it
    except OSError:
        return False
    return True


def quoted(text: str) -> str:
    """``text`` as one word of a batch line (iproute2's own quoting)."""
    return json.dumps(text, ensure_ascii=False).replace("\\n", " ")
