"""What pods ask of their NICs: several, on bridges of the host, with addresses and MACs of their own."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from hypercontainer.errors import Conflict, InvalidRequest, Unsupported
from hypercontainer.model.machine import NicKind
from hypercontainer.model.network import AllowLists, InterfaceSpec, Lease, parse_publish
from hypercontainer.network.bridge import BridgeNetworks
from tests.network.conftest import Start
from tests.network.laboratory import OUTSIDE, UPLINK, Laboratory, census, command, ip, kill
from tests.support.waiting import until

pytestmark = pytest.mark.needs_root

TAP = frozenset({NicKind.TAP})


async def run_pod(networks: BridgeNetworks, laboratory: Laboratory, lease: Lease) -> str:
    nics = await networks.attach(lease, TAP)
    await networks.ready(lease)
    return laboratory.pod(lease, nics)


def a_bridge(name: str, address: str = "") -> None:
    ip(f"link add {name} type bridge forward_delay 0")
    ip(f"link set {name} addrgenmode none up")
    if address:
        ip(f"address add {address} dev {name}")


async def test_a_pod_has_a_nic_on_each_of_two_bridges(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    a_bridge("br9", "10.9.0.1/24")
    asked = (InterfaceSpec(), InterfaceSpec(bridge="br9", address="10.9.0.7/24", name="lan0"))
    lease = await networks.allocate("p1", parse_publish("8080:80"), interfaces=asked)
    pod = await run_pod(networks, laboratory, lease)
    laboratory.serve("tcp", 80, inside=pod)
    assert [nic.name for nic in lease.nics] == ["eth0", "lan0"]
    assert laboratory.ask("tcp", "10.9.0.7", 80) == "10.9.0.1"
    assert laboratory.ask("tcp", lease.ip, 80) == lease.nics[0].gateway
    assert laboratory.ask("tcp", UPLINK, 8080)
    assert (lease.nics[0].gateway, lease.nics[1].gateway) == ("192.168.123.1", "")


async def test_a_tap_on_the_hosts_bridge_goes_and_the_bridge_stays_as_it_was(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    a_bridge("br9", "10.9.0.1/24")
    ip("tuntap add dev port9 mode tap")
    ip("link set port9 master br9 up")
    before, mac = census(), ip("-br link show br9").split()[2]
    lease = await networks.allocate("p1", interfaces=(InterfaceSpec(bridge="br9", address="10.9.0.7/24"),))
    await networks.attach(lease, TAP)
    assert "master br9" in ip(f"link show {lease.nics[0].nic_name}")
    assert ip("-br link show br9").split()[2] == mac
    await networks.detach(lease)
    await networks.close()
    assert census() == before


async def test_taps_stay_on_their_bridges_when_ours_is_made_again_and_while_a_daemon_starts(
    networks: BridgeNetworks, start: Start, laboratory: Laboratory
) -> None:
    laboratory.outside()
    a_bridge("br9", "10.9.0.1/24")
    asked = (InterfaceSpec(), InterfaceSpec(bridge="br9", address="10.9.0.7/24"))
    lease = await networks.allocate("p1", interfaces=asked)
    await networks.attach(lease, TAP)
    await networks.ready(lease)
    ip("link delete hyper0")
    await networks.allocate("p2", others=[lease])
    assert "master hyper0" in ip(f"link show {lease.nics[0].nic_name}")
    assert "master br9" in ip(f"link show {lease.nics[1].nic_name}")
    kill(networks)
    again = start()
    await again.reconcile([lease])
    assert "master br9" in ip(f"link show {lease.nics[1].nic_name}")
    await again.close()
    assert "master br9" in ip(f"link show {lease.nics[1].nic_name}")  # the pod runs on
    await start().reconcile([])
    assert lease.nics[1].nic_name not in ip("-br link")


async def test_a_pod_gets_the_address_the_mac_the_name_and_the_gateway_that_it_asks_for(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    asked = InterfaceSpec(
        address="192.168.123.50", mac="02:AA:00:00:00:01", name="net0", mtu=1300, gateway="192.168.123.9"
    )
    lease = await networks.allocate("p1", interfaces=(asked,))
    (nic,) = lease.nics
    assert (nic.address, nic.mac, nic.name) == ("192.168.123.50/24", "02:aa:00:00:00:01", "net0")
    assert (nic.mtu, nic.gateway) == (1300, "192.168.123.9")
    pod = await run_pod(networks, laboratory, lease)
    laboratory.serve("tcp", 80, inside=pod)
    assert laboratory.ask("tcp", "192.168.123.50", 80) == "192.168.123.1"


async def test_asked_addresses_and_macs_must_be_free(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    a_bridge("br9", "10.9.0.1/24")
    first = await networks.allocate(
        "p1",
        interfaces=(
            InterfaceSpec(mac="02:00:00:00:00:07"),
            InterfaceSpec(bridge="br9", address="10.9.0.7/24"),
        ),
    )
    for asked, words in (
        (InterfaceSpec(address=first.ip), "taken by another pod"),
        (InterfaceSpec(address="192.168.123.1"), "taken by the host"),
        (InterfaceSpec(mac="02:00:00:00:00:07"), "MAC address 02:00:00:00:00:07 is taken"),
        (InterfaceSpec(bridge="br9", address="10.9.0.7/24"), "taken on bridge br9"),
        (InterfaceSpec(bridge="br9", address="10.9.0.1/24"), "taken on bridge br9"),
    ):
        with pytest.raises(Conflict, match=words):
            await networks.allocate("p2", interfaces=(asked,), others=[first])


async def test_interfaces_that_cannot_be_are_refused(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    a_bridge("br9")
    for asked, words in (
        ((InterfaceSpec(bridge="br7", address="10.9.0.7/24"),), "no bridge br7"),
        ((InterfaceSpec(bridge="uplink", address="10.9.0.7/24"),), "is no bridge"),
        ((InterfaceSpec(bridge="br9"),), "needs an address"),
        ((InterfaceSpec(bridge="br9", address="10.9.0.7"),), "needs an address"),
        ((InterfaceSpec(bridge="br9", address="10.9.0.0/24"),), "network's own address"),
        ((InterfaceSpec(address="10.1.1.1/24"),), r"not in 192\.168\.123\.0/24"),
        ((InterfaceSpec(address="192.168.123.255"),), "broadcast"),
        ((InterfaceSpec(mtu=9000),), "more than the 1500"),
        ((InterfaceSpec(address="192.168.123.9/24", gateway="10.0.0.1"),), "no neighbour"),
        ((InterfaceSpec(name="eth1"), InterfaceSpec()), "two interfaces of the pod have the name eth1"),
        ((InterfaceSpec(gateway="10.0.0.1"), InterfaceSpec(gateway="10.0.0.2")), "have a gateway"),
        ((InterfaceSpec(mac="02:00:00:00:00:01"), InterfaceSpec(mac="02:00:00:00:00:01")), "MAC address"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            await networks.allocate("p1", interfaces=asked)


async def test_what_needs_our_own_bridge_is_refused_without_it(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    a_bridge("br9")
    lan = InterfaceSpec(bridge="br9", address="10.9.0.7/24")
    with pytest.raises(Unsupported, match="ports are published by way of hyper0"):
        networks.check((lan,), parse_publish("80"), None)
    with pytest.raises(Unsupported, match="white lists guard interfaces on hyper0"):
        networks.check((InterfaceSpec(), lan), (), AllowLists(internal=("10.0.0.0/8",)))


@pytest.mark.parametrize(
    "field",
    [
        {"address": "10.0.0.300"}, {"mac": "03:00:00:00:00:01"}, {"mac": "02:0:0:0:0:1"}, {"name": "lo"},
        {"name": "a name"}, {"name": "x" * 16}, {"mtu": 60}, {"gateway": "fe80::1"}, {"bridge": "a/b"},
    ],
)  # fmt: skip
def test_a_malformed_interface_is_no_interface(field: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(field, InterfaceSpec)


# --- Other ports, and another pod on the same machine ---


async def test_a_new_pod_takes_over_the_machines_nics_with_ports_of_its_own(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    old = await networks.allocate("old", parse_publish("8080:80") + parse_publish("8081:80"))
    pod = await run_pod(networks, laboratory, old)
    laboratory.serve("tcp", 80, inside=pod)
    laboratory.serve("tcp", 90, inside=pod)
    new = await networks.revise(old, parse_publish("8080:90") + parse_publish("8082:80"))
    assert (new.nics, new.ip) == (old.nics, old.ip)
    await networks.switch(old, new)
    assert laboratory.ask("tcp", UPLINK, 8080, inside=outside)
    assert laboratory.ask("tcp", UPLINK, 8082, inside=outside)
    await networks._tables.settle()
    assert laboratory.is_silent("tcp", UPLINK, 8081, inside=outside)
    assert "8081" not in "".join(census())
    third = await networks.allocate("third", parse_publish("8081:80"), others=[new])
    await networks.detach(third)
    await networks.detach(new)
    await networks.close()
    assert not [line for line in census() if "808" in line]


async def test_a_hand_over_that_failed_is_taken_back(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    old = await networks.allocate("old", parse_publish("8080:80"))
    pod = await run_pod(networks, laboratory, old)
    laboratory.serve("tcp", 80, inside=pod)
    before = census()
    new = await networks.revise(old, parse_publish("8081:80"), allow=AllowLists(external=("192.0.2.0/24",)))
    await networks.switch(old, new)
    assert census() != before
    await networks.switch(new, old)
    await networks._tables.settle()
    assert census() == before
    assert laboratory.ask("tcp", UPLINK, 8080, inside=outside)
    await networks.allocate("other", parse_publish("8081:80"), others=[old])


async def test_a_hand_over_counts_the_ports_of_others_but_not_the_machines_own(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    old = await networks.allocate("old", parse_publish("8080:80"))
    other = await networks.allocate("other", parse_publish("9090:80"), others=[old])
    with pytest.raises(Conflict, match="9090/tcp"):
        await networks.revise(old, parse_publish("8080:80") + parse_publish("9090:80"), others=[other])
    assert (await networks.revise(old, parse_publish("8080:81"), others=[other])).ports[
        0
    ].container_port == 81


async def test_a_hand_over_cannot_change_the_machines_nics(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    old = await networks.allocate("old")
    renamed = await networks.revise(old, interfaces=(InterfaceSpec(name="net0", mtu=1300),))
    assert (renamed.nics[0].name, renamed.nics[0].mtu, renamed.ip) == ("net0", 1300, old.ip)
    for asked in (
        (InterfaceSpec(), InterfaceSpec()),
        (InterfaceSpec(mac="02:00:00:00:00:01"),),
        (InterfaceSpec(address="192.168.123.99"),),
        (InterfaceSpec(bridge="br9", address="10.9.0.7/24"),),
    ):
        with pytest.raises(Unsupported, match="the new pod wants"):
            await networks.revise(old, interfaces=asked)


async def test_a_daemon_that_died_in_a_hand_over_leaves_it_to_the_record(
    networks: BridgeNetworks, start: Start, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    old = await networks.allocate("old", parse_publish("8080:80"))
    pod = await run_pod(networks, laboratory, old)
    laboratory.serve("tcp", 80, inside=pod)
    new = await networks.revise(old, parse_publish("8081:80"))
    kill(networks)
    await start().reconcile([new])
    assert laboratory.ask("tcp", UPLINK, 8081, inside=outside)
    assert laboratory.is_silent("tcp", UPLINK, 8080, inside=outside)


# --- What a hostile guest could try ---


async def test_a_pod_cannot_take_the_address_of_another(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    laboratory.serve("udp", 53, inside=outside, address=OUTSIDE)
    victim = await networks.allocate("victim")
    victim_pod = await run_pod(networks, laboratory, victim)
    thief = await networks.allocate("thief", others=[victim])
    thief_pod = await run_pod(networks, laboratory, thief)
    laboratory.serve("tcp", 80, inside=victim_pod)
    assert laboratory.ask("tcp", victim.ip, 80) == victim.nics[0].gateway
    ip(f"address replace {victim.ip}/24 dev eth0", inside=thief_pod)
    assert laboratory.ask("udp", OUTSIDE, 53, inside=thief_pod)  # by its own address it goes on
    script = (
        f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(({victim.ip!r}, 0))"
    )
    script += f"; s.settimeout(1); s.sendto(b'x', ({OUTSIDE!r}, 53)); print(s.recv(9))"
    assert "192" not in inside(thief_pod, script)
    assert dropped("source") > 0
    before = dropped("source")
    command(f"busybox arping -q -c 1 -U -I eth0 {victim.ip}", inside=thief_pod, check=False)
    until(lambda: dropped("source") > before)
    assert victim.nics[0].mac in ip(f"neigh show {victim.ip}")
    assert laboratory.ask("tcp", victim.ip, 80) == victim.nics[0].gateway


def inside(pod: str, script: str) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", pod, sys.executable, "-c", script], capture_output=True, text=True, timeout=10
    )
    return done.stdout


def dropped(chain: str) -> int:
    words = command(f"nft list chain bridge hyper0 {chain}").split()
    return sum(int(words[index + 1]) for index, word in enumerate(words) if word == "packets")
