"""A podfile of the original's format as a model.pod.PodSpec in JSON."""

from __future__ import annotations

from typing import Any

from hypercontainer.cli.nodes import Node
from hypercontainer.cli.podfile import container, network
from hypercontainer.cli.podfile.container import Shared
from hypercontainer.cli.podfile.content import Source
from hypercontainer.cli.podfile.files import Files
from hypercontainer.cli.podfile.keys import POD
from hypercontainer.cli.podfile.section import Section
from hypercontainer.cli.podfile.values import hostname, memory_bytes, merge_sysctl
from hypercontainer.cli.podfile.volumes import volumes
from hypercontainer.cli.sizes import MIB


def pod(root: Node, source: Source) -> dict[str, Any]:
    """Raises InvalidRequest, which names file, line and key."""
    section = Section(POD.check(root))
    spec: dict[str, Any] = {
        "name": section.text("id"),
        "hostname": hostname(section.node("hostname")),
        **_size(section.section("resource")),
        **network.resolver(section),
        "labels": section.mapping("labels"),
        "hypervisor": section.text("hypervisor", "auto"),
        "require_isolation": section.text("requireIsolation", "any"),
        "network": section.text("network", "default"),
        "stop_timeout_s": section.whole_or_none("stopTimeout"),
    }
    shared = Shared(
        source=source,
        volumes=volumes(section, source),
        files=Files(section, source),
        terminal=section.flag("tty"),
        restart=container.restart(section),
        log=container.log(section),
    )
    merge_sysctl(shared.sysctls, section)
    spec["containers"] = _containers(section, shared)
    spec |= {"volumes": shared.volumes.all(), "sysctls": shared.sysctls}
    spec["shm_bytes"] = memory_bytes(section.node("shmSize"))
    return {**spec, **network.network(section, spec["network"])}


def _containers(section: Section, shared: Shared) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    names: set[str] = set()
    for one in section.sections("containers"):
        name = one.text("name")
        if name in names:
            raise one.node("name").where.error(f"container {name!r} is there twice")
        names |= {name} - {""}
        found.append(container.container(one, shared))
    if not found:
        raise section.node("containers").where.error("a pod needs at least one container in 'containers'")
    return found


def _size(resource: Section) -> dict[str, Any]:
    """0 is Go's "not said"."""
    found: dict[str, Any] = {}
    if vcpus := resource.whole("vcpu"):
        found["vcpus"] = vcpus
    if memory := memory_bytes(resource.node("memory")):
        found["memory_mib"] = -(-memory // MIB)
    return found
