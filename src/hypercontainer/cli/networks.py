"""Verbs about a pod's network: ports and service."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from hypercontainer.cli import output
from hypercontainer.cli.parser import Command
from hypercontainer.cli.pods import pod_id
from hypercontainer.cli.ports import published
from hypercontainer.client import Client, Record
from hypercontainer.errors import InvalidRequest


def _ports_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("act", choices=("ls", "add", "delete"), metavar="ls|add|delete")
    parser.add_argument("pod", metavar="POD")
    parser.add_argument(
        "-p", "--publish", action="append", metavar="PORTS", help="[ADDRESS:][HOST:]CONTAINER[/tcp|udp]"
    )


def _ports(arguments: argparse.Namespace) -> int:
    client = Client.default()
    pod, texts = pod_id(client, arguments.pod), arguments.publish or []
    if (arguments.act == "ls") == bool(texts):
        raise InvalidRequest("-p PORTS is needed to add and to delete ports, and for nothing else")
    mappings = [mapping for text in texts for mapping in published(text)]
    match arguments.act:
        case "add":
            client.pods.add_ports(pod, mappings)
        case "delete":
            client.pods.remove_ports(pod, texts)
        case _:
            _list_ports(client.pods.ports(pod))
    return 0


def _list_ports(ports: Sequence[Record]) -> None:
    """The original's columns."""
    rows = []
    for port in ports:
        host = str(port.host_port or "")
        rows.append(
            (port.protocol, f"{port.host_ip}:{host}" if port.host_ip else host, str(port.container_port))
        )
    output.table(("Protocol", "Host Ports", "Container Ports"), rows)


def _service_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("act", choices=("ls", "set", "rm"), metavar="ls|set|rm")
    parser.add_argument("pod", metavar="POD")
    parser.add_argument("service", nargs="?", metavar="ADDRESS:PORT[/tcp|udp]")
    parser.add_argument("backends", nargs="*", metavar="BACKEND", help="ADDRESS:PORT")


def _service(arguments: argparse.Namespace) -> int:
    client = Client.default()
    pod = pod_id(client, arguments.pod)
    services = [dict(service) for service in client.pods.services(pod)]
    if arguments.act == "ls":
        if arguments.service:
            raise InvalidRequest("`hyper service ls` lists all services of a pod")
        _list_services(services)
        return 0
    if not arguments.service:
        raise InvalidRequest(f"which service is to be {arguments.act}?", hint="ADDRESS:PORT[/tcp|udp]")
    wanted = _read_service(arguments.service, arguments.backends)
    kept = [service for service in services if _name(service) != _name(wanted)]
    if arguments.act == "rm" and len(kept) == len(services):
        raise InvalidRequest(f"the pod has no service {_name(wanted)}", hint="hyper service ls shows them")
    client.pods.set_services(pod, [*kept, wanted] if arguments.act == "set" else kept)
    return 0


def _read_service(text: str, backends: Sequence[str]) -> dict[str, Any]:
    address, slash, protocol = text.partition("/")
    if protocol.lower() not in {"tcp", "udp"} and slash:
        raise InvalidRequest(f"invalid service {text!r}: protocol {protocol!r} is neither tcp nor udp")
    found = [_read_address(backend) for backend in backends]
    return {**_read_address(address), "protocol": protocol.lower() or "tcp", "backends": found}


def _read_address(text: str) -> dict[str, Any]:
    ip, _, port = text.rpartition(":")
    if not ip or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise InvalidRequest(f"{text!r} is no address with a port", hint="for example 10.10.0.24:80")
    return {"ip": ip, "port": int(port)}


def _name(service: dict[str, Any]) -> str:
    return f"{service['ip']}:{service['port']}/{service.get('protocol', 'tcp')}"


def _list_services(services: Sequence[dict[str, Any]]) -> None:
    rows = []
    for service in services:
        backends = " ".join(f"{each['ip']}:{each['port']}" for each in service["backends"])
        rows.append((f"{service['ip']}:{service['port']}", service["protocol"], backends))
    output.table(("SERVICE", "PROTOCOL", "BACKENDS"), rows)


COMMANDS = {
    "ports": Command(
        usage="ports ls|add|delete POD [-p PORTS]...",
        description="List, add or delete published ports of a pod, also while it runs.",
        arguments=_ports_arguments,
        run=_ports,
        examples="hyper ports ls web\nhyper ports add web -p 8080:80 -p 3000-3010:1300-1310/udp\n"
        "hyper ports delete web -p 8080:80",
    ),
    "service": Command(
        usage="service ls|set|rm POD [ADDRESS:PORT[/tcp|udp]] [BACKEND...]",
        description="List, set or remove services: addresses inside a pod whose connections go to backends\n"
        "in turn.",
        arguments=_service_arguments,
        run=_service,
        examples="hyper service set web 10.10.0.24:80 192.168.123.7:8080 192.168.123.9:8080\n"
        "hyper service rm web 10.10.0.24:80",
    ),
}
