"""The table of the bridge family: what may pass between the taps of a bridge.  Pure, as rules.py.

Between pods frames are bridged, not routed, so no chain of the family ``ip`` sees them, and the bridge
family has connection tracking only on newer kernels that were built with it.  So it does two things that
need none:

    source    what a pod sends has its own MAC and address, in ARP too: none can pass for another
    redirect  what goes to or comes from a pod with white lists is handed to the host, which routes it
              back; so the chain ``guard`` of rules.py sees it, with connection tracking

With br_netfilter at work (Docker loads it) chains of the family ``ip`` see bridged frames too, and a
published port is turned into the pod's address after ``prerouting``.  Such a frame is the only one to a
guarded address that ``forward`` meets, and ``guard`` sees it as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hypercontainer.model.network import Lease


class Element(NamedTuple):
    """An element of a set or map of a bridge's tables."""

    family: str
    set: str
    text: str  # "KEY", or "KEY : VALUE" in a map

    @property
    def key(self) -> tuple[str, str, str]:
        """What can be there only once."""
        return (self.family, self.set, self.text.partition(" : ")[0])


def table(bridge: str, mac: str) -> str:
    """The whole table, without pods; ``mac`` is the bridge's own.  Replaces one that is there."""
    host = f"meta pkttype set host ether daddr set {mac}"
    return f"""\
table bridge {bridge}
delete table bridge {bridge}
table bridge {bridge} {{
  set taps {{
    type ifname
  }}
  set sources {{
    type ifname . ether_addr . ipv4_addr
  }}
  set guarded {{
    type ipv4_addr
  }}
  set guarded_taps {{
    type ifname
  }}
  chain source {{
    ether type ip iifname . ether saddr . ip saddr @sources return
    ether type != arp counter drop
    iifname . arp saddr ether . arp saddr ip != @sources counter drop
    iifname . ether saddr . arp saddr ip != @sources counter drop
  }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname @taps jump source
    ip daddr @guarded {host}
    iifname @guarded_taps ether type ip ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 {host}
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    ip daddr @guarded accept
    oifname @guarded_taps ether type != arp counter drop
  }}
}}
"""


def elements(lease: Lease) -> Iterator[Element]:
    """On bridges that are not ours, addresses are their operator's business."""
    for nic in lease.own:
        yield Element("bridge", "taps", f'"{nic.nic_name}"')
        yield Element("bridge", "sources", f'"{nic.nic_name}" . {nic.mac} . {nic.ip}')
        if lease.allow:
            yield Element("bridge", "guarded", nic.ip)
            yield Element("bridge", "guarded_taps", f'"{nic.nic_name}"')
