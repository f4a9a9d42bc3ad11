"""A Kubernetes Pod manifest as a model.pod.PodSpec in JSON."""

from __future__ import annotations

import math
from typing import Any

from hypercontainer.cli import addresses
from hypercontainer.cli.limits import merge_sysctls
from hypercontainer.cli.nodes import Node
from hypercontainer.cli.podfile import manifest_container
from hypercontainer.cli.podfile.content import Source
from hypercontainer.cli.podfile.manifest_keys import MANIFEST
from hypercontainer.cli.podfile.manifest_volumes import Storage
from hypercontainer.cli.podfile.network import checked_address, words
from hypercontainer.cli.podfile.quantity import amount
from hypercontainer.cli.podfile.section import Section, located
from hypercontainer.cli.podfile.values import hostname
from hypercontainer.cli.sizes import MIB

_GUEST_MIB = 64  # for the kernel and what it keeps of files, beside what containers may use
_LEAST_MIB = 128


def pod(root: Node, source: Source) -> dict[str, Any]:
    """Raises InvalidRequest, which names file, line and key."""
    manifest = Section(MANIFEST.check(root))
    metadata, spec = manifest.section("metadata"), manifest.section("spec")
    _refuse_contradictions(spec)
    storage = Storage(spec)
    about = manifest_container.About(
        name=metadata.text("name"),
        labels=metadata.mapping("labels"),
        restart=_restart(spec),
        security=spec.section("securityContext"),
        storage=storage,
    )
    found: dict[str, Any] = {
        "name": about.name,
        "labels": about.labels,
        "hostname": hostname(spec.node("hostname")),
        **_resolver(spec),
        "extra_hosts": _extra_hosts(spec),
        "stop_timeout_s": spec.whole_or_none("terminationGracePeriodSeconds"),
        "sysctls": _sysctls(about.security),
        "containers": _containers(spec, about),
        "ports": [port for one in spec.sections("containers") for port in manifest_container.ports(one)],
    }
    return {**found, **_size(spec), "volumes": storage.volumes.all()}


def _containers(spec: Section, about: manifest_container.About) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in spec.sections("containers"):
        if one.text("name") in [other["name"] for other in found]:
            raise one.node("name").where.error(f"container {one.text('name')!r} is there twice")
        found.append(manifest_container.container(one, about))
    return found


def _refuse_contradictions(spec: Section) -> None:
    if not spec.flag("shareProcessNamespace", default=True):
        raise spec.node("shareProcessNamespace").where.error(
            "false is not supported: the containers of a pod share their processes"
        )
    if spec.section("dnsConfig").nodes("nameservers") and spec.text("dnsPolicy") != "None":
        raise (
            spec.section("dnsConfig")
            .node("nameservers")
            .where.error(
                "name servers beside the host's are not supported", hint="'dnsPolicy: None' takes only these"
            )
        )
    if spec.text("dnsPolicy") == "None" and not spec.section("dnsConfig").nodes("nameservers"):
        raise spec.node("dnsPolicy").where.error("'None' needs name servers in 'dnsConfig'")


def _restart(spec: Section) -> dict[str, Any]:
    policies = {"Always": "always", "OnFailure": "on-failure", "Never": "no"}
    return {"name": policies[spec.text("restartPolicy", "Always")]}


def _resolver(spec: Section) -> dict[str, Any]:
    config = spec.section("dnsConfig")
    options = [(one.text("name"), one.text("value")) for one in config.sections("options")]
    return {
        "dns": [checked_address(node) for node in config.nodes("nameservers")],
        "dns_search": words(config, "searches"),
        "dns_options": [f"{name}:{value}" if value else name for name, value in options],
    }


def _extra_hosts(spec: Section) -> list[str]:
    found = []
    for alias in spec.sections("hostAliases"):
        for node in alias.nodes("hostnames"):
            with located(node.where):
                found.append(addresses.extra_host(f"{node.value}:{alias.text('ip')}"))
    return found


def _sysctls(security: Section) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in security.sections("sysctls"):
        with located(one.where):
            merge_sysctls(found, {one.text("name"): one.text("value")})
    return found


def _size(spec: Section) -> dict[str, Any]:
    """The machine: as the pod's resources say, else room for what its containers may use."""
    whole = spec.section("resources")
    memory = amount(whole, "memory")
    parts = [one.section("resources") for one in spec.sections("containers")]
    cpus = amount(whole, "cpu") or sum(amount(part, "cpu") for part in parts)
    used = sum(amount(part, "memory") for part in parts)
    mib = math.ceil(memory / MIB) if memory else math.ceil(used / MIB) + _GUEST_MIB if used else 0
    found: dict[str, Any] = {"vcpus": _vcpus(spec, math.ceil(cpus))} if cpus else {}
    if mib:
        found["memory_mib"] = mib if memory else max(mib, _LEAST_MIB)
    return found


def _vcpus(spec: Section, cpus: int) -> int:
    if cpus > 255:
        raise spec.where.error(f"the containers want {cpus} CPUs; a machine has at most 255")
    return max(cpus, 1)
