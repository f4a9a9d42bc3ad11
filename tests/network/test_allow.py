"""White lists, seen from outside, from the host and from a neighbour on the same bridge."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercontainer.errors import Unsupported
from hypercontainer.model.network import AllowLists, Lease, parse_publish
from hypercontainer.network.bridge import BridgeNetworks
from tests.network.laboratory import OUTSIDE, UPLINK, Laboratory, census, command, ip
from tests.network.test_interfaces import run_pod

pytestmark = pytest.mark.needs_root

_BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")

_OUTSIDE = "198.51.100.1"  # as pods see it


@pytest.fixture(params=["0", "1"], ids=["bridged", "bridged-through-iptables"], autouse=True)
def bridge_netfilter(request: pytest.FixtureRequest, laboratory: Laboratory) -> None:
    """Whether the family ``ip`` sees bridged frames: Docker turns it on for the whole host."""
    if _BRIDGE_NETFILTER.exists():
        _BRIDGE_NETFILTER.write_text(request.param)
    elif request.param == "1":
        pytest.skip("not on this host: br_netfilter is not loaded")


async def a_guarded_pod(
    networks: BridgeNetworks, laboratory: Laboratory, allow: AllowLists, *others: Lease
) -> tuple[Lease, str]:
    lease = await networks.allocate("guarded", parse_publish("8080:80"), allow=allow, others=others)
    pod = await run_pod(networks, laboratory, lease)
    for port in (80, 81):
        laboratory.serve("tcp", port, inside=pod)
    laboratory.serve("udp", 82, inside=pod)
    return lease, pod


async def a_neighbour(
    networks: BridgeNetworks, laboratory: Laboratory, name: str, *others: Lease
) -> tuple[Lease, str]:
    lease = await networks.allocate(name, others=others)
    return lease, await run_pod(networks, laboratory, lease)


async def test_internal_networks_reach_every_port_and_others_none(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    friend, friend_pod = await a_neighbour(networks, laboratory, "friend")
    stranger, stranger_pod = await a_neighbour(networks, laboratory, "stranger", friend)
    allow = AllowLists(internal=(f"{friend.ip}/32", f"{_OUTSIDE}/32"))
    lease, pod = await a_guarded_pod(networks, laboratory, allow, friend, stranger)
    ip(f"route add 192.168.123.0/24 via {UPLINK}", inside=outside)
    for port in (80, 81):
        assert laboratory.ask("tcp", lease.ip, port, inside=friend_pod) == friend.ip
        assert laboratory.ask("tcp", lease.ip, port, inside=outside) == _OUTSIDE
        assert laboratory.is_silent("tcp", lease.ip, port, inside=stranger_pod)
        assert laboratory.is_silent("tcp", lease.ip, port)  # the host's own programs
    assert laboratory.ask("udp", lease.ip, 82, inside=friend_pod) == friend.ip
    assert laboratory.is_silent("udp", lease.ip, 82, inside=stranger_pod)
    assert laboratory.ask("tcp", UPLINK, 8080, inside=outside) == _OUTSIDE
    assert laboratory.is_silent("tcp", UPLINK, 8080, inside=stranger_pod)
    assert laboratory.ask("tcp", UPLINK, 8080, inside=pod)  # and its own ports are its own


async def test_external_networks_reach_published_ports_only(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    friend, friend_pod = await a_neighbour(networks, laboratory, "friend")
    stranger, stranger_pod = await a_neighbour(networks, laboratory, "stranger", friend)
    allow = AllowLists(external=(f"{friend.ip}/32", "198.51.100.0/25"))
    lease, _ = await a_guarded_pod(networks, laboratory, allow, friend, stranger)
    ip(f"route add 192.168.123.0/24 via {UPLINK}", inside=outside)
    assert laboratory.ask("tcp", UPLINK, 8080, inside=outside) == _OUTSIDE
    assert laboratory.is_silent("tcp", lease.ip, 81, inside=outside)
    assert laboratory.ask("tcp", lease.ip, 80, inside=friend_pod) == friend.ip
    assert laboratory.is_silent("tcp", lease.ip, 81, inside=friend_pod)
    assert laboratory.is_silent("udp", lease.ip, 82, inside=friend_pod)
    assert laboratory.is_silent("tcp", lease.ip, 80, inside=stranger_pod)
    ip(f"address add {OUTSIDE}/32 dev uplink")  # another address of the host
    assert laboratory.is_silent("tcp", "127.0.0.1", 8080)


async def test_answers_to_the_pods_own_connections_pass(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    stranger, stranger_pod = await a_neighbour(networks, laboratory, "stranger")
    lease, pod = await a_guarded_pod(networks, laboratory, AllowLists(internal=("192.0.2.0/24",)), stranger)
    for where in (outside, stranger_pod):
        laboratory.serve("tcp", 90, inside=where)
        laboratory.serve("udp", 91, inside=where)
    for protocol, port in (("tcp", 90), ("udp", 91)):
        assert laboratory.ask(protocol, stranger.ip, port, inside=pod) == lease.ip
        assert laboratory.ask(protocol, _OUTSIDE, port, inside=pod) == UPLINK
    assert laboratory.is_silent("tcp", lease.ip, 80, inside=stranger_pod)


async def test_a_pod_cannot_open_itself_and_no_frame_finds_a_way_round(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    """IPv6 by link-local addresses, and broadcasts: a white list is about all of them."""
    laboratory.outside()
    stranger, stranger_pod = await a_neighbour(networks, laboratory, "stranger")
    _, pod = await a_guarded_pod(networks, laboratory, AllowLists(internal=("192.0.2.0/24",)), stranger)
    for where, address in ((pod, "fe80::1"), (stranger_pod, "fe80::2")):
        ip(f"address add {address}/64 dev eth0 nodad", inside=where)
    assert "1 packets received" not in command(
        "busybox ping -6 -c 1 -W 1 -I eth0 fe80::1", inside=stranger_pod, check=False
    )
    ip("route add 255.255.255.255/32 dev eth0", inside=stranger_pod)
    before = frames(pod)
    command("busybox ping -c 2 -W 1 192.168.123.255", inside=stranger_pod, check=False)
    assert frames(pod) == before


def frames(pod: str) -> int:
    """How many frames have come to a pod."""
    return int(command("cat /proc/net/dev", inside=pod).split("eth0:")[1].split()[1])


async def test_empty_lists_keep_nobody_out(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    stranger, stranger_pod = await a_neighbour(networks, laboratory, "stranger")
    lease, _ = await a_guarded_pod(networks, laboratory, AllowLists(), stranger)
    assert laboratory.ask("tcp", lease.ip, 81, inside=stranger_pod) == stranger.ip


async def test_lists_that_overlap_are_one(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    outside = laboratory.outside()
    allow = AllowLists(internal=("198.51.100.0/24", "198.51.0.0/16", f"{_OUTSIDE}/32"))
    lease, _ = await a_guarded_pod(networks, laboratory, allow)
    ip(f"route add 192.168.123.0/24 via {UPLINK}", inside=outside)
    assert laboratory.ask("tcp", lease.ip, 81, inside=outside) == _OUTSIDE


async def test_what_white_lists_need_goes_with_the_pod(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    before = census()
    lease, _ = await a_guarded_pod(networks, laboratory, AllowLists(internal=("10.0.0.0/8",)))
    laboratory.kill_processes()
    await networks.detach(lease)
    assert "10.0.0.0" not in "".join(census())
    await networks.close()
    assert census() == before


async def test_without_rules_between_pods_white_lists_are_refused(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    await networks.allocate("p1")
    networks._tables.filtered = False
    with pytest.raises(Unsupported, match="bridge family"):
        await networks.allocate("p2", allow=AllowLists(internal=("10.0.0.0/8",)))
