"""From what a pod asks of its NICs to what each gets: choices and refusals, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface

from hypercontainer.errors import Conflict, InvalidRequest, Unsupported
from hypercontainer.model.network import AllowLists, InterfaceSpec, Lease, NicLease, PortMapping
from hypercontainer.network import subnets
from hypercontainer.network.links import Link

_ONE = (InterfaceSpec(),)  # what a pod has that asks for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """Hyper's own bridge, which is up."""

    name: str
    gateway: IPv4Interface
    mtu: int
    mac: str


def check(
    interfaces: Sequence[InterfaceSpec], ports: Sequence[PortMapping], allow: AllowLists | None, *, own: str
) -> None:
    """Refuse what no host can give; ``own`` is the name of hyper's own bridge."""
    _refuse_twice("name", [spec.name or f"eth{index}" for index, spec in enumerate(interfaces)])
    _refuse_twice("MAC address", [spec.mac.lower() for spec in interfaces if spec.mac])
    _refuse_twice("gateway", ["one" for spec in interfaces if spec.gateway])
    for spec in interfaces:
        _check_addresses(spec, own)
    foreign = [spec.bridge for spec in interfaces if not is_own(spec, own)]
    if foreign and allow:
        raise Unsupported(
            f"white lists guard interfaces on {own}, not on bridge {foreign[0]} of the host",
            hint="leave out the interface on that bridge, or portmappingWhiteLists",
        )
    if ports and interfaces and len(foreign) == len(interfaces):
        raise Unsupported(
            f"ports are published by way of {own}, and the pod has no interface there",
            hint="add an interface without a bridge, or reach the pod at its own address",
        )


def _refuse_twice(what: str, values: Sequence[str]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            detail = "" if what == "gateway" else f" {value}"
            raise InvalidRequest(f"two interfaces of the pod have the {what}{detail}".replace("the g", "a g"))


def _check_addresses(spec: InterfaceSpec, own: str) -> None:
    if not is_own(spec, own):
        if "/" not in spec.address:
            raise InvalidRequest(
                f"an interface on bridge {spec.bridge} of the host needs an address with its prefix",
                hint="for example 10.1.2.3/24: hyper leases addresses on its own bridge only",
            )
        _refuse_unusable(IPv4Interface(spec.address))
    if spec.gateway and "/" in spec.address:
        address, gateway = IPv4Interface(spec.address), IPv4Address(spec.gateway)
        if gateway not in address.network or gateway == address.ip:
            raise InvalidRequest(f"gateway {gateway} is no neighbour of {address}")


def _refuse_unusable(address: IPv4Interface) -> None:
    network = address.network
    if network.prefixlen < 31 and address.ip in {network.network_address, network.broadcast_address}:
        raise InvalidRequest(f"{address.ip} is the network's own address or its broadcast in {network}")


def is_own(spec: InterfaceSpec, own: str) -> bool:
    return spec.bridge in {"", own}


def choose(
    owner: str,
    pod_id: str,
    interfaces: Sequence[InterfaceSpec],
    *,
    bridge: Bridge,
    found: Mapping[str, Link],
    others: Collection[Lease],
    previous: Lease | None,
) -> tuple[NicLease, ...]:
    """A lease for each NIC.  ``found`` are the host's links, as far as an interface names one.

    Raises Conflict for an address or MAC that another pod or the bridge has, InvalidRequest for what
    does not fit its bridge, Unavailable when the network is full.
    """
    chosen: list[NicLease] = []
    specs = interfaces or _ONE
    for index, spec in enumerate(specs):
        own = is_own(spec, bridge.name)
        taken = [nic for lease in others for nic in lease.nics] + chosen
        if own:
            before = previous.nics[index] if previous and index < len(previous.nics) else None
            address = _own_address(spec, bridge, f"{pod_id}{index or ''}", taken, before)
        else:
            address = _foreign_address(spec, found, taken)
        chosen.append(
            NicLease(
                nic_name=subnets.nic_name(owner, pod_id, index),
                mac=_mac(
                    spec, address, [nic for nic in taken if nic in chosen or _is_beside(nic, spec, own)]
                ),
                address=str(address),
                mtu=_mtu(spec, bridge.mtu if own else found[spec.bridge].mtu),
                name=spec.name or f"eth{index}",
                bridge="" if own else spec.bridge,
                gateway=_gateway(specs, index, bridge),
            )
        )
    return tuple(chosen)


def hand_over(lease: Lease, interfaces: Sequence[InterfaceSpec], bridge: Bridge) -> tuple[NicLease, ...]:
    """The NICs of ``lease`` for another pod that gets the machine with its taps, MACs and addresses.

    Raises Unsupported when that pod asks for others: they are part of the machine.
    """
    specs = interfaces or _ONE
    if len(specs) != len(lease.nics):
        raise Unsupported(
            f"the machine has {len(lease.nics)} NICs, and the new pod wants {len(specs)}",
            hint="stop the old pod and start the new one",
        )
    return tuple(_handed_over(nic, specs, index, bridge) for index, nic in enumerate(lease.nics))


def _handed_over(nic: NicLease, specs: Sequence[InterfaceSpec], index: int, bridge: Bridge) -> NicLease:
    spec = specs[index]
    same = (
        nic.bridge == ("" if is_own(spec, bridge.name) else spec.bridge)
        and spec.mac.lower() in {"", nic.mac}
        and spec.address in {"", nic.ip, nic.address}
    )
    if not same:
        raise Unsupported(
            f"NIC {index} of the machine is {nic.mac} with {nic.address} on {nic.bridge or bridge.name}, and"
            " the new pod wants another",
            hint="leave bridge, ip and mac out, or stop the old pod and start the new one",
        )
    gateway = _gateway(specs, index, bridge)
    name = spec.name or f"eth{index}"
    limit = nic.mtu if nic.bridge else bridge.mtu
    return replace(nic, name=name, mtu=_mtu(spec, limit), gateway=gateway)


def _is_beside(nic: NicLease, spec: InterfaceSpec, own: bool) -> bool:
    """Whether ``nic`` is on the bridge that ``spec`` asks for."""
    return nic.bridge == ("" if own else spec.bridge)


def _own_address(
    spec: InterfaceSpec, bridge: Bridge, seed: str, taken: Sequence[NicLease], before: NicLease | None
) -> IPv4Interface:
    used = {IPv4Address(nic.ip) for nic in taken if not nic.bridge} | {bridge.gateway.ip}
    network = bridge.gateway.network
    if spec.address:
        return _asked_address(spec.address, bridge, used)
    if before is not None and not before.bridge:
        kept = IPv4Interface(before.address)
        if kept.network == network and kept.ip not in used:
            return kept
    return subnets.free_address(bridge.gateway, seed, used)


def _asked_address(text: str, bridge: Bridge, used: Collection[IPv4Address]) -> IPv4Interface:
    network = bridge.gateway.network
    asked = IPv4Interface(text if "/" in text else f"{text}/{network.prefixlen}")
    if asked.network != network:
        raise InvalidRequest(
            f"address {text} is not in {network}, the network of {bridge.name}",
            hint="name a bridge of the host that has it, or set subnet in hyperd.toml",
        )
    _refuse_unusable(asked)
    if asked.ip in used:
        whose = "the host" if asked.ip == bridge.gateway.ip else "another pod"
        raise Conflict(
            f"address {asked.ip} is taken by {whose}", hint="leave it out and a free one is chosen"
        )
    return asked


def _foreign_address(
    spec: InterfaceSpec, found: Mapping[str, Link], taken: Sequence[NicLease]
) -> IPv4Interface:
    link = found.get(spec.bridge)
    if link is None or link.kind != "bridge":
        raise InvalidRequest(
            f"there is no bridge {spec.bridge} on this host"
            if link is None
            else f"{spec.bridge} is no bridge, but another kind of interface",
            hint=f"make one: ip link add {spec.bridge} type bridge && ip link set {spec.bridge} up"
            if link is None
            else "ip -br link show type bridge lists the bridges",
        )
    address = IPv4Interface(spec.address)
    used = {IPv4Address(nic.ip) for nic in taken if nic.bridge == spec.bridge}
    if link.interface is not None:
        used.add(link.interface.ip)
    if address.ip in used:
        raise Conflict(f"address {address.ip} is taken on bridge {spec.bridge}", hint="choose another one")
    return address


def _mac(spec: InterfaceSpec, address: IPv4Interface, taken: Sequence[NicLease]) -> str:
    """Asked, or made of the address; in one pod and on one bridge no two are the same."""
    mac = spec.mac.lower() or subnets.mac_of(address.ip)
    if any(nic.mac == mac for nic in taken):
        raise Conflict(f"MAC address {mac} is taken by another interface", hint="leave it out, or change it")
    return mac


def _mtu(spec: InterfaceSpec, limit: int) -> int:
    if spec.mtu > limit:
        raise InvalidRequest(
            f"an MTU of {spec.mtu} is more than the {limit} of the bridge",
            hint="ask for at most that, or for none",
        )
    return spec.mtu or limit


def _gateway(specs: Sequence[InterfaceSpec], index: int, bridge: Bridge) -> str:
    """The one that is asked for; else hyper's, by the first NIC on its bridge."""
    if any(spec.gateway for spec in specs):
        return specs[index].gateway
    own = [number for number, spec in enumerate(specs) if is_own(spec, bridge.name)]
    return str(bridge.gateway.ip) if own[:1] == [index] else ""
