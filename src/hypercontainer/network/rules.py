"""The nftables tables of a bridge, as text for ``nft -f -``: pure functions, nothing is run here.

Both tables are named after their bridge.  Their chains are fixed once the bridge is known; what changes
with the pods are maps and sets.  Adding to those takes 4 ms, taking something out of anything 10 to
25 ms (the kernel waits for the packets under way), so a start only ever adds.

    table ip: what is routed
      from outside ──▶ prerouting: a published port of a local address becomes the pod's
      from the host ─▶ output: likewise, 127.0.0.1 included (route_localnet is set on the bridge)
      to the pod ────▶ forward: only answers and published ports, whatever the rest of the host lets through
                       guard: of a pod with white lists, only who is on them
      from the pod ──▶ forward: all; postrouting: with the host's address, when it leaves the bridge

    table bridge: what goes from pod to pod (see filters.py)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from hypercontainer.model.network import AllowLists, Lease, NicLease, PortMapping
from hypercontainer.network import filters
from hypercontainer.network.filters import Element

# What changes with the pods.
_SETS = """\
  map published {
    type inet_proto . inet_service : ipv4_addr . inet_service
  }
  map published_at {
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
  }
  set guarded {
    type ipv4_addr
  }
  set internal {
    type ipv4_addr . ipv4_addr
    flags interval
  }
  set external {
    type ipv4_addr . inet_proto . inet_service . ipv4_addr
    flags interval
  }
"""

# Numbers, not names, for priorities, in all chains: nft 1.0.6 knows no "dstnat" in an output chain.
_PUBLISHING = """\
  chain publish {
    dnat ip to ip daddr . meta l4proto . th dport map @published_at
    dnat ip to meta l4proto . th dport map @published
  }
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local jump publish
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }
"""


def table(bridge: str, subnet: IPv4Network) -> str:
    """The whole table, without pods.  Replaces one that is there in the same transaction."""
    parts = (
        _SETS,
        _raw_chain(bridge),
        _PUBLISHING,
        _guard_chain(bridge),
        _postrouting_chain(bridge, subnet),
        _forward_chain(bridge),
    )
    return f"table ip {bridge}\ndelete table ip {bridge}\ntable ip {bridge} {{\n{''.join(parts)}}}\n"


def remove_tables(bridge: str, *, filtered: bool) -> str:
    families = ("ip", "bridge") if filtered else ("ip",)
    return "".join(f"table {family} {bridge}\ndelete table {family} {bridge}\n" for family in families)


def elements(lease: Lease, *, filtered: bool) -> set[Element]:
    """What the tables hold for ``lease``; ``filtered``: whether there is a table of the bridge family."""
    found = {_published(lease, port) for port in lease.ports}
    if lease.allow:
        found.update(element for nic in lease.own for element in _guard(nic, lease, lease.allow))
    if filtered:
        found.update(filters.elements(lease))
    return found


def add(bridge: str, found: Iterable[Element]) -> str:
    """Adding what is there the same way already is no error; another value for the same key is one."""
    return "".join(
        f"add element {each.family} {bridge} {each.set} {{ {each.text} }}\n" for each in sorted(found)
    )


def remove(bridge: str, found: Iterable[Element]) -> str:
    """Added first: deleting what is not there would be an error."""
    found = sorted(found)
    return add(bridge, found) + "".join(
        f"delete element {each.family} {bridge} {each.set} {{ {each.text} }}\n" for each in found
    )


def _raw_chain(bridge: str) -> str:
    """Nothing that pods send comes to the loopback of the host."""
    return f"""\
  chain raw {{
    type filter hook prerouting priority -300; policy accept;
    comment "route_localnet opens the host's loopback to the bridge: close it to the pods"
    iifname "{bridge}" ip daddr 127.0.0.0/8 counter drop
  }}
"""


def _guard_chain(bridge: str) -> str:
    """White lists: a guarded pod is reached only by who is on its list."""
    return f"""\
  chain guard {{
    type filter hook postrouting priority 0; policy accept;
    comment "after every DNAT and before any masquerade: who asks, and what, as it is"
    oifname != "{bridge}" accept
    ip daddr != @guarded accept
    ct state established,related accept
    ip daddr . ip saddr @internal accept
    ip daddr . meta l4proto . th dport . ip saddr @external accept
    counter drop
  }}
"""


def _postrouting_chain(bridge: str, subnet: IPv4Network) -> str:
    """The host's address for packets whose answers have to come back through the host."""
    return f"""\
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    ip saddr {subnet} oifname "{bridge}" ct status dnat masquerade
  }}
"""


def _forward_chain(bridge: str) -> str:
    """Pods send as they like, in segments that fit the route; to them come answers and published ports."""
    return f"""\
  chain forward {{
    type filter hook forward priority 0; policy accept;
    oifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
    iifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
    iifname "{bridge}" accept
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" ip daddr @guarded accept
    oifname "{bridge}" drop
  }}
"""


def _published(lease: Lease, port: PortMapping) -> Element:
    key = f"{port.protocol} . {port.host_port}"
    value = f"{lease.ip} . {port.container_port}"
    if port.host_ip:
        return Element("ip", "published_at", f"{port.host_ip} . {key} : {value}")
    return Element("ip", "published", f"{key} : {value}")


def _guard(nic: NicLease, lease: Lease, allow: AllowLists) -> Iterator[Element]:
    """``nic`` itself is always let in: a pod may use its own published ports."""
    yield Element("ip", "guarded", nic.ip)
    for network in _merged((f"{nic.ip}/32", *allow.internal)):
        yield Element("ip", "internal", f"{nic.ip} . {network}")
    for port in {(port.protocol, port.container_port) for port in lease.ports}:
        for network in _merged(allow.external):
            yield Element("ip", "external", f"{nic.ip} . {port[0]} . {port[1]} . {network}")


def _merged(networks: Iterable[str]) -> list[IPv4Network]:
    """Intervals of a set must not overlap."""
    import ipaddress

    return list(ipaddress.collapse_addresses(IPv4Network(network) for network in networks))
