"""A container of a podfile as a model.pod.ContainerSpec in JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypercontainer.cli import log_options
from hypercontainer.cli.limits import limit
from hypercontainer.cli.mounts import Targets, Volumes
from hypercontainer.cli.nodes import Node
from hypercontainer.cli.podfile.content import Source
from hypercontainer.cli.podfile.files import Files, files
from hypercontainer.cli.podfile.section import Section, located
from hypercontainer.cli.podfile.values import memory_bytes, merge_sysctl
from hypercontainer.cli.podfile.volumes import mounts

RESTART = {"never": "no", "onFailure": "on-failure", "always": "always"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the pod says to its containers, and what they add to it."""

    source: Source
    volumes: Volumes
    files: Files
    terminal: bool
    restart: dict[str, Any]
    log: dict[str, Any]
    sysctls: dict[str, str] = field(default_factory=dict)


def container(section: Section, shared: Shared) -> dict[str, Any]:
    terminal = section.flag("tty") or shared.terminal
    found: dict[str, Any] = {
        "image": section.text("image"),
        "name": section.text("name"),
        "working_directory": section.text("workdir"),
        **_user(section.node("user")),
        "environment": environment(section, "envs", "env"),
        "terminal": terminal,
        "stdin": terminal,
        "read_only": section.flag("readOnly"),
        "stop_signal": section.text("StopSignal"),
        "labels": section.mapping("labels"),
    }
    for key in ("command", "entrypoint"):
        if words := section.texts(key):  # [] and absent: the image's, as Go has it
            found[key] = words
    merge_sysctl(shared.sysctls, section)
    return found | _storage(section, shared) | _limits(section) | _conduct(section, shared)


def _storage(section: Section, shared: Shared) -> dict[str, Any]:
    targets = Targets()
    found = {"mounts": mounts(section, shared.volumes, shared.source, targets)}
    found["files"] = files(section, shared.files, targets)
    return found


def _limits(section: Section) -> dict[str, Any]:
    resource = section.section("resource")
    found: dict[str, Any] = {
        "limits": [_limit(one) for one in section.sections("ulimits")],
        "memory_bytes": memory_bytes(resource.node("memory")),
        "cpu_millis": round(resource.number("cpu") * 1000),
        "pids": resource.whole("pids"),
    }
    names = [each["name"] for each in found["limits"]]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise section.sections("ulimits")[index].where.error(f"limit {name!r} is there twice")
    return {key: value for key, value in found.items() if value}


def _limit(section: Section) -> dict[str, Any]:
    soft, hard = (section.whole(key) if key in section else None for key in ("soft", "hard"))
    with located(section.where):
        return limit(section.text("name"), soft, hard)


def _conduct(section: Section, shared: Shared) -> dict[str, Any]:
    kept = log(section) if "log" in section else shared.log
    if section.text("logPath"):
        kept = kept | {"path": str(shared.source.path(section.text("logPath")))}
    found = {"restart": restart(section) or shared.restart, "log": kept}
    return {key: value for key, value in found.items() if value}


def restart(section: Section) -> dict[str, Any]:
    """A model.pod.RestartPolicy; empty when nothing is said."""
    policy = section.text("restartPolicy")
    return {"name": RESTART[policy]} if policy else {}


def log(section: Section) -> dict[str, Any]:
    described = section.section("log")
    for name, node in described.names("config").items():
        with located(node.where):
            log_options.check(name, str(node.value))
    with located(described.where):
        return log_options.log(described.text("type"), described.mapping("config"))


def _user(node: Node) -> dict[str, Any]:
    if not isinstance(node.value, dict):  # not the original's, but what everyone writes first
        return {"user": str(node.value)}
    user = Section(node)
    name, group = user.text("name"), user.text("group")
    if group and not name:
        raise node.where.error("a user with a 'group' needs a 'name'")
    return {"user": f"{name}:{group}" if group else name, "groups": user.texts("additionalGroups")}


def environment(section: Section, key: str, name_key: str) -> list[str]:
    found: dict[str, str] = {}
    for variable in section.sections(key):
        name = variable.text(name_key)
        if name in found:
            raise variable.where.error(f"environment variable {name!r} is there twice")
        found[name] = variable.text("value")
    return [f"{name}={value}" for name, value in found.items()]
