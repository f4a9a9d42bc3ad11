"""What a podfile says of the network: ports, who may reach them, interfaces, services, name servers."""

from __future__ import annotations

from typing import Any

from hypercontainer.cli import addresses, ports
from hypercontainer.cli.nodes import Node
from hypercontainer.cli.podfile.section import Section, located
from hypercontainer.cli.podfile.values import extra_hosts


def network(section: Section, kind: str) -> dict[str, Any]:
    """All but the name servers; ``kind`` is the PodSpec's network."""
    found: dict[str, Any] = {
        "ports": [port for one in section.sections("portmappings") for port in port_mapping(one)],
        "services": _services(section.sections("services")),
        "extra_hosts": extra_hosts(section.nodes("extraHosts")),
    }
    for one in section.sections("containers"):  # the original's way before 1.0: they belong to the pod
        found["ports"] += [port for old in one.sections("ports") for port in port_mapping(old)]
    if interfaces := _interfaces(section.sections("interfaces")):
        if kind == "none":
            raise section.node("interfaces").where.error("network 'none' has no interfaces")
        found["interfaces"] = interfaces
    if allow := _allow(section.section("portmappingWhiteLists")):
        found["allow"] = allow
    return found


def resolver(section: Section) -> dict[str, Any]:
    return {
        "dns": [checked_address(node) for node in section.nodes("dns")],
        "dns_search": words(section, "dnsSearch"),
        "dns_options": words(section, "dnsOptions"),
    }


def words(section: Section, key: str) -> list[str]:
    """Texts that become words of resolv.conf."""
    for node in section.nodes(key):
        if not node.value or any(character.isspace() for character in str(node.value)):
            raise node.where.error(f"{str(node.value)[:40]!r} is no word")
    return section.texts(key)


def checked_address(node: Node) -> str:
    with located(node.where):
        return addresses.address(str(node.value))


def port_mapping(section: Section) -> list[dict[str, Any]]:
    container, host = section.text("containerPort"), section.text("hostPort")
    protocol = section.text("protocol", "tcp")
    address = checked_address(section.node("hostIP")) if section.text("hostIP") else ""
    with located(section.where):
        return ports.mappings(
            f"{host}:{container}/{protocol}",
            container=container,
            host=host,
            protocol=protocol,
            address=address,
        )


def _allow(section: Section) -> dict[str, Any]:
    """Two empty lists restrict nothing, as in the original."""
    internal, external = (_networks(section.nodes(f"{which}Networks")) for which in ("internal", "external"))
    return {"internal": internal, "external": external} if internal or external else {}


def _networks(nodes: list[Node]) -> list[str]:
    found = []
    for node in nodes:
        with located(node.where):
            found.append(addresses.network(str(node.value)))
    return found


# --- interfaces ---


def _interfaces(sections: list[Section]) -> list[dict[str, Any]]:
    for key, what in (("ifname", "name"), ("mac", "MAC address"), ("ip", "address")):
        _refuse_twice([one.node(key) for one in sections if one.text(key)], what)
    gateways = [one.node("gateway") for one in sections if one.text("gateway")]
    if len(gateways) > 1:
        raise gateways[1].where.error("a second gateway: only one interface of a pod has it")
    return [_interface(one) for one in sections]


def _refuse_twice(nodes: list[Node], what: str) -> None:
    seen: set[str] = set()
    for node in nodes:
        if str(node.value).lower() in seen:
            raise node.where.error(f"two interfaces have the {what} {node.value}")
        seen.add(str(node.value).lower())


def _interface(section: Section) -> dict[str, Any]:
    mtu = section.whole("mtu")
    if 0 < mtu < 68:  # RFC 791
        raise section.node("mtu").where.error(f"an MTU of {mtu} is too small: 68 is the least")
    found: dict[str, Any] = {"mtu": mtu}
    for key, ours, read in (
        ("bridge", "bridge", addresses.link),
        ("ifname", "name", addresses.link),
        ("ip", "address", addresses.interface),
        ("mac", "mac", addresses.mac),
        ("gateway", "gateway", addresses.gateway),
    ):
        if section.text(key):
            with located(section.node(key).where):
                found[ours] = read(section.text(key))
    return addresses.nic(**found)


# --- services ---


def _services(sections: list[Section]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    taken: set[tuple[object, ...]] = set()
    for one in sections:
        service = _service(one)
        key = (service["ip"], service["port"], service["protocol"])
        if key in taken:
            raise one.where.error("service {}:{}@{} is there twice".format(*key))
        taken.add(key)
        found.append(service)
    return found


def _service(section: Section) -> dict[str, Any]:
    return {
        "ip": checked_address(section.node("serviceIP")),
        "port": section.whole("servicePort"),
        "protocol": section.text("protocol", "tcp"),
        "backends": [
            {"ip": checked_address(host.node("hostIP")), "port": host.whole("hostPort")}
            for host in section.sections("hosts")
        ],
    }
