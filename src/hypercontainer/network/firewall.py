"""The host's own firewall, where it drops forwarded packets unless told otherwise: Docker's and ufw's do.

An accept in our table is no accept in another's: every chain on the hook has to let a packet pass.  So
two rules go into iptables' FORWARD chain, for our bridge alone; what may pass to a pod is still decided
by our table.  They are set through iptables itself, as nft would make its tables unreadable to it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hypercontainer.errors import Unavailable
from hypercontainer.process import find_program, run

_LEGACY_TABLES = Path("/proc/net/ip_tables_names")


class Chain(msgspec.Struct):
    family: str = ""
    table: str = ""
    name: str = ""
    hook: str = ""
    policy: str = ""

    @property
    def is_iptables(self) -> bool:
        return (self.family, self.table, self.name) == ("ip", "filter", "FORWARD")


class _Item(msgspec.Struct):
    chain: Chain | None = None


class _Listing(msgspec.Struct):
    nftables: list[_Item]


def nft() -> str:
    return find_program("nft", package="nftables")


async def dropping_chains() -> list[Chain]:
    """The chains of nftables, iptables' among them, that drop what they are not told to forward."""
    listing = msgspec.json.decode(await run([nft(), "-j", "list", "chains"]), type=_Listing)
    chains = [item.chain for item in listing.nftables if item.chain is not None]
    return [chain for chain in chains if chain.hook == "forward" and chain.policy == "drop"]


async def let_through(bridge: str) -> None:
    """Have iptables forward what comes from ``bridge`` or goes to it, where it would not."""
    for program in await _dropping_programs():
        for rule in _rules(bridge):
            if not await _succeeds([program, "-w", "-C", "FORWARD", *rule]):
                await run([program, "-w", "-I", "FORWARD", *rule])


async def withdraw(bridge: str) -> None:
    """Remove what ``let_through`` has set; nothing there is no error."""
    for program in await _dropping_programs():
        for rule in _rules(bridge):
            await _succeeds([program, "-w", "-D", "FORWARD", *rule])


def _rules(bridge: str) -> list[list[str]]:
    return [["-i", bridge, "-j", "ACCEPT"], ["-o", bridge, "-j", "ACCEPT"]]


async def _dropping_programs() -> list[str]:
    """The iptables programs whose FORWARD chain drops; none is asked that would first create one."""
    programs = []
    if any(chain.is_iptables for chain in await dropping_chains()):
        programs.append(find_program("iptables-nft", package="iptables"))
    if _LEGACY_TABLES.exists() and "filter" in _LEGACY_TABLES.read_text().split():
        legacy = find_program("iptables-legacy", package="iptables")
        if b"-P FORWARD DROP" in await run([legacy, "-w", "-S", "FORWARD"]):
            programs.append(legacy)
    return programs


async def _succeeds(command: list[str]) -> bool:
    try:
        await run(command)
    except Unavailable:
        return False
    return True
