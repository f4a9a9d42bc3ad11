"""Names for pods: which servers a pod asks, its resolv.conf, and a forwarder for the hosts that need one.

A pod cannot reach a server on the host's loopback, where systemd-resolved, dnsmasq and others listen.
systemd-resolved keeps a file of the servers behind it; for the others a dnsmasq of ours listens on the
bridge and asks what the host asks.  It is started only then.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.model.network import Lease
from hypercontainer.network.background import Background
from hypercontainer.process import find_program, run

_HOST = Path("/etc/resolv.conf")
_SYSTEMD = Path("/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """What a resolv.conf says (resolv.conf(5)), as far as it concerns us."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Resolver:
        servers: list[str] = []
        search: tuple[str, ...] = ()
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            match line.split():
                case ["nameserver", server, *_]:
                    servers.append(server)
                case ["search" | "domain", *domains]:
                    search = tuple(domains)
        return cls(servers=tuple(servers), search=search)

    def from_afar(self) -> tuple[str, ...]:
        """The servers that a pod can reach too: IPv4, and not on the host's loopback."""
        return tuple(server for server in self.servers if _reachable(server))


def host_resolver(*, host: Path = _HOST, systemd: Path = _SYSTEMD) -> Resolver:
    """The host's resolver as pods can use it; without servers when only the host itself can ask."""
    stub = Resolver.read(host)
    servers = stub.from_afar()
    if not servers and stub.servers:
        servers = Resolver.read(systemd).from_afar()
    return Resolver(servers=servers, search=stub.search)


def needs_forwarder(*, host: Path = _HOST, systemd: Path = _SYSTEMD) -> bool:
    """Whether the host resolves names by a server that pods cannot reach."""
    return bool(Resolver.read(host).servers) and not host_resolver(host=host, systemd=systemd).servers


def _reachable(server: str) -> bool:
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback and not address.is_unspecified


def resolv_conf(lease: Lease | None) -> str:
    """A container's /etc/resolv.conf; without a network it has no servers."""
    if lease is None:
        return ""
    lines = [f"search {' '.join(lease.search)}"] if lease.search else []
    lines += [f"nameserver {server}" for server in lease.dns[:3]]  # MAXNS of resolv.h
    return "".join(f"{line}\n" for line in lines)


class Forwarder:
    """The dnsmasq on a bridge; it outlives the daemon, as the pods do."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._background = Background(directory / "dnsmasq.pid")

    async def start(self, address: str, *, resolv: Path = _HOST) -> None:
        """Start it unless it runs; Unavailable when dnsmasq is missing or cannot listen there."""
        if self._background.find() is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            await run(self.command(address, resolv=resolv))

    def command(self, address: str, *, resolv: Path = _HOST) -> list[str]:
        return [
            find_program("dnsmasq", package="dnsmasq-base"),
            "--conf-file=/dev/null",
            f"--pid-file={self._background.pid_file}",
            f"--log-facility={self._directory / 'dnsmasq.log'}",
            "--bind-interfaces",  # another dnsmasq may have the other addresses of this host
            "--except-interface=lo",
            f"--listen-address={address}",
            f"--resolv-file={resolv}",
            "--no-hosts",
            "--cache-size=1000",
        ]

    async def stop(self) -> None:
        await self._background.stop()
        (self._directory / "dnsmasq.log").unlink(missing_ok=True)
