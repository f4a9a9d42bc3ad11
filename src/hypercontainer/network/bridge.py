"""Root's network: one bridge, a tap for each pod, NAT and published ports in an nftables table.

    pod ── tap hyXXXXXXXXXXXXX ─┐
    pod ── tap hyYYYYYYYYYYYYY ─┴─ hyper0 (192.168.123.1/24) ── forward, masquerade ── the host's uplink

Several daemons may share a host (``HYPER_ROOT``), so everything says whose it is: the bridge by its
alias, which holds the daemon's state directory, and the taps by a prefix made from it.  Who finds
``hyper0`` taken by another daemon uses ``hyper1`` and the next free subnet.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from hypercontainer.config import Paths, Settings
from hypercontainer.errors import Conflict, InvalidRequest, Unavailable, Unsupported
from hypercontainer.model.machine import Nic, NicKind
from hypercontainer.model.network import Lease, PortMapping
from hypercontainer.network import firewall, links, rules, subnets
from hypercontainer.network.base import Networks
from hypercontainer.network.links import Link
from hypercontainer.network.ports import PortHolder
from hypercontainer.network.resolver import Forwarder, host_resolver, needs_forwarder
from hypercontainer.process import run

log = logging.getLogger(__name__)

_ALIAS = "hyper "  # and the state directory of the daemon that the bridge belongs to
_SYSCTL = Path("/proc/sys/net/ipv4")
_ATTEMPTS = 3  # at a name that another daemon takes in the same moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """The bridge that is up."""

    name: str
    gateway: IPv4Interface
    mtu: int


class BridgeNetworks(Networks):
    """The bridge of one daemon.  It is made when the first pod wants a network."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self._settings = settings
        self._owner = str(paths.state)
        self._alias = f"{_ALIAS}{self._owner}"
        if len(self._alias.encode()) > 255:  # IFALIASZ of if.h
            self._alias = f"hyper#{subnets.letters(self._owner, 32)}"
        self._prefix = subnets.nic_prefix(self._owner)
        self._forwarder = Forwarder(paths.run / "network")
        self._ports = PortHolder()
        self._bridge: Bridge | None = None
        self._building = asyncio.Lock()

    async def allocate(
        self,
        pod_id: str,
        ports: Sequence[PortMapping] = (),
        *,
        others: Collection[Lease] = (),
        previous: Lease | None = None,
    ) -> Lease:
        bridge = await self._ready()
        address = _choose_address(bridge, pod_id, others, previous)
        resolver = host_resolver()
        dns = self._settings.dns or resolver.servers
        if not dns and needs_forwarder():
            await self._forwarder.start(str(bridge.gateway.ip))
            dns = (str(bridge.gateway.ip),)
        return Lease(
            nic_name=subnets.nic_name(self._owner, pod_id),
            mac=subnets.mac_of(address.ip),
            address=str(address),
            gateway=str(bridge.gateway.ip),
            mtu=bridge.mtu,
            dns=dns,
            search=resolver.search,
            ports=self._ports.take(_only_ipv4(ports), others),
        )

    async def attach(self, lease: Lease, kinds: frozenset[NicKind]) -> Nic:
        if NicKind.TAP not in kinds:
            raise Unsupported("this hypervisor driver cannot use a tap, which is all that a bridge has")
        bridge = await self._ready()
        if IPv4Address(lease.ip) not in bridge.gateway.network:
            raise Conflict(
                f"address {lease.address} is not in {bridge.gateway.network}, the network of {bridge.name}",
                hint="stop the pod and start it again: it gets a new address",
            )
        await links.change(_tap_commands(lease, bridge))
        if lease.ports:
            await _nft(rules.publish(bridge.name, [lease]))
        return Nic(mac=lease.mac, kind=NicKind.TAP, backend=lease.nic_name)

    async def detach(self, lease: Lease) -> None:
        await links.remove([lease.nic_name])
        if lease.ports:
            await self._withdraw(lease)
        self._ports.release(lease.ports)

    async def reconcile(self, live: Collection[Lease]) -> None:
        async with self._building:
            if live:
                self._bridge = await self._build(live)
                await links.remove(_strays(await links.links(), self._prefix, live))
                self._ports.hold(live)
            elif own := self._own(found := await links.links()):
                await self._remove(own, found)

    async def close(self) -> None:
        self._ports.close()
        async with self._building:
            found = await links.links()
            own = self._own(found)
            if own and not any(link.master == own.ifname for link in found.values()):
                await self._remove(own, found)

    async def _withdraw(self, lease: Lease) -> None:
        own = self._own(await links.links())
        if own is None:
            return
        try:
            await _nft(rules.withdraw(own.ifname, lease))
        except Unavailable:
            if await _has_table(own.ifname):
                raise

    # --- The bridge ---

    async def _ready(self) -> Bridge:
        """The bridge; made when it is missing, which costs a stat when it is not."""
        async with self._building:
            if self._bridge is None:
                self._bridge = await self._build(())
            elif not links.exists(self._bridge.name):
                log.warning("bridge %s is gone: making it again", self._bridge.name)
                self._bridge = bridge = await self._build_link(self._bridge.gateway.network)
                if not await _has_table(bridge.name):
                    await _nft(rules.table(bridge.name, bridge.gateway.network))
            return self._bridge

    async def _build(self, live: Collection[Lease]) -> Bridge:
        """The bridge and its table with the ports of ``live``."""
        wanted = next((ipaddress.IPv4Interface(lease.address).network for lease in live), None)
        bridge = await self._build_link(wanted or subnets.parse_subnet(self._settings.subnet))
        await _nft(rules.table(bridge.name, bridge.gateway.network) + rules.publish(bridge.name, live))
        await firewall.let_through(bridge.name)
        return bridge

    async def _build_link(self, wanted: IPv4Network) -> Bridge:
        for attempt in range(_ATTEMPTS):
            try:
                bridge = await self._find_or_make(wanted)
            except Unavailable:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            taps = [name for name in await links.links() if name.startswith(self._prefix)]
            await links.change([f"link set dev {name} master {bridge.name}" for name in taps])
            _set_sysctl("ip_forward", "1")
            _set_sysctl(f"conf/{bridge.name}/route_localnet", "1")
            return bridge
        raise AssertionError("unreachable")

    async def _find_or_make(self, wanted: IPv4Network) -> Bridge:
        await _remove_abandoned(await links.links())
        found, routes = await links.links(), await links.routes()
        mtu = _uplink_mtu(found, routes)
        name, gateway = self._choose_name(found)
        if gateway is None:
            taken = [route.network for route in routes if route.dst != "default"]
            taken += [link.interface.network for link in found.values() if link.interface]
            taken += [IPv4Network(server) for server in host_resolver().servers]
            subnet = subnets.free_subnet(wanted, taken)
            if subnet != wanted:
                log.warning("subnet %s overlaps another network of this host: using %s", wanted, subnet)
            gateway = IPv4Interface((subnet.network_address + 1, subnet.prefixlen))
            await self._make(name, gateway, mtu)
        await links.change([f"link set dev {name} up"])
        return Bridge(name=name, gateway=gateway, mtu=mtu)

    def _choose_name(self, found: dict[str, Link]) -> tuple[str, IPv4Interface | None]:
        """The name of our bridge, and its address when it is there already."""
        if own := self._own(found):
            return own.ifname, own.interface
        for name in _names(self._settings.bridge):
            link = found.get(name)
            if link is None:
                return name, None
            if link.kind != "bridge" and name == self._settings.bridge:
                raise Conflict(
                    f"network interface {name} exists and is no bridge",
                    hint="set bridge in hyperd.toml to another name",
                )
        raise Unavailable(f"no name is left for a bridge beside {self._settings.bridge}")

    async def _make(self, name: str, gateway: IPv4Interface, mtu: int) -> None:
        """A new bridge gets its name last, when all else about it is true: then no other daemon can
        mistake it for anything else, and only one of two gets the name.
        """
        nascent = f"{self._prefix}bridge"
        await links.remove([nascent])
        await links.change(
            [
                # A MAC of its own: else it is the lowest of its ports', and changes as pods come and go.
                f"link add dev {nascent} address {subnets.mac_of(gateway.ip)} type bridge forward_delay 0",
                f"link set dev {nascent} addrgenmode none alias {links.quoted(self._alias)} mtu {mtu}",
                f"address add {gateway} broadcast + dev {nascent}",
                f"link set dev {nascent} name {name}",
            ]
        )
        log.info("made bridge %s with %s", name, gateway)

    def _own(self, found: dict[str, Link]) -> Link | None:
        """Our bridge, or the operator's: one that was set up before us is used as it is."""
        bridges = [link for link in found.values() if link.kind == "bridge" and link.interface]
        for link in bridges:
            if link.ifalias == self._alias:
                return link
        for link in bridges:
            if link.ifname == self._settings.bridge and not link.ifalias:
                return link
        return None

    async def _remove(self, bridge: Link, found: dict[str, Link]) -> None:
        """Everything of ours.  The bridge goes last: by its alias a next attempt finds the rest."""
        await self._forwarder.stop()
        await _nft(rules.remove_table(bridge.ifname))
        await firewall.withdraw(bridge.ifname)
        await links.remove(_strays(found, self._prefix, ()))
        if bridge.ifalias == self._alias:
            await links.remove([bridge.ifname])
        self._bridge = None


def _choose_address(
    bridge: Bridge, pod_id: str, others: Collection[Lease], previous: Lease | None
) -> IPv4Interface:
    taken = {IPv4Address(lease.ip) for lease in others}
    if previous is not None:
        address = IPv4Interface(previous.address)
        if address.network == bridge.gateway.network and address.ip not in taken | {bridge.gateway.ip}:
            return address
    return subnets.free_address(bridge.gateway, pod_id, taken)


def _only_ipv4(ports: Sequence[PortMapping]) -> Sequence[PortMapping]:
    for port in ports:
        if ":" in port.host_ip:
            raise InvalidRequest(
                f"cannot publish {port}: pods have IPv4 addresses only",
                hint="publish at an IPv4 address of the host, or at all by naming none",
            )
    return ports


def _tap_commands(lease: Lease, bridge: Bridge) -> list[str]:
    name = lease.nic_name
    leftover = [f"link delete dev {name}"] if links.exists(name) else []
    # A pod that asks for its own published port gets its packet back through its own bridge port.
    hairpin = [f"link set dev {name} type bridge_slave hairpin on"] if lease.ports else []
    return [
        *leftover,
        f"tuntap add dev {name} mode tap",
        f"link set dev {name} addrgenmode none master {bridge.name} mtu {bridge.mtu} up",
        *hairpin,
    ]


async def _remove_abandoned(found: dict[str, Link]) -> None:
    for link in found.values():
        if _is_abandoned(link, found):
            await _nft(rules.remove_table(link.ifname))
            await links.remove([link.ifname])


def _is_abandoned(link: Link, found: dict[str, Link]) -> bool:
    """Whether a daemon left this bridge whose state directory is gone, so that it never comes back."""
    if link.kind != "bridge" or not link.ifalias.startswith(_ALIAS):
        return False
    has_taps = any(other.master == link.ifname for other in found.values())
    return not has_taps and not Path(link.ifalias.removeprefix(_ALIAS)).exists()


def _strays(found: dict[str, Link], prefix: str, live: Collection[Lease]) -> list[str]:
    """Our taps, and bridges half made, that belong to no live pod."""
    wanted = {lease.nic_name for lease in live}
    return [name for name in found if name.startswith(prefix) and name not in wanted]


def _names(first: str) -> Iterator[str]:
    """hyper0, hyper1, ..."""
    yield first
    stem, number = re.fullmatch(r"(.*?)([0-9]*)", first, re.DOTALL).groups()  # type: ignore[union-attr]
    start = int(number or 0) + 1
    yield from (f"{stem}{index}" for index in range(start, start + 99))


def _uplink_mtu(found: dict[str, Link], routes: Sequence[links.Route]) -> int:
    """That of the way out: larger packets of pods would have to be cut up, or be lost."""
    uplinks = (found.get(route.dev) for route in routes if route.dst == "default")
    return min((link.mtu for link in uplinks if link), default=1500)


def _set_sysctl(name: str, value: str) -> None:
    path = _SYSCTL / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise Unavailable(
            f"cannot set {path} to {value}: {error.strerror}",
            hint="pods reach nothing without it; a container that runs hyperd must be privileged",
        ) from error


async def _has_table(name: str) -> bool:
    tables = await run([firewall.nft(), "list", "tables", "ip"])
    return f"table ip {name}" in tables.decode().splitlines()


async def _nft(text: str) -> None:
    try:
        await run([firewall.nft(), "-f", "-"], stdin=text.encode())
    except Unavailable as error:
        raise Unavailable(
            f"cannot set the rules of the network: {error.message}",
            hint="restart hyperd if another program flushed the rules; hyper doctor shows what is missing",
        ) from error
