"""The nftables table of a bridge, as text for ``nft -f -``: pure functions, nothing is run here.

The table is named after its bridge.  Its chains are fixed once the bridge is known; what changes with
the pods are two maps, from host port to pod.  Adding to a map takes 4 ms, taking something out of
anything 10 to 25 ms (the kernel waits for the packets under way), so a start only ever adds.

    from outside ──▶ prerouting: a published port of a local address becomes the pod's
    from the host ─▶ output: likewise, 127.0.0.1 included (route_localnet is set on the bridge)
    to the pod ────▶ forward: only answers and published ports, whatever the rest of the host lets through
    from the pod ──▶ forward: all; postrouting: with the host's address, when it leaves the bridge
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from hypercontainer.model.network import Lease, PortMapping


def table(bridge: str, subnet: IPv4Network) -> str:
    """The whole table, without ports.  Replaces one that is there in the same transaction."""
    # Numbers, not names, for priorities: nft 1.0.6 knows no "dstnat" in an output chain.
    return f"""\
table ip {bridge}
delete table ip {bridge}
table ip {bridge} {{
  map published {{
    type inet_proto . inet_service : ipv4_addr . inet_service
  }}
  map published_at {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
  }}
  chain raw {{
    type filter hook prerouting priority -300; policy accept;
    comment "route_localnet opens the host's loopback to the bridge: close it to the pods"
    iifname "{bridge}" ip daddr 127.0.0.0/8 counter drop
  }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @published_at
    dnat ip to meta l4proto . th dport map @published
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    ip saddr {subnet} oifname "{bridge}" ct status dnat masquerade
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    oifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
    iifname "{bridge}" tcp flags syn tcp option maxseg size set rt mtu
    iifname "{bridge}" accept
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
}}
"""


def remove_table(bridge: str) -> str:
    return f"table ip {bridge}\ndelete table ip {bridge}\n"


def publish(bridge: str, leases: Iterable[Lease]) -> str:
    """Open the ports of ``leases``; one that is open the same way already is no error."""
    return "".join(
        f"add element ip {bridge} {_element(lease, port)}\n" for lease in leases for port in lease.ports
    )


def withdraw(bridge: str, lease: Lease) -> str:
    """Close the ports of ``lease``.  Added first: deleting what is not there would be an error."""
    deletions = "".join(f"delete element ip {bridge} {_element(lease, port)}\n" for port in lease.ports)
    return publish(bridge, [lease]) + deletions


def _element(lease: Lease, port: PortMapping) -> str:
    key = f"{port.protocol} . {port.host_port}"
    value = f"{lease.ip} . {port.container_port}"
    if port.host_ip:
        return f"published_at {{ {port.host_ip} . {key} : {value} }}"
    return f"published {{ {key} : {value} }}"
