"""Host ports: which are free, chosen for who does not care, and held while a pod publishes them.

Rules of nftables alone take a port silently: another program could bind it as well, and would wonder
where its packets go.  So each published port is also held by a socket, which never sees a packet (they
are redirected before) but makes the second user fail as it should, be it another daemon of ours.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from hypercontainer.errors import Conflict, InvalidRequest, Unavailable
from hypercontainer.model.network import Lease, PortMapping

_CHOICE = range(32768, 61000)  # ip_local_port_range's default (ip(7)), where Docker looks too
_ATTEMPTS = 200


class HostPort(NamedTuple):
    """What two mappings cannot share."""

    host_ip: str
    number: int
    protocol: str

    @classmethod
    def of(cls, port: PortMapping) -> HostPort:
        return cls(port.host_ip, port.host_port, port.protocol)


class PortHolder:
    """The sockets that hold published ports.  They end with the process: no more than a courtesy."""

    def __init__(self) -> None:
        self._sockets: dict[HostPort, socket.socket] = {}

    def take(
        self, ports: Sequence[PortMapping], others: Collection[Lease], had: Collection[PortMapping] = ()
    ) -> tuple[PortMapping, ...]:
        """``ports`` with each 0 replaced by a free port, all of them held from now on, or none.

        ``had`` are the ports that the pod, or the one that it takes over from, holds already.  Raises
        Conflict for a port that another pod or program has.
        """
        taken: list[PortMapping] = []
        held = {HostPort.of(port) for port in had}
        try:
            for port in ports:
                taken.append(self._take(port, others, taken, held))
        except BaseException:
            self.release([port for port in taken if HostPort.of(port) not in held])
            raise
        return tuple(taken)

    def hold(self, leases: Iterable[Lease]) -> None:
        """Hold what pods that outlived a daemon publish, as far as nobody else does."""
        for lease in leases:
            for port in lease.ports:
                if HostPort.of(port) not in self._sockets:
                    with contextlib.suppress(Conflict, InvalidRequest, Unavailable):
                        self._sockets[HostPort.of(port)] = _bind(port)

    def release(self, ports: Iterable[PortMapping]) -> None:
        for port in ports:
            if held := self._sockets.pop(HostPort.of(port), None):
                held.close()

    def close(self) -> None:
        for held in self._sockets.values():
            held.close()
        self._sockets.clear()

    def _take(
        self,
        port: PortMapping,
        others: Collection[Lease],
        own: Collection[PortMapping],
        held: Collection[HostPort],
    ) -> PortMapping:
        published = [theirs for lease in others for theirs in lease.ports] + list(own)
        if port.host_port:
            _refuse_overlap(port, published)
            if HostPort.of(port) not in held:
                self._sockets[HostPort.of(port)] = _bind(port)
            return port
        for number in random.sample(_CHOICE, _ATTEMPTS):
            chosen = replace(port, host_port=number)
            if HostPort.of(chosen) not in held:
                with contextlib.suppress(Conflict):
                    return self._take(chosen, others, own, held)
        raise Unavailable(
            f"no free {port.protocol} port was found on the host in {_ATTEMPTS} attempts",
            hint="name the host port: HOST_PORT:CONTAINER_PORT",
        )


def _refuse_overlap(port: PortMapping, published: Iterable[PortMapping]) -> None:
    for other in published:
        if (other.protocol, other.host_port) != (port.protocol, port.host_port):
            continue
        if not other.host_ip or not port.host_ip or other.host_ip == port.host_ip:
            raise Conflict(
                f"port {port.host_port}/{port.protocol} of the host is published by another pod"
                f" or twice by this one ({other})",
                hint="choose another host port, or leave it out and one is chosen",
            )


def _bind(port: PortMapping) -> socket.socket:
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    held = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        if port.protocol == "tcp":  # connections of before that linger in TIME_WAIT are in nobody's way
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((port.host_ip, port.host_port))
        if port.protocol == "tcp":  # only a listening socket keeps others out who set SO_REUSEADDR too
            held.listen(1)
    except OSError as error:
        held.close()
        raise _bind_error(port, error) from error
    return held


def _bind_error(port: PortMapping, error: OSError) -> Conflict | InvalidRequest | Unavailable:
    name = f"port {port.host_port}/{port.protocol}"
    match error.errno:
        case errno.EADDRINUSE:
            return Conflict(
                f"{name} of the host is in use by another program",
                hint=f"see which: ss --{port.protocol} --listening --processes 'sport = {port.host_port}'",
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return InvalidRequest(
                f"cannot publish {name} at {port.host_ip}: the host does not have that address",
                hint="see: ip address",
            )
        case errno.EACCES | errno.EPERM:
            return Unavailable(
                f"cannot publish {name}: low ports are root's",
                hint="choose one of 1024 and up, or lower sysctl net.ipv4.ip_unprivileged_port_start",
            )
    return Unavailable(f"cannot publish {name}: {error.strerror}")
