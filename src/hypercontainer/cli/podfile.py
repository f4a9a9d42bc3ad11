"""Podfiles: the original HyperContainer's pod description in JSON or YAML, read to a PodSpec's JSON.

Keys are matched without case, as the original's Go decoder did.  Nothing is ignored: a key that is not
known, and one that is known but not supported yet, is an error that names the file, the line and the key.
docs/podfile.md describes the fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypercontainer.cli import ports
from hypercontainer.cli.nodes import Node, Where, read_nodes
from hypercontainer.errors import InvalidRequest

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_LABEL = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")


def read(path: Path) -> dict[str, Any]:
    """The pod that the file at ``path`` describes; raises InvalidRequest."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise InvalidRequest(f"cannot read podfile {str(path)!r}: {error.strerror}") from error
    return pod(read_nodes(text, str(path)))


class _Section:
    """A mapping of the file whose keys are taken one by one; what is left over at the end is an error."""

    def __init__(self, node: Node) -> None:
        self.where = node.where
        self._items: dict[str, tuple[str, Node]] = {}
        for key, child in node.mapping():
            if key.lower() in self._items:
                raise child.where.error(f"{key!r} is there twice")
            self._items[key.lower()] = (key, child)

    def take(self, key: str) -> Node | None:
        """The value of ``key``; None when it is absent or null, which Go's decoder takes as absent."""
        _, node = self._items.pop(key.lower(), ("", None))
        return None if node is None or node.value is None else node

    def text(self, key: str, default: str = "") -> str:
        node = self.take(key)
        return default if node is None else node.text()

    def boolean(self, key: str) -> bool:
        node = self.take(key)
        return False if node is None else node.boolean()

    def texts(self, key: str) -> list[str] | None:
        node = self.take(key)
        return None if node is None else [item.text() for item in node.items()]

    def each(self, key: str) -> list[Node]:
        node = self.take(key)
        return [] if node is None else node.items()

    def later(self, *keys: str) -> None:
        """``keys`` are the original's, and not supported yet; empty ones do no harm."""
        for key in keys:
            node = self.take(key)
            if node is not None and node.value not in ("", [], {}, False):
                raise node.where.error(f"{key!r} is not supported yet")

    def end(self, *known: str) -> None:
        """Refuse what was not taken; ``known`` keys are for the suggestion."""
        for key, child in self._items.values():
            import difflib

            close = difflib.get_close_matches(key.lower(), [name.lower() for name in known], n=1)
            hint = next((f"did you mean {name!r}?" for name in known if close == [name.lower()]), "")
            raise child.where.error(f"unknown key {key!r}", hint=hint or f"known here: {', '.join(known)}")


def pod(root: Node) -> dict[str, Any]:
    section = _Section(root)
    spec: dict[str, Any] = {"name": _checked_name(section, "id")}
    spec["hostname"] = _hostname(section)
    spec |= _resource(section)
    for key, ours in (("dns", "dns"), ("dnsSearch", "dns_search"), ("dnsOptions", "dns_options")):
        spec[ours] = section.texts(key) or []
    spec["labels"] = _labels(section)
    spec["hypervisor"] = section.text("hypervisor", "auto")
    spec["require_isolation"] = _one_of(section, "requireIsolation", "any", "hardware")
    spec["network"] = _one_of(section, "network", "default", "none")
    terminal = section.boolean("tty")
    published = [mapping for node in section.each("portmappings") for mapping in _port_mapping(node)]
    spec["containers"], theirs = _containers(section, terminal=terminal)
    spec["ports"] = published + theirs
    _refuse_later(section)
    section.end(
        "id", "hostname", "resource", "dns", "dnsSearch", "dnsOptions", "labels", "tty", "portmappings",
        "containers", "hypervisor", "requireIsolation", "network",
    )  # fmt: skip
    return spec


def _refuse_later(section: _Section) -> None:
    if (policy := section.take("restartPolicy")) is not None and policy.text().lower() not in {"", "never"}:
        raise policy.where.error("'restartPolicy' other than 'never' is not supported yet")
    if (kind := section.take("type")) is not None and kind.text() not in {"", "pod"}:
        raise kind.where.error(f"a podfile of type {kind.text()!r} is not supported")
    section.later("log", "interfaces", "services", "volumes", "files", "portmappingWhiteLists")


def _containers(section: _Section, *, terminal: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The containers, and the ports that they publish in the original's older way."""
    nodes = section.each("containers")
    if not nodes:
        raise section.where.error("a pod needs at least one container in 'containers'")
    read = [_container(node, terminal=terminal) for node in nodes]
    return [container for container, _ in read], [port for _, theirs in read for port in theirs]


def _container(node: Node, *, terminal: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    section = _Section(node)
    image = section.text("image")
    if not image:
        raise node.where.error("a container needs an 'image'")
    container: dict[str, Any] = {"image": image, "name": _checked_name(section, "name")}
    for key in ("command", "entrypoint"):
        if (words := section.texts(key)) is not None and words:  # [] and absent: the image's, as Go has it
            container[key] = words
    container["working_directory"] = section.text("workdir")
    container |= _user(section)
    container["environment"] = _environment(section)
    has_terminal = section.boolean("tty") or terminal
    container |= {"terminal": has_terminal, "stdin": has_terminal}
    container["read_only"] = section.boolean("readOnly")
    container["stop_signal"] = section.text("StopSignal")
    container["labels"] = _labels(section)
    published = [mapping for item in section.each("ports") for mapping in _old_port(item)]
    _refuse_later_of_container(section)
    section.end(
        "image", "name", "command", "entrypoint", "workdir", "user", "envs", "tty", "readOnly", "StopSignal",
        "labels", "ports",
    )  # fmt: skip
    return container, published


def _refuse_later_of_container(section: _Section) -> None:
    if (policy := section.take("restartPolicy")) is not None and policy.text().lower() not in {"", "never"}:
        raise policy.where.error("'restartPolicy' other than 'never' is not supported yet")
    section.later("id", "volumes", "files", "sysctl", "ulimits", "logPath", "cache")


def _checked_name(section: _Section, key: str) -> str:
    node = section.take(key)
    name = "" if node is None else node.text()
    if node is not None and name and not _NAME.fullmatch(name):
        raise node.where.error(
            f"invalid name {name!r}",
            hint="letters, digits, '_', '.' and '-', at most 128; the first is no sign",
        )
    return name


def _hostname(section: _Section) -> str:
    """DNS labels, 63 characters in all: the original's rule, and Linux allows 64."""
    node = section.take("hostname")
    name = "" if node is None else node.text()
    if node is not None and name:
        if len(name) > 63:
            raise node.where.error(f"hostname {name[:20]!r}... has {len(name)} characters; 63 are possible")
        if not all(_LABEL.fullmatch(label) for label in name.split(".")):
            raise node.where.error(f"invalid hostname {name!r}", hint="letters, digits and '-', between dots")
    return name


def _resource(section: _Section) -> dict[str, Any]:
    node = section.take("resource")
    if node is None:
        return {}
    resource = _Section(node)
    found: dict[str, Any] = {}
    if (vcpus := resource.take("vcpu")) is not None and vcpus.integer(0, 255):  # 0 is Go's "not said"
        found["vcpus"] = vcpus.integer(0, 255)
    if (memory := resource.take("memory")) is not None and memory.integer(0, 1 << 30):
        found["memory_mib"] = memory.integer(0, 1 << 30)
    resource.end("vcpu", "memory")
    return found


def _labels(section: _Section) -> dict[str, str]:
    node = section.take("labels")
    return {} if node is None else {key: child.text() for key, child in node.mapping()}


def _one_of(section: _Section, key: str, *allowed: str) -> str:
    """The value of ``key``, one of ``allowed``; the first of them when it is absent."""
    node = section.take(key)
    if node is None:
        return allowed[0]
    if node.text() not in allowed:
        raise node.where.error(f"{key!r} is {' or '.join(map(repr, allowed))}, not {node.text()!r}")
    return node.text()


def _user(section: _Section) -> dict[str, Any]:
    node = section.take("user")
    if node is None:
        return {}
    if isinstance(node.value, str):  # not the original's, but what everyone writes first
        return {"user": node.text()}
    user = _Section(node)
    name, group = user.text("name"), user.text("group")
    groups = user.texts("additionalGroups") or []
    user.end("name", "group", "additionalGroups")
    if group and not name:
        raise node.where.error("a user with a 'group' needs a 'name'")
    return {"user": f"{name}:{group}" if group else name, "groups": groups}


def _environment(section: _Section) -> list[str]:
    found: dict[str, str] = {}
    for node in section.each("envs"):
        variable = _Section(node)
        name, value = variable.text("env"), variable.text("value")
        variable.end("env", "value")
        if not name or "=" in name:
            raise node.where.error(f"invalid environment variable name {name!r}")
        if name in found:
            raise node.where.error(f"environment variable {name!r} is there twice")
        found[name] = value
    return [f"{name}={value}" for name, value in found.items()]


def _port_mapping(node: Node) -> list[dict[str, Any]]:
    section = _Section(node)
    container, host = section.text("containerPort"), section.text("hostPort")
    address = section.text("hostIP")
    protocol = section.text("protocol") or "tcp"
    section.end("containerPort", "hostPort", "hostIP", "protocol")
    if not container:
        raise node.where.error("a port mapping needs a 'containerPort'")
    return _at(
        node.where,
        lambda: ports.mappings(
            f"{host}:{container}/{protocol}",
            container=container,
            host=host,
            protocol=protocol,
            address=address,
        ),
    )


def _old_port(node: Node) -> list[dict[str, Any]]:
    """``ports`` of a container, the original's way before 1.0: they belong to the pod."""
    section = _Section(node)
    section.later("servicePort", "hostPortEnd", "containerPortEnd")
    container, host = section.text("containerPort"), section.text("hostPort")
    protocol = section.text("protocol") or "tcp"
    section.end("containerPort", "hostPort", "protocol")
    if container in {"", "0"}:
        raise node.where.error("a port needs a 'containerPort'")
    return _at(
        node.where,
        lambda: ports.mappings(
            f"{host}:{container}/{protocol}", container=container, host=host, protocol=protocol
        ),
    )


def _at(where: Where, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What ``read`` gives; its error gets the place in the file."""
    try:
        return read()
    except InvalidRequest as error:
        raise where.error(error.message, hint=error.hint) from error
