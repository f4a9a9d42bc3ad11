"""Values that podfiles and manifests have in common."""

from __future__ import annotations

import re

from hypercontainer.cli import addresses
from hypercontainer.cli.limits import merge_sysctls
from hypercontainer.cli.nodes import Node
from hypercontainer.cli.podfile.section import Section, located
from hypercontainer.cli.sizes import MIB, size_bytes

_LABEL = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"


def merge_sysctl(sysctls: dict[str, str], section: Section) -> None:
    for name, node in section.names("sysctl").items():
        with located(node.where):
            merge_sysctls(sysctls, {name: str(node.value)})


def hostname(node: Node) -> str:
    """DNS labels, 63 characters in all: the original's rule, and Linux allows 64."""
    name = str(node.value)
    if len(name) > 63:
        raise node.where.error(f"hostname {name[:20]!r}... has {len(name)} characters; 63 are possible")
    if name and not all(re.fullmatch(_LABEL, label) for label in name.split(".")):
        raise node.where.error(f"invalid hostname {name!r}", hint="letters, digits and '-', between dots")
    return name


def memory_bytes(node: Node) -> int:
    """A bare number is in MiB, as ``resource.memory`` always was."""
    if not node.value:
        return 0
    with located(node.where):
        return size_bytes(str(node.value), unit=MIB)


def extra_hosts(nodes: list[Node]) -> list[str]:
    found = []
    for node in nodes:
        with located(node.where):
            found.append(addresses.extra_host(str(node.value)))
    return found
