"""A container of a Kubernetes manifest as a model.pod.ContainerSpec in JSON."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from hypercontainer.cli import ports as port_mappings
from hypercontainer.cli.mounts import Targets
from hypercontainer.cli.podfile.manifest_volumes import Storage
from hypercontainer.cli.podfile.network import checked_address
from hypercontainer.cli.podfile.quantity import quantity
from hypercontainer.cli.podfile.section import Section

_REFERENCE = re.compile(r"\$(?:\$|\(([^()=]*)\))")
_LABEL_PATH = re.compile(r"metadata\.labels\['([^']+)'\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the pod says of its containers."""

    name: str
    labels: dict[str, str]
    restart: dict[str, Any]
    security: Section
    storage: Storage


def container(section: Section, about: About) -> dict[str, Any]:
    variables = _variables(section, about)
    found: dict[str, Any] = {
        "image": section.text("image"),
        "name": section.text("name"),
        "working_directory": section.text("workingDir"),
        "environment": [f"{name}={value}" for name, value in variables.items()],
        "terminal": section.flag("tty"),
        "stdin": section.flag("stdin"),
        **_security(section.section("securityContext"), about.security),
        **_limits(section.section("resources").section("limits")),
        "mounts": about.storage.mounts(section, Targets()),
        "restart": about.restart,
    }
    for key, ours in (("command", "entrypoint"), ("args", "command")):
        if words := [expanded(text, variables) for text in section.texts(key)]:
            found[ours] = words
    return found


def ports(section: Section) -> list[dict[str, Any]]:
    """Those that are published; the others only tell readers what it listens on."""
    found = []
    for one in section.sections("ports"):
        if not one.whole("containerPort"):
            raise one.where.error("a port needs a 'containerPort'")
        if one.whole("hostPort"):
            address = checked_address(one.node("hostIP")) if one.text("hostIP") else ""
            host, inner = one.text("hostPort"), one.text("containerPort")
            found += port_mappings.mappings(
                host, container=inner, host=host, protocol=one.text("protocol", "TCP"), address=address
            )
        elif one.text("hostIP"):
            raise one.node("hostIP").where.error("'hostIP' needs a 'hostPort'")
    return found


def expanded(text: str, variables: dict[str, str]) -> str:
    """``$(NAME)`` replaced as Kubernetes does: what is not known stays as it is, ``$$`` is one ``$``."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else variables.get(name, match[0])

    return _REFERENCE.sub(value, text)


def _variables(section: Section, about: About) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in section.sections("env"):
        name = one.text("name")
        if name in found:
            raise one.where.error(f"environment variable {name!r} is there twice")
        if "valueFrom" in one:
            if one.text("value"):
                raise one.node("value").where.error("a variable has a 'value' or a 'valueFrom', not both")
            found[name] = _field(one.section("valueFrom"), about)
        else:
            found[name] = expanded(one.text("value"), found)
    return found


def _field(section: Section, about: About) -> str:
    """The value of a field that is known before the pod runs."""
    if "fieldRef" not in section:
        raise section.where.error("a 'valueFrom' needs a 'fieldRef'")
    node = section.section("fieldRef").node("fieldPath")
    path = str(node.value)
    if path == "metadata.name" and about.name:
        return about.name
    label = _LABEL_PATH.fullmatch(path)
    if label and label[1] in about.labels:
        return about.labels[label[1]]
    raise node.where.error(
        f"field {path[:60]!r} cannot be had",
        hint="what the manifest says: metadata.name, metadata.labels['KEY']",
    )


def _limits(limits: Section) -> dict[str, Any]:
    found = {
        "cpu_millis": math.ceil(quantity(limits.text("cpu")) * 1000),
        "memory_bytes": math.ceil(quantity(limits.text("memory"))),
    }
    return {key: value for key, value in found.items() if value}


def _security(own: Section, pods: Section) -> dict[str, Any]:
    if not own.flag("allowPrivilegeEscalation", default=True):
        raise own.node("allowPrivilegeEscalation").where.error(
            "false is not supported: hyper does not prevent it in the guest"
        )
    user, group = (own if key in own else pods for key in ("runAsUser", "runAsGroup"))
    if "runAsGroup" in group and "runAsUser" not in user:
        raise group.node("runAsGroup").where.error("'runAsGroup' needs a 'runAsUser'")
    _check_non_root(own if "runAsNonRoot" in own else pods, user)
    found: dict[str, Any] = {"read_only": own.flag("readOnlyRootFilesystem")}
    if "runAsUser" in user:
        numbers = [user.text("runAsUser", "0"), group.text("runAsGroup", "0")]
        found["user"] = ":".join(numbers if "runAsGroup" in group else numbers[:1])
    if groups := pods.texts("supplementalGroups"):
        found["groups"] = groups
    return found


def _check_non_root(section: Section, user: Section) -> None:
    if section.flag("runAsNonRoot") and not user.whole("runAsUser"):
        raise section.node("runAsNonRoot").where.error(
            "the user of an image is not known before it runs", hint="say 'runAsUser', not 0"
        )
