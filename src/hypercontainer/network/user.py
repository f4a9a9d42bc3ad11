"""The network of who is not root: one passt for each pod, which speaks TCP, UDP and ICMP for its guest.

passt (passt(1)) is an ordinary process: each connection of the guest becomes a socket of its own, and a
published port is a port that it listens on.  So every pod has the same address and none reaches another
but by published ports.

    QEMU ── stream socket ─────────────────────────────────▶ passt
    UML ─── packet socket ──▶ relay (relay.py) ── stream ──▶ passt

Both go into the background by themselves and end when the machine's side of the socket closes.  An old
passt needs the relay for QEMU too, when it is to publish TCP ports.

A guest cannot reach the loopback addresses of the host.  With an old passt (2023-03, of Debian 12) the
price is that a published UDP port does not answer at 127.0.0.1, only at the host's other addresses.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface
from pathlib import Path

import msgspec

from hypercontainer.config import Paths, Settings
from hypercontainer.errors import Conflict, InvalidRequest, Unavailable, Unsupported
from hypercontainer.model.machine import Nic, NicKind
from hypercontainer.model.network import AllowLists, InterfaceSpec, Lease, NicLease, PortMapping
from hypercontainer.network import interfaces as wanted
from hypercontainer.network import relay, subnets
from hypercontainer.network.background import Background
from hypercontainer.network.base import Networks
from hypercontainer.network.ports import PortHolder
from hypercontainer.network.resolver import host_resolver
from hypercontainer.process import find_program, run

log = logging.getLogger(__name__)

_MTU = 1500
_ROOT = "run hyperd as root"
_STOPPED = "stop the pod, change its ports, and start it again; or run hyperd as root"
_SOCKET_PATH_MAX = 107  # of sockaddr_un, unix(7): passt takes the path as it is
_FINISHES_HANDSHAKES = "20250101"  # releases of passt from then on surely do


@dataclass(frozen=True, slots=True)
class NicFiles:
    """What a NIC has in the run directory."""

    directory: Path
    name: str

    def _file(self, suffix: str) -> Path:
        return self.directory / f"{self.name}.{suffix}"

    @property
    def stream(self) -> Path:
        return self._file("stream")

    @property
    def relayed(self) -> Path:
        return self._file("relayed")

    @property
    def log(self) -> Path:
        return self._file("log")

    @property
    def passt(self) -> Background:
        return Background(self._file("pid"))

    @property
    def relay(self) -> Background:
        return Background(self._file("relay-pid"))


class UserNetworks(Networks):
    """Everything of a NIC is in the run directory under its name, so the next daemon finds it all."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self._settings = settings
        self._owner = str(paths.state)
        self.directory = paths.run / "network"

    def check(
        self, interfaces: Sequence[InterfaceSpec], ports: Sequence[PortMapping], allow: AllowLists | None
    ) -> None:
        """passt is one NIC, and no host's bridge; and who connects it passes on without a question."""
        wanted.check(interfaces, ports, None, own="")
        spec = interfaces[0] if interfaces else InterfaceSpec()
        if len(interfaces) > 1 or spec.bridge:
            raise Unsupported(
                f"{'an interface on a bridge' if spec.bridge else 'a second interface'} needs root",
                hint=_ROOT,
            )
        if spec.address or spec.gateway:
            raise Unsupported("the address of a pod is not to be chosen without root", hint=_ROOT)
        if spec.mtu > _MTU:
            raise InvalidRequest(f"an MTU of {spec.mtu} is more than the {_MTU} of passt")
        if allow:
            raise Unsupported(
                "white lists need rules of the host's firewall, which are root's",
                hint=f"{_ROOT}, or publish ports at 127.0.0.1 only: -p 127.0.0.1:8080:80",
            )

    async def allocate(
        self,
        pod_id: str,
        ports: Sequence[PortMapping] = (),
        *,
        interfaces: Sequence[InterfaceSpec] = (),
        allow: AllowLists | None = None,
        others: Collection[Lease] = (),
        previous: Lease | None = None,
    ) -> Lease:
        self.check(interfaces, ports, allow)
        find_program("passt", package="passt")
        subnet = subnets.parse_subnet(self._settings.subnet)
        gateway, address = (
            IPv4Interface((subnet.network_address + number, subnet.prefixlen)) for number in (1, 2)
        )
        spec = interfaces[0] if interfaces else InterfaceSpec()
        nic = NicLease(
            nic_name=subnets.nic_name(self._owner, pod_id),
            mac=spec.mac.lower() or subnets.mac_of(address.ip),
            address=str(address),
            gateway=str(gateway.ip),
            mtu=spec.mtu or _MTU,
            name=spec.name or "eth0",
        )
        resolver = host_resolver()
        return Lease(
            nics=(nic,),
            # Servers on the host's loopback are asked by passt, for queries to the gateway.
            dns=self._settings.dns or resolver.servers or (nic.gateway,),
            search=resolver.search,
            ports=_probe_ports(ports, others),
        )

    async def attach(self, lease: Lease, kinds: frozenset[NicKind]) -> tuple[Nic, ...]:
        if not kinds & {NicKind.STREAM, NicKind.PACKET}:
            raise Unsupported("this hypervisor driver has no NIC that works without root")
        await self.detach(lease)
        self.directory.mkdir(parents=True, exist_ok=True)
        (nic,) = lease.nics
        files = self._files(nic.nic_name)
        kind = NicKind.STREAM if NicKind.STREAM in kinds else NicKind.PACKET
        if kind is NicKind.STREAM and not await _needs_relay(lease):
            await _start_passt(lease, files)
            return (Nic(mac=nic.mac, kind=kind, backend=str(files.stream)),)
        started = await asyncio.gather(
            _start_passt(lease, files), run(_relay_command(kind, files)), return_exceptions=True
        )
        for failure in started:
            if isinstance(failure, BaseException):
                await self._remove(files)
                raise failure
        return (Nic(mac=nic.mac, kind=kind, backend=str(files.relayed)),)

    async def ready(self, lease: Lease) -> None:
        pass

    async def detach(self, lease: Lease) -> None:
        for nic in lease.nics:
            await self._remove(self._files(nic.nic_name))

    async def revise(
        self,
        lease: Lease,
        ports: Sequence[PortMapping] = (),
        *,
        interfaces: Sequence[InterfaceSpec] = (),
        allow: AllowLists | None = None,
        others: Collection[Lease] = (),
    ) -> Lease:
        """passt has its ports from its start to its end, and ends with the machine."""
        self.check(interfaces, ports, allow)
        spec = interfaces[0] if interfaces else InterfaceSpec()
        (nic,) = lease.nics
        if spec.mac.lower() not in {"", nic.mac}:
            raise Unsupported("the MAC of a running machine's NIC cannot be changed")
        if not _has_ports(lease, ports):
            raise Unsupported(
                "published ports of a running pod cannot be changed without root", hint=_STOPPED
            )
        return replace(lease, nics=(replace(nic, name=spec.name or "eth0", mtu=spec.mtu or _MTU),))

    async def switch(self, before: Lease, after: Lease) -> None:
        pass

    async def reconcile(self, live: Collection[Lease]) -> None:
        names = {nic.nic_name for lease in live for nic in lease.nics}
        for name in self._names() - names:
            await self._remove(self._files(name))
        for name in names:
            if self._files(name).passt.find() is None:
                log.warning("passt of NIC %s is gone: its pod has no network until it is restarted", name)

    async def close(self) -> None:
        pass

    def _files(self, name: str) -> NicFiles:
        return NicFiles(self.directory, name)

    def _names(self) -> set[str]:
        if not self.directory.exists():
            return set()
        return {path.stem for path in self.directory.iterdir() if path.name.startswith("hy")}

    async def _remove(self, files: NicFiles) -> None:
        await files.relay.stop()
        await files.passt.stop()
        for path in (files.relayed, files.stream, files.log):
            path.unlink(missing_ok=True)


def _has_ports(lease: Lease, ports: Sequence[PortMapping]) -> bool:
    """Whether ``lease`` publishes just ``ports``; a host port of 0 is any."""
    left = list(lease.ports)
    for port in sorted(ports, key=lambda port: not port.host_port):
        match = next(
            (mine for mine in left if port in {mine, msgspec.structs.replace(mine, host_port=0)}), None
        )
        if match is None:
            return False
        left.remove(match)
    return not left


def _probe_ports(ports: Sequence[PortMapping], others: Collection[Lease]) -> tuple[PortMapping, ...]:
    """The ports as chosen; let go again, as passt is to have them."""
    holder = PortHolder()
    try:
        return holder.take(ports, others)
    finally:
        holder.close()


async def _start_passt(lease: Lease, files: NicFiles) -> None:
    """Returns when passt listens; then it is no child of ours any more."""
    if len(os.fsencode(files.stream)) > _SOCKET_PATH_MAX:
        raise Unavailable(
            f"the path {files.stream} is too long for a socket",
            hint=f"its limit is {_SOCKET_PATH_MAX} bytes: set HYPER_ROOT or XDG_RUNTIME_DIR to a shorter one",
        )
    try:
        await run(passt_command(lease, files))
    except Unavailable as error:
        files.log.unlink(missing_ok=True)
        if "Failed to bind" in error.message or "in use" in error.message:
            raise Conflict(f"a published port was taken in the meantime: {error.message}") from error
        raise


def passt_command(lease: Lease, files: NicFiles) -> list[str]:
    """passt for one machine: everything is said, so that nothing is learnt from the host's interfaces."""
    (nic,) = lease.nics
    return [
        find_program("passt", package="passt"),
        *("--quiet", "--one-off", "--ipv4-only"),
        *(
            ["--runas", "0:0"] if os.geteuid() == 0 else []
        ),  # it would drop to nobody, who has no run directory
        *("--socket", str(files.stream)),
        *("--pid", str(files.passt.pid_file)),
        *("--log-file", str(files.log)),
        *("--address", nic.ip, "--netmask", nic.address.partition("/")[2]),
        *("--gateway", nic.gateway, "--mtu", str(nic.mtu)),
        "--no-map-gw",  # or the gateway's address would be the host's loopback, open to the guest
        *("--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra", "--no-dhcp-search"),
        *_forwarded_dns(lease),
        *(word for port in lease.ports for word in _published(port)),
    ]


def _forwarded_dns(lease: Lease) -> list[str]:
    """passt asks the host's own server for who asks the gateway, when the pod was told to."""
    gateway = lease.nics[0].gateway
    return ["--dns-forward", gateway] if gateway in lease.dns else ["--no-dhcp-dns"]


def _published(port: PortMapping) -> tuple[str, str]:
    option = "--tcp-ports" if port.protocol == "tcp" else "--udp-ports"
    address = f"{port.host_ip}/" if port.host_ip else ""
    return option, f"{address}{port.host_port}:{port.container_port}"


async def _needs_relay(lease: Lease) -> bool:
    """Whether TCP ports are published by a passt that leaves handshakes unfinished, or might."""
    if not any(port.protocol == "tcp" for port in lease.ports):
        return False
    version = (await run([find_program("passt", package="passt"), "--version"])).decode(errors="replace")
    date = re.search(r"\b20[0-9]{6}\b", version.replace("_", "").replace("-", ""))
    return date is None or date[0] < _FINISHES_HANDSHAKES


def _relay_command(kind: NicKind, files: NicFiles) -> list[str]:
    paths = (files.relayed, files.stream, files.relay.pid_file)
    return [sys.executable, "-I", "-S", relay.__file__, kind.value, *map(str, paths)]
