"""What this host has for networks, in words: for ``hyper doctor``, and to choose between the two ways."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.config import Paths, Settings
from hypercontainer.errors import HyperError
from hypercontainer.network import filters, firewall, subnets
from hypercontainer.network.base import Networks
from hypercontainer.network.bridge import BridgeNetworks
from hypercontainer.network.resolver import host_resolver, needs_forwarder
from hypercontainer.network.user import UserNetworks
from hypercontainer.process import run

_TUN = Path("/dev/net/tun")

# One rule of each kind that ours are made of, in a table that no packet ever meets.  Each transaction
# is only checked (``nft --check``), so the kernel tells what it lacks, and nothing changes.
_FEATURES = {
    "NAT (nft_nat, nft_masq)": ("nat hook postrouting priority 100", "masquerade"),
    "local addresses (nft_fib)": ("nat hook prerouting priority -100", "fib daddr type local accept"),
    "connection tracking (nft_ct)": ("filter hook forward priority 0", "ct status dnat accept"),
    "published ports (nft_nat)": (
        "nat hook output priority -100",
        "dnat ip to meta l4proto . th dport map { tcp . 9 : 192.0.2.1 . 9 }",
    ),
    "segment sizes (nft_exthdr, nft_rt)": (
        "filter hook forward priority 0",
        "tcp flags syn tcp option maxseg size set rt mtu",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that a network needs."""

    name: str
    is_good: bool
    detail: str = ""
    hint: str = ""


def open_networks(settings: Settings, paths: Paths) -> Networks:
    """The network for this user.  Nothing is started, or found missing, before a pod needs it."""
    return BridgeNetworks(settings, paths) if os.geteuid() == 0 else UserNetworks(settings, paths)


async def probe(settings: Settings) -> list[Check]:
    """Everything that ``open_networks`` would use here."""
    checks = await _root_checks(settings) if os.geteuid() == 0 else _user_checks()
    return [*checks, _names()]


async def _root_checks(settings: Settings) -> list[Check]:
    checks = [
        Check(name="user", is_good=True, detail="root: pods get taps on a bridge"),
        _program("ip", "iproute2"),
        _program("nft", "nftables"),
        _tun(),
        _subnet(settings),
    ]
    if shutil.which("nft"):
        checks += [await _feature(name, *parts) for name, parts in _FEATURES.items()]
        checks.append(await _between_pods())
        checks.append(await _forwarding(settings.bridge))
    return checks


def _user_checks() -> list[Check]:
    return [
        Check(
            name="user",
            is_good=True,
            detail="not root: each pod gets a passt of its own",
            hint="as root, pods are also reached at addresses of their own",
        ),
        _program("passt", "passt"),
    ]


def _program(name: str, package: str) -> Check:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return Check(
        name=name,
        is_good=path is not None,
        detail=path or "not installed",
        hint="" if path else f"apt-get install {package}",
    )


def _tun() -> Check:
    try:
        is_good = stat.S_ISCHR(_TUN.stat().st_mode)
    except OSError:
        is_good = False
    return Check(
        name="taps",
        is_good=is_good,
        detail=str(_TUN) if is_good else f"{_TUN} is missing",
        hint="" if is_good else "modprobe tun, or give the container that device",
    )


def _subnet(settings: Settings) -> Check:
    try:
        subnet = subnets.parse_subnet(settings.subnet)
    except HyperError as error:
        return Check(name="subnet", is_good=False, detail=error.message, hint=error.hint)
    return Check(name="subnet", is_good=True, detail=f"{subnet} on {settings.bridge}")


async def _feature(name: str, hook: str, rule: str) -> Check:
    return await _rules(name, f"table ip hyper-probe {{\n chain probe {{ type {hook};\n {rule}\n }}\n}}\n")


async def _between_pods() -> Check:
    """Without it pods run too, but none can have white lists, and they can take each other's addresses."""
    return await _rules("between pods (nft bridge family)", filters.table("hyper-probe", "02:00:00:00:00:01"))


async def _rules(name: str, text: str) -> Check:
    """Whether the kernel would take ``text``, which it does not get."""
    try:
        await run([firewall.nft(), "--check", "-f", "-"], stdin=text.encode())
    except HyperError as error:
        return Check(
            name=f"nftables: {name}",
            is_good=False,
            detail=error.message,
            hint="the host's kernel lacks it, or may not load the module",
        )
    return Check(name=f"nftables: {name}", is_good=True)


async def _forwarding(bridge: str) -> Check:
    """Chains of others that drop forwarded packets; iptables' we can open, the rest are the operator's."""
    try:
        foreign = [chain for chain in await firewall.dropping_chains() if not chain.is_iptables]
    except HyperError as error:
        return Check(name="forwarding", is_good=False, detail=error.message)
    if not foreign:
        return Check(name="forwarding", is_good=True)
    chain = f"{foreign[0].family} {foreign[0].table} {foreign[0].name}"
    rule = f"nft insert rule {chain}"
    return Check(
        name="forwarding",
        is_good=False,
        detail=f"chain {chain} of the host's firewall drops what it is not told to forward",
        hint=f"{rule} iifname {bridge} accept; {rule} oifname {bridge} accept",
    )


def _names() -> Check:
    servers = host_resolver().servers
    if servers:
        return Check(name="DNS", is_good=True, detail=", ".join(servers))
    if needs_forwarder():
        found = _program("dnsmasq", "dnsmasq-base")
        return Check(
            name="DNS",
            is_good=found.is_good,
            detail="the host's servers are its own: pods ask them through dnsmasq",
            hint=found.hint,
        )
    return Check(
        name="DNS",
        is_good=False,
        detail="/etc/resolv.conf names no server",
        hint="set dns in hyperd.toml",
    )
