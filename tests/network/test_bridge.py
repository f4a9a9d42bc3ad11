"""The bridge with real taps, nftables and frames, in a network namespace of the test's own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hypercontainer.config import Paths, Settings
from hypercontainer.errors import Conflict, InvalidRequest, Unavailable, Unsupported
from hypercontainer.model.machine import NicKind
from hypercontainer.model.network import Lease, PortMapping, parse_publish
from hypercontainer.network.bridge import BridgeNetworks
from tests.network.conftest import Start
from tests.network.laboratory import OUTSIDE, UPLINK, Laboratory, census, command, ip, is_listening, kill

pytestmark = pytest.mark.needs_root

TAP = frozenset({NicKind.TAP})


async def start_pod(
    networks: BridgeNetworks, laboratory: Laboratory, name: str, *ports: str, others: tuple[Lease, ...] = ()
) -> tuple[Lease, str]:
    mappings = [mapping for port in ports for mapping in parse_publish(port)]
    lease = await networks.allocate(name, mappings, others=others)
    return lease, await run_pod(networks, laboratory, lease)


async def run_pod(networks: BridgeNetworks, laboratory: Laboratory, lease: Lease) -> str:
    nics = await networks.attach(lease, TAP)
    await networks.ready(lease)
    return laboratory.pod(lease, nics)


async def test_pod_reaches_out_with_the_hosts_address(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    _, pod = await start_pod(networks, laboratory, "p1")
    laboratory.serve("tcp", 80, inside=outside)
    laboratory.serve("udp", 53, inside=outside, address=OUTSIDE)
    assert laboratory.ask("tcp", OUTSIDE, 80, inside=pod) == UPLINK
    assert laboratory.ask("udp", OUTSIDE, 53, inside=pod) == UPLINK


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
async def test_published_port_is_reached_from_everywhere(
    networks: BridgeNetworks, laboratory: Laboratory, protocol: str
) -> None:
    outside = laboratory.outside()
    lease, pod = await start_pod(networks, laboratory, "p1", f"8080:80/{protocol}")
    _, other = await start_pod(networks, laboratory, "p2", others=(lease,))
    laboratory.serve(protocol, 80, inside=pod)
    assert laboratory.ask(protocol, UPLINK, 8080, inside=outside) == "198.51.100.1"  # not hidden by NAT
    assert laboratory.ask(protocol, "127.0.0.1", 8080) == lease.nics[0].gateway
    assert laboratory.ask(protocol, UPLINK, 8080)
    assert laboratory.ask(protocol, lease.nics[0].gateway, 8080, inside=other)
    assert laboratory.ask(protocol, UPLINK, 8080, inside=other)
    assert laboratory.ask(protocol, UPLINK, 8080, inside=pod)  # the pod itself, by way of the host


async def test_pods_talk_to_each_other(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    first, pod = await start_pod(networks, laboratory, "p1")
    second, other = await start_pod(networks, laboratory, "p2", others=(first,))
    laboratory.serve("tcp", 80, inside=pod)
    assert laboratory.ask("tcp", first.ip, 80, inside=other) == second.ip


async def test_port_that_is_not_published_is_closed_to_the_outside(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    lease, pod = await start_pod(networks, laboratory, "p1", "8080:80")
    laboratory.serve("tcp", 80, inside=pod)
    laboratory.serve("tcp", 81, inside=pod)
    ip(f"route add 192.168.123.0/24 via {UPLINK}", inside=outside)
    assert laboratory.is_silent("tcp", lease.ip, 81, inside=outside)
    assert laboratory.is_silent("tcp", lease.ip, 80, inside=outside)
    assert laboratory.ask("tcp", UPLINK, 8080, inside=outside) == "198.51.100.1"


async def test_port_published_on_loopback_is_closed_to_the_outside(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    _, pod = await start_pod(networks, laboratory, "p1", "127.0.0.1:8080:80")
    laboratory.serve("tcp", 80, inside=pod)
    assert laboratory.ask("tcp", "127.0.0.1", 8080)
    assert laboratory.is_silent("tcp", UPLINK, 8080, inside=outside)


async def test_pod_cannot_reach_the_hosts_loopback(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    """route_localnet would let a hostile guest send to 127.0.0.1 by the bridge (CVE-2020-8558)."""
    laboratory.outside()
    lease, pod = await start_pod(networks, laboratory, "p1")
    ip("address del 127.0.0.1/8 dev lo", inside=pod)
    ip(f"route add 127.0.0.1/32 via {lease.nics[0].gateway} dev eth0 src {lease.ip}", inside=pod)
    command("sysctl -qw net.ipv4.conf.all.route_localnet=1", inside=pod)
    with socket.create_server(("127.0.0.1", 7777)):
        assert is_listening(7777)
        assert laboratory.is_silent("tcp", "127.0.0.1", 7777, inside=pod)
        assert "packets 0 " not in command("nft list chain ip hyper0 raw")  # it was tried, and dropped


async def test_docker_beside_us_does_not_drop_our_packets(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    command("iptables -P FORWARD DROP")
    before = census()
    lease, pod = await start_pod(networks, laboratory, "p1", "8080:80")
    laboratory.serve("tcp", 80, inside=pod)
    laboratory.serve("tcp", 80, inside=outside)
    assert laboratory.ask("tcp", OUTSIDE, 80, inside=pod) == UPLINK
    assert laboratory.ask("tcp", UPLINK, 8080, inside=outside)
    await networks.detach(lease)
    await networks.close()
    assert census() == before


async def test_nothing_is_left_behind(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    before = census()
    lease = await networks.allocate("p1", parse_publish("8080-8082:80-82"))
    await networks.attach(lease, TAP)
    assert census() != before
    await networks.detach(lease)
    await networks.detach(lease)
    await networks.close()
    assert census() == before


async def test_new_daemon_takes_over_and_removes_what_belongs_to_nobody(
    start: Start, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    dead = start()
    kept, pod = await start_pod(dead, laboratory, "kept", "8080:80")
    lost = await dead.allocate("lost", parse_publish("8081:80"), others=[kept])
    await dead.attach(lost, TAP)
    await dead.ready(lost)
    kill(dead)
    ip(f"tuntap add dev {dead._prefix}halfmade mode tap")

    networks = start()
    await networks.reconcile([kept])
    assert lost.nics[0].nic_name not in ip("-br link")
    assert "halfmade" not in ip("-br link")
    assert "8081" not in "".join(census())
    laboratory.serve("tcp", 80, inside=pod)
    assert laboratory.ask("tcp", UPLINK, 8080, inside=outside) == "198.51.100.1"
    with pytest.raises(Conflict, match="8080/tcp"):
        await networks.allocate("new", parse_publish("8080:80"), others=[kept])
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("0.0.0.0", 8080))


async def test_reconcile_without_pods_removes_everything(start: Start, laboratory: Laboratory) -> None:
    laboratory.outside()
    before = census()
    dead = start()
    lease = await dead.allocate("p1", parse_publish("8080:80"))
    await dead.attach(lease, TAP)
    await dead.ready(lease)
    kill(dead)
    await start().reconcile([])
    assert census() == before


async def test_bridge_that_was_deleted_under_us_comes_back(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    first, pod = await start_pod(networks, laboratory, "p1", "8080:80")
    laboratory.serve("tcp", 80, inside=pod)
    ip("link delete hyper0")
    await start_pod(networks, laboratory, "p2", others=(first,))
    assert laboratory.ask("tcp", UPLINK, 8080, inside=outside) == "198.51.100.1"


async def test_bridge_and_rules_that_were_deleted_under_us_come_back(
    networks: BridgeNetworks, start: Start, laboratory: Laboratory
) -> None:
    outside = laboratory.outside()
    first, pod = await start_pod(networks, laboratory, "p1", "8080:80")
    laboratory.serve("tcp", 80, inside=pod)
    laboratory.serve("tcp", 80, inside=outside)
    command("nft flush ruleset")
    ip("link delete hyper0")
    _, other = await start_pod(networks, laboratory, "p2", "8081:80", others=(first,))
    assert laboratory.ask("tcp", OUTSIDE, 80, inside=other) == UPLINK
    kill(networks)
    await start().reconcile([first])
    assert laboratory.ask("tcp", UPLINK, 8080, inside=outside) == "198.51.100.1"


async def test_broken_attach_is_repeated(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    lease = await networks.allocate("p1", parse_publish("8080:80"))
    ip(f"tuntap add dev {lease.nics[0].nic_name} mode tap")  # as far as the daemon came
    assert (await networks.attach(lease, TAP))[0].backend == lease.nics[0].nic_name
    assert (await networks.attach(lease, TAP))[0].mac == lease.nics[0].mac


async def test_two_daemons_share_a_host(tmp_path: Path, start: Start, laboratory: Laboratory) -> None:
    outside = laboratory.outside()
    laboratory.serve("tcp", 80, inside=outside)
    leases = []
    for name in ("one", "two"):
        paths = Paths(state=tmp_path / name, run=tmp_path / name / "run", config=tmp_path)
        daemon = start(at=paths)
        lease, pod = await start_pod(daemon, laboratory, "same name", "80")
        assert laboratory.ask("tcp", OUTSIDE, 80, inside=pod) == UPLINK
        leases.append(lease)
    assert leases[0].nics[0].gateway == "192.168.123.1"
    assert leases[1].nics[0].gateway == "192.168.124.1"
    assert leases[0].nics[0].nic_name != leases[1].nics[0].nic_name
    await daemon.reconcile([])
    assert leases[0].nics[0].nic_name in ip("-br link")
    assert leases[1].nics[0].nic_name not in ip("-br link")


async def test_bridge_of_a_daemon_that_is_gone_for_good_is_used_again(
    start: Start, tmp_path: Path, laboratory: Laboratory
) -> None:
    laboratory.outside()
    gone = Paths(state=tmp_path / "gone", run=tmp_path / "gone", config=tmp_path)
    await start(at=gone).allocate("p1")
    gone.state.rmdir()
    assert (await start().allocate("p1")).nics[0].gateway == "192.168.123.1"


async def test_subnet_that_the_host_uses_is_avoided(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    ip("address add 192.168.123.77/25 dev uplink")
    assert (await networks.allocate("p1")).nics[0].gateway == "192.168.124.1"


async def test_mtu_of_the_way_out_is_the_pods(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    laboratory.outside(mtu=1400)
    lease = await networks.allocate("p1")
    await networks.attach(lease, TAP)
    assert lease.nics[0].mtu == 1400
    assert f"{lease.nics[0].nic_name}: " in ip(f"-o link show {lease.nics[0].nic_name}")
    assert "mtu 1400" in ip(f"-o link show {lease.nics[0].nic_name}")


async def test_operators_own_bridge_is_used_and_kept(start: Start, laboratory: Laboratory) -> None:
    laboratory.outside()
    ip("link add br0 address 02:00:00:00:00:01 type bridge")
    ip("address add 10.9.8.1/24 dev br0")
    before = census()
    networks = start(Settings(bridge="br0"))
    lease = await networks.allocate("p1")
    assert lease.nics[0].gateway == "10.9.8.1"
    await networks.attach(lease, TAP)
    await networks.detach(lease)
    await networks.close()
    ip("link set br0 down")
    assert census() == before


async def test_link_that_is_no_bridge_is_refused(start: Start, laboratory: Laboratory) -> None:
    laboratory.outside()
    with pytest.raises(Conflict, match="uplink exists and is no bridge"):
        await start(Settings(bridge="uplink")).allocate("p1")


async def test_port_of_another_program_is_a_conflict(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    with socket.create_server(("0.0.0.0", 8080)), pytest.raises(Conflict, match="8080/tcp") as caught:
        await networks.allocate("p1", parse_publish("8079-8080:79-80"))
    assert "ss --tcp" in caught.value.hint
    await networks.allocate("p1", parse_publish("8079-8080:79-80"))  # the first of the two was let go


async def test_free_port_is_chosen(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    lease = await networks.allocate("p1", [PortMapping(container_port=80), PortMapping(container_port=80)])
    chosen = {port.host_port for port in lease.ports}
    assert len(chosen) == 2
    assert min(chosen) >= 32768


async def test_address_that_the_host_does_not_have_is_refused(
    networks: BridgeNetworks, laboratory: Laboratory
) -> None:
    laboratory.outside()
    with pytest.raises(InvalidRequest, match=r"192\.0\.2\.99"):
        await networks.allocate("p1", parse_publish("192.0.2.99:8080:80"))
    with pytest.raises(InvalidRequest, match="IPv4"):
        await networks.allocate("p1", parse_publish("[::1]:8080:80"))


async def test_address_is_kept_while_it_is_free(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    first = await networks.allocate("p1")
    assert (await networks.allocate("renamed", previous=first)).nics[0].address == first.nics[0].address
    assert (await networks.allocate("p2", previous=first, others=[first])).nics[0].address != first.nics[
        0
    ].address


async def test_full_network_says_so(start: Start, laboratory: Laboratory) -> None:
    laboratory.outside()
    networks = start(Settings(subnet="10.77.0.0/29"))
    leases: list[Lease] = []
    for number in range(5):
        leases.append(await networks.allocate(f"p{number}", others=leases))
    assert len({lease.ip for lease in leases} | {leases[0].nics[0].gateway}) == 6
    with pytest.raises(Unavailable, match="full"):
        await networks.allocate("one too many", others=leases)


async def test_driver_without_taps_is_refused(networks: BridgeNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    lease = await networks.allocate("p1")
    with pytest.raises(Unsupported):
        await networks.attach(lease, frozenset({NicKind.STREAM}))
