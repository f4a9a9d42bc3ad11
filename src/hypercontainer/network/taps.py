"""The taps of pods: how they are made on a bridge, and which of them belong to nobody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from hypercontainer.model.network import Lease, NicLease
from hypercontainer.network import links
from hypercontainer.network.interfaces import Bridge
from hypercontainer.network.links import Link

_ALIAS = "on "  # and the bridge, for a tap on one that is not ours


def commands(lease: Lease, bridge: Bridge) -> Iterator[str]:
    """Make the taps of ``lease``; what an earlier, broken attempt left is replaced."""
    for nic in lease.nics:
        name = nic.nic_name
        if links.exists(name):
            yield f"link delete dev {name}"
        yield f"tuntap add dev {name} mode tap"
        if nic.bridge:
            # A bridge that has no MAC of its own takes the lowest of its ports': this is never it.
            mac = f"fe{nic.mac[2:]}"
            alias = links.quoted(f"{_ALIAS}{nic.bridge}")
            yield f"link set dev {name} address {mac} addrgenmode none alias {alias}"
            yield f"link set dev {name} master {nic.bridge} up"
        else:
            yield f"link set dev {name} addrgenmode none master {bridge.name} mtu {bridge.mtu} up"
            if lease.ports:
                yield hairpin(nic)


def hairpin(nic: NicLease) -> str:
    """A pod that asks for its own published port gets its packet back through its own bridge port."""
    return f"link set dev {nic.nic_name} type bridge_slave hairpin on"


def back_to(bridge: str, found: Iterable[Link], prefix: str) -> list[str]:
    """Our taps whose bridge was deleted under them, and made again."""
    own = [link for link in found if link.ifname.startswith(prefix) and not link.ifalias.startswith(_ALIAS)]
    return [f"link set dev {link.ifname} master {bridge}" for link in own]


def strays(found: Iterable[str], prefix: str, live: Collection[Lease]) -> list[str]:
    """Our taps, and bridges half made, that belong to no live pod."""
    wanted = {nic.nic_name for lease in live for nic in lease.nics}
    return [name for name in found if name.startswith(prefix) and name not in wanted]
