"""Root's network: one bridge, a tap for each pod, NAT and published ports in an nftables table.

    pod ── tap hyXXXXXXXXXXXXX ─┐
    pod ── tap hyYYYYYYYYYYYYY ─┴─ hyper0 (192.168.123.1/24) ── forward, masquerade ── the host's uplink

Several daemons may share a host (``HYPER_ROOT``), so everything says whose it is: the bridge by its
alias, which holds the daemon's state directory, and the taps by a prefix made from it.  Who finds
``hyper0`` taken by another daemon uses ``hyper1`` and the next free subnet.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from hypercontainer.config import Paths, Settings
from hypercontainer.errors import Conflict, InvalidRequest, Unavailable, Unsupported
from hypercontainer.model.machine import Nic, NicKind
from hypercontainer.model.network import AllowLists, InterfaceSpec, Lease, PortMapping
from hypercontainer.network import firewall, links, subnets, taps
from hypercontainer.network import interfaces as wanted
from hypercontainer.network.base import Networks
from hypercontainer.network.interfaces import Bridge
from hypercontainer.network.links import Link
from hypercontainer.network.ports import HostPort, PortHolder
from hypercontainer.network.resolver import Forwarder, host_resolver, needs_forwarder
from hypercontainer.network.tables import Tables, remove_tables

log = logging.getLogger(__name__)

_ALIAS = "hyper "  # and the state directory of the daemon that the bridge belongs to
_SYSCTL = Path("/proc/sys/net/ipv4")
_ATTEMPTS = 3  # at a name that another daemon takes in the same moment


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
        self._tables = Tables()
        self._bridge: Bridge | None = None
        self._building = asyncio.Lock()

    def check(
        self, interfaces: Sequence[InterfaceSpec], ports: Sequence[PortMapping], allow: AllowLists | None
    ) -> None:
        for port in ports:
            if ":" in port.host_ip:
                raise InvalidRequest(
                    f"cannot publish {port}: pods have IPv4 addresses only",
                    hint="publish at an IPv4 address of the host, or at all by naming none",
                )
        own = self._bridge.name if self._bridge else self._settings.bridge
        wanted.check(interfaces, ports, allow, own=own)

    async def allocate(
        self,
        pod_id: str,
        ports: Sequence[PortMapping] = (),
        *,
        interfaces: Sequence[InterfaceSpec] = (),
        allow: AllowLists | None = None,
        others: Collection[Lease] = (),
        previous: Lease | None = None,
    ) -> Lease:
        self.check(interfaces, ports, allow)
        bridge = await self._ready()
        self._refuse_unfiltered(allow)
        nics = wanted.choose(
            self._owner,
            pod_id,
            interfaces,
            bridge=bridge,
            found=await links.links() if any(spec.bridge for spec in interfaces) else {},
            others=others,
            previous=previous,
        )
        resolver = host_resolver()
        dns = self._settings.dns or resolver.servers
        if not dns and needs_forwarder():
            await self._forwarder.start(str(bridge.gateway.ip))
            dns = (str(bridge.gateway.ip),)
        return Lease(
            nics=nics,
            dns=dns,
            search=resolver.search,
            ports=self._ports.take(ports, others),
            allow=allow,
        )

    async def attach(self, lease: Lease, kinds: frozenset[NicKind]) -> tuple[Nic, ...]:
        if NicKind.TAP not in kinds:
            raise Unsupported("this hypervisor driver cannot use a tap, which is all that a bridge has")
        bridge = await self._ready()
        for nic in lease.own:
            if IPv4Address(nic.ip) not in bridge.gateway.network:
                raise Conflict(
                    f"address {nic.address} is not in {bridge.gateway.network}, the network of {bridge.name}",
                    hint="stop the pod and start it again: it gets a new address",
                )
        await self.ready(lease)
        self._tables.begin(bridge.name, lease)
        await links.change(list(taps.commands(lease, bridge)))
        return tuple(Nic(mac=nic.mac, kind=NicKind.TAP, backend=nic.nic_name) for nic in lease.nics)

    async def ready(self, lease: Lease) -> None:
        await self._tables.finish(lease)

    async def detach(self, lease: Lease) -> None:
        await asyncio.gather(links.remove([nic.nic_name for nic in lease.nics]), self._withdraw(lease))
        self._ports.release(lease.ports)

    async def revise(
        self,
        lease: Lease,
        ports: Sequence[PortMapping] = (),
        *,
        interfaces: Sequence[InterfaceSpec] = (),
        allow: AllowLists | None = None,
        others: Collection[Lease] = (),
    ) -> Lease:
        self.check(interfaces, ports, allow)
        bridge = await self._ready()
        self._refuse_unfiltered(allow)
        return replace(
            lease,
            nics=wanted.hand_over(lease, interfaces, bridge),
            ports=self._ports.take(ports, others, had=lease.ports),
            allow=allow,
        )

    async def switch(self, before: Lease, after: Lease) -> None:
        bridge = await self._ready()
        await self._tables.switch(bridge.name, before, after)
        if after.ports and not before.ports:
            await links.change([taps.hairpin(nic) for nic in after.own])
        kept = {HostPort.of(port) for port in after.ports}
        self._ports.release(port for port in before.ports if HostPort.of(port) not in kept)
        self._ports.hold([after])

    async def reconcile(self, live: Collection[Lease]) -> None:
        async with self._building:
            if live:
                self._bridge = await self._build(live)
                await links.remove(taps.strays(await links.links(), self._prefix, live))
                self._ports.hold(live)
                return
            found = await links.links()
            if own := self._own(found):
                await self._remove(own, found)
            else:
                await links.remove(taps.strays(found, self._prefix, ()))

    async def close(self) -> None:
        self._ports.close()
        await self._tables.settle()
        async with self._building:
            found = await links.links()
            own = self._own(found)
            in_use = any(name.startswith(self._prefix) for name in found) or (
                own is not None and any(link.master == own.ifname for link in found.values())
            )
            if own is not None and not in_use:
                await self._remove(own, found)

    async def _withdraw(self, lease: Lease) -> None:
        if self._bridge is not None:  # else a process is asked which one it is
            await self._tables.remove(self._bridge.name, lease)
        elif (own := self._own(await links.links())) is not None:
            await self._tables.remove(own.ifname, lease)

    def _refuse_unfiltered(self, allow: AllowLists | None) -> None:
        if allow and not self._tables.filtered:
            raise Unsupported(
                "white lists need nftables' bridge family, which this host's kernel lacks",
                hint="a kernel with CONFIG_NF_TABLES_BRIDGE has it; hyper doctor shows what is missing",
            )

    # --- The bridge ---

    async def _ready(self) -> Bridge:
        """The bridge; made when it is missing, which costs a stat when it is not."""
        async with self._building:
            if self._bridge is None:
                self._bridge = await self._build(())
            elif not links.exists(self._bridge.name):
                log.warning("bridge %s is gone: making it again", self._bridge.name)
                self._bridge = bridge = await self._build_link(self._bridge.gateway.network)
                await self._tables.make_missing(bridge)
            return self._bridge

    async def _build(self, live: Collection[Lease]) -> Bridge:
        """The bridge and its table with the ports of ``live``."""
        had = next((IPv4Interface(nic.address).network for lease in live for nic in lease.own), None)
        bridge = await self._build_link(had or subnets.parse_subnet(self._settings.subnet))
        await self._tables.make(bridge, live)
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
            await links.change(taps.back_to(bridge.name, (await links.links()).values(), self._prefix))
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
        mac = found[name].address if name in found else subnets.mac_of(gateway.ip)
        return Bridge(name=name, gateway=gateway, mtu=mtu, mac=mac)

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
        await remove_tables(bridge.ifname)
        await firewall.withdraw(bridge.ifname)
        await links.remove(taps.strays(found, self._prefix, ()))
        if bridge.ifalias == self._alias:
            await links.remove([bridge.ifname])
        self._bridge = None


async def _remove_abandoned(found: dict[str, Link]) -> None:
    for link in found.values():
        if _is_abandoned(link, found):
            await remove_tables(link.ifname)
            await links.remove([link.ifname])


def _is_abandoned(link: Link, found: dict[str, Link]) -> bool:
    """Whether a daemon left this bridge whose state directory is gone, so that it never comes back."""
    if link.kind != "bridge" or not link.ifalias.startswith(_ALIAS):
        return False
    has_taps = any(other.master == link.ifname for other in found.values())
    return not has_taps and not Path(link.ifalias.removeprefix(_ALIAS)).exists()


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
