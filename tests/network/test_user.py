"""passt and the relay with real frames: the host's side is this namespace, the pod's a tap in another."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercontainer.config import Paths, Settings
from hypercontainer.errors import Conflict, Unavailable, Unsupported
from hypercontainer.model.machine import NicKind
from hypercontainer.model.network import AllowLists, InterfaceSpec, Lease, parse_publish
from hypercontainer.network.relay import FrameError, Frames, completing_ack
from hypercontainer.network.user import NicFiles, UserNetworks, passt_command
from tests.network import peer
from tests.network.laboratory import OUTSIDE, UPLINK, Laboratory, is_listening

KINDS = [NicKind.STREAM, NicKind.PACKET]


@pytest.fixture
def networks(paths: Paths) -> UserNetworks:
    return UserNetworks(Settings(), paths)


async def start_pod(
    networks: UserNetworks, laboratory: Laboratory, name: str, kind: NicKind, *ports: str
) -> tuple[Lease, str]:
    mappings = [mapping for port in ports for mapping in parse_publish(port)]
    lease = await networks.allocate(name, mappings)
    return lease, laboratory.pod(lease, await networks.attach(lease, frozenset({kind})))


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", KINDS)
async def test_pod_reaches_out_and_is_reached(
    networks: UserNetworks, laboratory: Laboratory, kind: NicKind
) -> None:
    outside = laboratory.outside()
    laboratory.serve("tcp", 80, inside=outside)
    laboratory.serve("udp", 53, inside=outside, address=OUTSIDE)
    lease, pod = await start_pod(
        networks, laboratory, "p1", kind, "8080:80", "8053:53/udp", "127.0.0.1:81:81"
    )
    try:
        assert laboratory.ask("tcp", OUTSIDE, 80, inside=pod) == UPLINK
        assert laboratory.ask("udp", OUTSIDE, 53, inside=pod) == UPLINK
        laboratory.serve("tcp", 80, inside=pod)
        laboratory.serve("tcp", 81, inside=pod)
        laboratory.serve("udp", 53, inside=pod)
        assert laboratory.ask("tcp", "127.0.0.1", 8080)
        assert laboratory.ask("udp", UPLINK, 8053)
        assert laboratory.ask("tcp", "127.0.0.1", 81)
        assert laboratory.ask("tcp", UPLINK, 8080, inside=outside)
        assert laboratory.ask("udp", UPLINK, 8053, inside=outside)
        assert laboratory.is_silent("tcp", UPLINK, 81, inside=outside)
    finally:
        await networks.detach(lease)
    await networks.detach(lease)
    assert files_and_processes(networks) == set()


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", KINDS)
async def test_host_is_hidden_but_for_its_addresses(
    networks: UserNetworks, laboratory: Laboratory, kind: NicKind
) -> None:
    laboratory.outside()
    lease, pod = await start_pod(networks, laboratory, "p1", kind)
    try:
        with socket.create_server(("127.0.0.1", 7777)):
            assert not laboratory.connects(lease.nics[0].gateway, 7777, inside=pod)
    finally:
        await networks.detach(lease)


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", KINDS)
async def test_processes_end_with_the_machine(
    networks: UserNetworks, laboratory: Laboratory, kind: NicKind
) -> None:
    laboratory.outside()
    lease, _ = await start_pod(networks, laboratory, "p1", kind, "8080:80")
    files = NicFiles(networks.directory, lease.nics[0].nic_name)
    running = [process for process in (files.passt.find(), files.relay.find()) if process]
    assert len(running) == 2
    laboratory.kill_processes()
    async with asyncio.timeout(30):
        for process in running:
            await process.wait()
    await networks.detach(lease)
    assert files_and_processes(networks) == set()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"interfaces": (InterfaceSpec(), InterfaceSpec())}, "a second interface needs root"),
        ({"interfaces": (InterfaceSpec(bridge="br0", address="10.0.0.2/24"),)}, "an interface on a bridge"),
        ({"interfaces": (InterfaceSpec(address="192.168.123.9"),)}, "not to be chosen without root"),
        ({"allow": AllowLists(internal=("10.0.0.0/8",))}, "rules of the host's firewall"),
    ],
)
async def test_what_passt_cannot_do_is_refused_before_anything_is_made(
    networks: UserNetworks, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(Unsupported, match=words):
        networks.check(**{"interfaces": (), "ports": (), "allow": None} | asked)
    with pytest.raises(Unsupported, match=words):
        await networks.allocate("p1", **asked)
    assert not networks.directory.exists()


async def test_a_machine_changes_hands_when_its_ports_stay_the_same(networks: UserNetworks) -> None:
    asked = (InterfaceSpec(name="net0", mac="02:AA:00:00:00:01", mtu=1300),)
    old = await networks.allocate("old", parse_publish("8080:80"), interfaces=asked)
    assert (old.nics[0].name, old.nics[0].mac, old.nics[0].mtu) == ("net0", "02:aa:00:00:00:01", 1300)
    new = await networks.revise(old, parse_publish("80"))
    assert (new.ports, new.ip, new.nics[0].name) == (old.ports, old.ip, "eth0")
    for ports in ((), parse_publish("8081:80"), parse_publish("8080-8081:80-81")):
        with pytest.raises(Unsupported, match="cannot be changed without root"):
            await networks.revise(old, ports)
    with pytest.raises(Unsupported, match="MAC"):
        await networks.revise(old, parse_publish("80"), interfaces=(InterfaceSpec(mac="02:00:00:00:00:09"),))


@pytest.mark.needs_root
async def test_new_daemon_ends_what_belongs_to_nobody(
    networks: UserNetworks, paths: Paths, laboratory: Laboratory
) -> None:
    laboratory.outside()
    lost = await networks.allocate("lost", parse_publish("8080:80"))
    kept = await networks.allocate("kept", parse_publish("8081:80"), others=[lost])
    for lease in (lost, kept):
        await networks.attach(lease, frozenset({NicKind.PACKET}))
    await UserNetworks(Settings(), paths).reconcile([kept])
    assert {name.partition(".")[0] for name in files_and_processes(networks)} == {kept.nics[0].nic_name}
    assert not is_listening(8080)
    assert is_listening(8081)
    await UserNetworks(Settings(), paths).reconcile([])
    assert files_and_processes(networks) == set()


@pytest.mark.needs_root
async def test_broken_attach_is_repeated(networks: UserNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    lease = await networks.allocate("p1", parse_publish("8080:80"))
    await networks.attach(lease, frozenset({NicKind.STREAM}))  # and no machine ever connects
    pod = laboratory.pod(lease, await networks.attach(lease, frozenset({NicKind.STREAM})))
    laboratory.serve("tcp", 80, inside=pod)
    assert laboratory.ask("tcp", "127.0.0.1", 8080)
    await networks.detach(lease)


async def test_passt_asks_the_name_server_that_only_the_host_reaches(networks: UserNetworks) -> None:
    lease = replace(await networks.allocate("p1"), dns=("192.168.123.1",))
    command = passt_command(lease, NicFiles(networks.directory, lease.nics[0].nic_name))
    assert command[command.index("--dns-forward") + 1] == "192.168.123.1"


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", KINDS)
async def test_server_that_speaks_first_is_heard_every_time(
    networks: UserNetworks, laboratory: Laboratory, kind: NicKind
) -> None:
    """An old passt leaves the handshake unfinished, and loops for ever over one finished too early."""
    laboratory.outside()
    lease, pod = await start_pod(networks, laboratory, "p1", kind, "8080:80")
    laboratory.serve("tcp", 80, inside=pod)
    try:
        assert [peer.ask_tcp((UPLINK, 8080)) for _ in range(50)] == [UPLINK] * 50
    finally:
        await networks.detach(lease)


@pytest.mark.needs_root
async def test_taken_port_is_a_conflict(networks: UserNetworks, laboratory: Laboratory) -> None:
    laboratory.outside()
    lease = await networks.allocate("p1", parse_publish("8080:80"))
    with socket.create_server(("0.0.0.0", 8080)):
        with pytest.raises(Conflict, match="8080/tcp"):
            await networks.allocate("p2", parse_publish("8080:80"))
        with pytest.raises(Conflict, match="8080"):
            await networks.attach(lease, frozenset({NicKind.STREAM}))
    assert files_and_processes(networks) == set()


async def test_driver_with_taps_only_is_refused(networks: UserNetworks) -> None:
    lease = await networks.allocate("p1")
    with pytest.raises(Unsupported):
        await networks.attach(lease, frozenset({NicKind.TAP}))


async def test_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    networks = UserNetworks(Settings(), Paths(state=deep, run=deep, config=deep))
    with pytest.raises(Unavailable, match="too long"):
        await networks.attach(await networks.allocate("p1"), frozenset({NicKind.STREAM}))


@given(st.lists(st.binary(max_size=200), max_size=8), st.data())
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    sent: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(struct.pack(">I", len(frame)) + frame for frame in sent)
    frames, taken = Frames(), []
    while stream:
        size = data.draw(st.integers(min_value=1, max_value=len(stream)))
        taken += frames.feed(stream[:size])
        stream = stream[size:]
    assert taken == sent


def test_length_that_no_frame_has_is_an_error() -> None:
    with pytest.raises(FrameError):
        Frames().feed(struct.pack(">I", 1 << 30))


@given(st.binary(max_size=120))
def test_only_the_second_packet_of_a_handshake_is_answered(frame: bytes) -> None:
    """A hostile guest sends what it likes."""
    answer = completing_ack(frame)
    assert answer is None or len(answer) == 54


def test_answer_to_a_handshake_is_what_tcp_says() -> None:
    ethernet = bytes.fromhex("0268c0a87b01 0268c0a87b02 0800")
    packet = bytes.fromhex("4500002c 00004000 40060000 c0a87b02 c0000263")
    segment = bytes.fromhex("00501f90 ffffffff 00000010 6012ffff 00000000 020405b4")
    answer = completing_ack(ethernet + packet + segment)
    assert answer is not None
    assert answer[:14] == bytes.fromhex("0268c0a87b02 0268c0a87b01 0800")
    assert answer[26:34] == bytes.fromhex("c0000263 c0a87b02")
    assert answer[34:48] == bytes.fromhex("1f900050 00000010 00000000 5010")
    assert completing_ack(ethernet + packet + segment.replace(b"\x60\x12", b"\x60\x10")) is None


def files_and_processes(networks: UserNetworks) -> set[str]:
    """What is left in the run directory; processes without a file would be found by their pid files."""
    return {path.name for path in networks.directory.iterdir()} if networks.directory.exists() else set()
