"""A network of our own to test in: this process moves to a new network namespace, beside an "outside".

    pod namespace ── tap ═ pump ═ tap ── bridge ── [this process] ── veth ── outside namespace
                                                   198.51.100.2             198.51.100.1, 203.0.113.53

Nothing of the host's own network is seen or touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypercontainer.model.machine import Nic
from hypercontainer.model.network import Lease
from hypercontainer.network.bridge import BridgeNetworks
from tests.network.peer import PATIENCE_S

CLONE_NEWNET = 0x40000000
HERE = Path(__file__).parent
OUTSIDE = "203.0.113.53"
UPLINK = "198.51.100.2"

_libc = ctypes.CDLL(None, use_errno=True)


def command(text: str, *, inside: str = "", check: bool = True) -> str:
    """Run a command here, or in another namespace, and return what it printed."""
    prefix = ["ip", "netns", "exec", inside] if inside else []
    return subprocess.run([*prefix, *text.split()], check=check, capture_output=True, text=True).stdout


def ip(text: str, *, inside: str = "") -> str:
    return command(f"ip {text}", inside=inside)


@contextlib.contextmanager
def own_namespace() -> Iterator[None]:
    """This thread in a network namespace of its own while the block lasts."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        yield
    finally:
        if _libc.setns(before, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(before)


@dataclass
class Laboratory:
    """Namespaces and processes that end with the test."""

    namespaces: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def namespace(self, name: str) -> str:
        full = f"hypertest-{os.getpid()}-{len(self.namespaces)}-{name}"
        ip(f"netns add {full}")
        self.namespaces.append(full)
        ip("link set lo up", inside=full)
        return full

    def outside(self, *, mtu: int = 1500) -> str:
        """A neighbour on the uplink, which is our default route, with an address far away."""
        name = self.namespace("outside")
        ip(f"link add uplink mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}")
        ip("link set lo up")
        ip("link set uplink addrgenmode none")
        ip(f"address add {UPLINK}/24 dev uplink")
        ip("link set uplink up")
        ip("route add default via 198.51.100.1")
        ip("address add 198.51.100.1/24 dev eth0", inside=name)
        ip(f"address add {OUTSIDE}/32 dev lo", inside=name)
        ip("link set eth0 up", inside=name)
        return name

    def pod(self, lease: Lease, nics: Sequence[Nic]) -> str:
        """A stand-in for a machine: a namespace whose NICs are at the other ends of ``nics``."""
        name = self.namespace("pod")
        for leased, nic in zip(lease.nics, nics, strict=True):
            device = leased.name
            self._start([sys.executable, str(HERE / "pump.py"), nic.kind, nic.backend, name, device, nic.mac])
            ip(f"address add {leased.address} dev {device}", inside=name)
            ip(f"link set {device} mtu {leased.mtu} up", inside=name)
            if leased.gateway:
                ip(f"route add default via {leased.gateway}", inside=name)
        return name

    def serve(self, protocol: str, port: int, *, inside: str = "", address: str = "0.0.0.0") -> None:
        """A server that answers whoever asks with the address that it sees."""
        command = [sys.executable, str(HERE / "peer.py"), "serve", protocol, address, str(port)]
        self._start([*(["ip", "netns", "exec", inside] if inside else []), *command])

    def ask(
        self, protocol: str, address: str, port: int, *, inside: str = "", patience_s: float = PATIENCE_S
    ) -> str:
        """The answer of such a server, empty when there is none."""
        command = [sys.executable, str(HERE / "peer.py"), "ask", protocol, address, str(port)]
        prefix = ["ip", "netns", "exec", inside] if inside else []
        command = [*prefix, *command, str(patience_s)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    def is_silent(self, protocol: str, address: str, port: int, *, inside: str = "") -> bool:
        """Whether nobody answers: not waited for as long as for an answer that must come."""
        return self.ask(protocol, address, port, inside=inside, patience_s=1) == ""

    def connects(self, address: str, port: int, *, inside: str) -> bool:
        """Whether a TCP connection can be made from there."""
        script = f"import socket; socket.create_connection(({address!r}, {port}), timeout=5)"
        prefix = ["ip", "netns", "exec", inside, sys.executable, "-c"]
        return subprocess.run([*prefix, script], capture_output=True).returncode == 0

    def _start(self, command: list[str]) -> None:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def kill_processes(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.processes.clear()

    def close(self) -> None:
        self.kill_processes()
        for name in self.namespaces:
            ip(f"netns delete {name}")


def census() -> set[str]:
    """All that a network could leave behind in this namespace: links, addresses, routes and rules."""
    lines = [
        line
        for text in ("ip route", "nft list ruleset", "iptables-save")
        for line in command(text).splitlines()
    ]
    for line in ip("-o -br address").splitlines():
        name, _, *addresses = line.split()
        lines += [name, *(f"{name} {address}" for address in addresses)]
    lines = [line.replace("linkdown", "").strip() for line in lines]  # links come up by and by
    lines = [re.sub("packets [0-9]+ bytes [0-9]+", "", line) for line in lines]
    return {line for line in lines if line and not line.startswith(("#", ":"))}


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def kill(networks: BridgeNetworks) -> None:
    """As kill -9 of the daemon: the kernel closes its sockets, and all else stays."""
    networks._ports.close()
