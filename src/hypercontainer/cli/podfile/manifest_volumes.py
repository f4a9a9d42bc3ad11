"""Volumes of a Kubernetes manifest, and where its containers have them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hypercontainer.cli.mounts import Targets, Volumes
from hypercontainer.cli.podfile.quantity import quantity
from hypercontainer.cli.podfile.section import Section, located

_KINDS = ("emptyDir", "hostPath", "nfs")


class Storage:
    """The pod's volumes; one in memory is a tmpfs of the container that mounts it."""

    def __init__(self, spec: Section) -> None:
        self.volumes = Volumes()
        self._in_memory: dict[str, list[str]] = {}
        self._mounted: set[str] = set()
        for one in spec.sections("volumes"):
            self._declare(one)

    def mounts(self, container: Section, targets: Targets) -> list[dict[str, Any]]:
        return [self._mount(one, targets) for one in container.sections("volumeMounts")]

    def _declare(self, section: Section) -> None:
        name = section.text("name")
        if name in self.volumes or name in self._in_memory:
            raise section.node("name").where.error(f"volume {name!r} is there twice")
        kinds = [kind for kind in _KINDS if kind in section]
        if len(kinds) != 1:
            raise section.where.error("a volume is one of emptyDir, hostPath and nfs")
        match kinds[0]:
            case "emptyDir":
                self._empty_directory(name, section.section("emptyDir"))
            case "hostPath":
                self.volumes.add({"name": name, **_host_path(section.section("hostPath"))})
            case _:
                self.volumes.add({"name": name, **_nfs(section.section("nfs"))})

    def _empty_directory(self, name: str, section: Section) -> None:
        limit = math.ceil(quantity(section.text("sizeLimit")))
        if section.text("medium") == "Memory":
            self._in_memory[name] = [f"size={limit}"] if limit else []
        elif limit:
            raise section.node("sizeLimit").where.error("a limit is not supported but for 'medium: Memory'")
        else:
            self.volumes.add({"name": name, "kind": "pod"})

    def _mount(self, section: Section, targets: Targets) -> dict[str, Any]:
        name = section.text("name")
        with located(section.node("mountPath").where):
            mount: dict[str, Any] = {"target": targets.mount(section.text("mountPath"))}
        if section.flag("readOnly"):
            mount["read_only"] = True
        if name in self._in_memory:
            return mount | self._in_memory_once(section, name)
        if name not in self.volumes:
            raise section.node("name").where.error(f"there is no volume {name!r} in the pod's 'volumes'")
        populate = {"populate": False} if self.volumes[name]["kind"] == "pod" else {}  # Kubernetes never does
        return mount | {"volume": name} | populate

    def _in_memory_once(self, section: Section, name: str) -> dict[str, Any]:
        if name in self._mounted:
            raise section.node("name").where.error(
                f"volume {name!r} is in memory and mounted twice",
                hint="leave out 'medium: Memory' to share it",
            )
        self._mounted.add(name)
        return {"options": self._in_memory[name]}


def _host_path(section: Section) -> dict[str, Any]:
    path, kind = Path(section.text("path")), section.text("type")
    if kind == "Directory" and not path.is_dir():
        raise section.node("path").where.error(f"{str(path)[:200]!r} is no directory of this host")
    if kind == "File" and not path.is_file():
        raise section.node("path").where.error(f"{str(path)[:200]!r} is no file of this host")
    create = {"create": True} if kind == "DirectoryOrCreate" else {}
    return {"kind": "host", "source": str(path), **create}


def _nfs(section: Section) -> dict[str, Any]:
    server = section.text("server")
    if any(character.isspace() or character in "/[]" for character in server):
        raise section.node("server").where.error(f"{server[:40]!r} is no server")
    source = f"[{server}]:" if ":" in server else f"{server}:"
    read_only = {"read_only": True} if section.flag("readOnly") else {}
    return {"kind": "nfs", "source": source + section.text("path"), **read_only}
