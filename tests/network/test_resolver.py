"""Which name servers pods are told, and the forwarder for hosts whose servers only they can reach."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hypercontainer.model.network import Lease, NicLease
from hypercontainer.network.background import Background
from hypercontainer.network.resolver import Forwarder, host_resolver, needs_forwarder, resolv_conf
from tests.network.laboratory import Laboratory

A_NIC = NicLease(nic_name="hy0", mac="02:00:00:00:00:01", address="10.0.0.2/24", gateway="10.0.0.1", mtu=1500)
A_LEASE = Lease(nics=(A_NIC,))


def a_file(directory: Path, text: str, name: str = "resolv.conf") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_hosts_own_servers_are_used(tmp_path: Path) -> None:
    host = a_file(
        tmp_path, "# made by hand\nsearch a.example b.example\nnameserver 192.0.2.1\noptions edns0\n"
    )
    resolver = host_resolver(host=host, systemd=tmp_path / "none")
    assert resolver.servers == ("192.0.2.1",)
    assert resolver.search == ("a.example", "b.example")
    assert not needs_forwarder(host=host, systemd=tmp_path / "none")


def test_servers_behind_systemd_resolved_are_used(tmp_path: Path) -> None:
    host = a_file(tmp_path, "nameserver 127.0.0.53\nsearch a.example\n")
    systemd = a_file(tmp_path, "nameserver 192.0.2.1\nnameserver 2001:db8::1\n", "systemd")
    resolver = host_resolver(host=host, systemd=systemd)
    assert resolver.servers == ("192.0.2.1",)
    assert resolver.search == ("a.example",)
    assert not needs_forwarder(host=host, systemd=systemd)


@pytest.mark.parametrize("server", ["127.0.0.1", "::1", "fe80::1%eth0", "2001:db8::1"])
def test_server_that_pods_cannot_reach_needs_a_forwarder(tmp_path: Path, server: str) -> None:
    host = a_file(tmp_path, f"nameserver {server}\n")
    assert host_resolver(host=host, systemd=tmp_path / "none").servers == ()
    assert needs_forwarder(host=host, systemd=tmp_path / "none")


def test_host_without_servers_needs_no_forwarder(tmp_path: Path) -> None:
    assert not needs_forwarder(host=tmp_path / "none", systemd=tmp_path / "none")
    assert host_resolver(host=tmp_path / "none", systemd=tmp_path / "none").servers == ()


def test_resolv_conf_says_what_the_lease_says() -> None:
    assert resolv_conf(None) == ""
    assert resolv_conf(A_LEASE) == ""
    lease = replace(A_LEASE, dns=("192.0.2.1", "192.0.2.2"), search=("a.example", "b.example"))
    assert resolv_conf(lease) == "search a.example b.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"


def test_stranger_with_a_reused_pid_is_not_taken_for_ours(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        pid_file = a_file(tmp_path, f"{stranger.pid}\n", "dnsmasq.pid")
        assert Background(pid_file).find() is None
    a_file(tmp_path, "rubbish", "dnsmasq.pid")
    assert Background(pid_file).find() is None


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that dnsmasq can read as the user it drops to."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.needs_root
async def test_forwarder_answers_and_is_found_by_the_next_daemon(
    public_path: Path, laboratory: Laboratory
) -> None:
    host = a_file(public_path, "nameserver 127.0.0.1\n")
    laboratory.outside()
    laboratory.serve("dns", 53, address="127.0.0.1")
    background = Background(public_path / "dnsmasq.pid")
    try:
        await Forwarder(public_path).start("198.51.100.2", resolv=host)
        started = background.find()
        assert started is not None
        await Forwarder(public_path).start("198.51.100.2", resolv=host)
        assert background.find() == started
        assert laboratory.ask("dns", "198.51.100.2", 53) == "192.0.2.77"
    finally:
        await Forwarder(public_path).stop()
    await Forwarder(public_path).stop()
    assert not started.is_alive()
    assert [path.name for path in public_path.iterdir()] == ["resolv.conf"]
