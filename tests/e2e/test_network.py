"""A pod's network as its containers see it, and as others see the pod: NICs, ports, white lists, names."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator

import pytest

from hypercontainer.client import Client
from tests.e2e.hyper import Hyper
from tests.e2e.servers import SERVE, SERVE_UDP, ask, install, start, udp_program

pytestmark = pytest.mark.needs_root

# Ports of the host are below those that the kernel gives to clients: any program's may have them just now.


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge of the host with 10.93.NUMBER.1/24, which is not hyper's."""
    number = os.getpid() % 200
    name = f"hytbr{number}"
    ip(f"link add {name} type bridge forward_delay 0")
    ip(f"address add 10.93.{number}.1/24 dev {name}")
    ip(f"link set {name} addrgenmode none mtu 1400 up")
    yield name
    ip(f"link delete {name}")


def ip(words: str) -> str:
    return subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True).stdout


@pytest.mark.every_driver
def test_a_pod_has_two_nics_on_two_bridges_as_it_asked(hyper: Hyper, bridge: str) -> None:
    number = os.getpid() % 200
    lan = {
        "bridge": bridge, "address": f"10.93.{number}.7/24", "name": "eth0", "mtu": 1300,
        "mac": "02:00:00:00:00:77", "gateway": f"10.93.{number}.1",
    }  # fmt: skip
    start(hyper, "web", SERVE.format(word="hello", port=80), interfaces=[{"name": "wan"}, lan])
    shown = hyper.ok("exec", "web", "ip", "address")
    assert re.search(r"wan: .* mtu", shown)
    assert re.search(r"eth0: .* mtu 1300 ", shown)
    assert f"inet 10.93.{number}.7/24" in shown
    assert "02:00:00:00:00:77" in shown
    assert hyper.ok("exec", "web", "ip", "route", "show", "default").startswith(
        f"default via 10.93.{number}.1 dev eth0"
    )
    assert ask(80, address=f"10.93.{number}.7") == "hello"
    hyper.ok("stop", "-t", "0", "web")
    assert ip(f"-br link show master {bridge}") == ""


def test_a_bridge_that_is_not_there_is_named_and_leaves_nothing(hyper: Hyper) -> None:
    pods = Client(hyper.root / "run/hyper.sock").pods
    asked = {"bridge": "nosuch9", "address": "10.1.1.1/24"}
    pods.create({"name": "web", "containers": [{"image": "busybox"}], "interfaces": [asked]})
    result = hyper("start", "web")
    assert result.status == 1
    assert "there is no bridge nosuch9 on this host" in result.err
    assert hyper.state("web") == "created"


@pytest.mark.every_driver
def test_portmapping(hyper: Hyper) -> None:
    """A range of ports, of both protocols, each leading to its own."""
    ports = (1300, 1301, 1310)
    script = "".join(
        f"({SERVE.format(word=f'tcp-{port}', port=port)}) & "
        f"({SERVE_UDP.format(word=f'udp-{port}', port=port)}) & "
        for port in ports
    )
    flags = [word for kind in ("tcp", "udp") for word in ("-p", f"23000-23010:1300-1310/{kind}")]
    hyper.ok("run", "-d", "--name", "web", *flags, "busybox", "sh", "-c", f"{script} sleep 1000")
    install(hyper, "web", udp_program())
    for port in ports:
        assert ask(21700 + port) == f"tcp-{port}"
        assert ask(21700 + port, udp=True) == f"udp-{port}"


def test_ports_are_added_and_deleted_while_the_pod_runs_and_outlive_the_daemon(hyper: Hyper) -> None:
    script = f"({SERVE.format(word='one', port=80)}) & {SERVE.format(word='two', port=81)}"
    hyper.ok("run", "-d", "--name", "web", "-p", "23020:80", "busybox", "sh", "-c", script)
    hyper.ok("ports", "add", "web", "-p", "23021:81", "-p", "82/udp")
    assert (ask(23020), ask(23021)) == ("one", "two")
    rows = [line.split() for line in hyper.ok("ports", "ls", "web").splitlines()]
    assert rows[0] == ["Protocol", "Host", "Ports", "Container", "Ports"]
    assert ["tcp", "23021", "81"] in rows
    (chosen,) = [row[1] for row in rows if row[0] == "udp"]
    assert int(chosen) >= 32768
    hyper.stop_daemon()
    hyper.start_daemon()
    assert [line.split() for line in hyper.ok("ports", "ls", "web").splitlines()] == rows
    assert ask(23021) == "two"
    hyper.ok("ports", "delete", "web", "-p", "23021:81", "-p", f"{chosen}:82/udp")
    assert "23021" not in hyper.ok("ports", "ls", "web")
    hyper.ok("stop", "-t", "0", "web")
    hyper.ok("ports", "add", "web", "-p", "23022:81")
    hyper.ok("start", "web")
    assert (ask(23020), ask(23022)) == ("one", "two")
    refused = hyper("ports", "delete", "web", "-p", "9:9")
    assert refused.status == 1
    assert "does not publish" in refused.err


def test_a_port_that_is_taken_is_not_added(hyper: Hyper) -> None:
    hyper.ok("run", "-d", "--name", "web", "-p", "23030:80", "busybox", "sleep", "1000")
    hyper.ok("run", "-d", "--name", "other", "busybox", "sleep", "1000")
    result = hyper("ports", "add", "other", "-p", "23031:80", "-p", "23030:80")
    assert result.status == 1
    assert "23030/tcp" in result.err
    assert hyper.ok("ports", "ls", "other").splitlines()[1:] == []
    hyper.ok("ports", "add", "web", "-p", "23031:80")


def test_white_lists_hold_between_pods_and_for_the_host(hyper: Hyper) -> None:
    friend = start(hyper, "friend", "sleep 1000")
    start(hyper, "stranger", "sleep 1000")
    script = f"({SERVE.format(word='http', port=80)}) & {SERVE.format(word='other', port=81)}"
    allow = {"internal": [f"{friend['address']}/32"], "external": []}
    guarded = start(hyper, "guarded", script, allow=allow, ports=[{"container_port": 80, "host_port": 23040}])
    address = guarded["address"]
    for port, word in ((80, "http"), (81, "other")):
        seen = hyper.eventually(word, "exec", "friend", "sh", "-c", f"nc -w 2 {address} {port} < /dev/null")
        assert seen == f"{word}\n"
        assert hyper("exec", "stranger", "sh", "-c", f"nc -w 1 {address} {port} < /dev/null").out == ""
    with pytest.raises(OSError, match=r"timed out|not permitted"):
        socket.create_connection((address, 80), timeout=1)


def test_names_are_what_the_pod_asks_for(hyper: Hyper) -> None:
    start(
        hyper, "web", "sleep 1000", hostname="front", dns=["192.0.2.53"], dns_search=["a.example"],
        dns_options=["ndots:3"], extra_hosts=["db:10.1.2.3"],
    )  # fmt: skip
    resolver = hyper.ok("exec", "web", "cat", "/etc/resolv.conf").splitlines()
    assert resolver == ["search a.example", "nameserver 192.0.2.53", "options ndots:3"]
    assert "10.1.2.3\tdb" in hyper.ok("exec", "web", "cat", "/etc/hosts").splitlines()
    assert "bytes from" in hyper.ok("exec", "web", "ping", "-c", "1", "front")
