"""Volumes and where containers have them: for flags, podfiles and manifests."""

from __future__ import annotations

import os
import posixpath
import re
import zlib

from hypercontainer.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

_SHARE = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^:/\s\[\]]+):/\S*")
_TMPFS_OPTIONS = {
    "size": r"[0-9]{1,18}[kKmMgG]?%?", "mode": "[0-7]{1,4}", "nr_inodes": "[0-9]{1,18}[kKmMgG]?",
    "uid": "[0-9]{1,10}", "gid": "[0-9]{1,10}",
}  # fmt: skip
_TMPFS_FLAGS = {"ro", "rw", "noexec", "exec", "nosuid", "suid", "nodev", "dev", "noatime", "relatime"}


class Volumes:
    """The volumes of one pod; a directory of the host that is mentioned twice is one volume."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, Any]] = {}

    def add(self, volume: dict[str, Any]) -> str:
        """Its name; Conflict of names is InvalidRequest."""
        if self._by_name.setdefault(volume["name"], volume) != volume:
            raise InvalidRequest(f"volume {volume['name']!r} is there twice")
        return str(volume["name"])

    def host(self, source: Path, *, create: bool = False) -> str:
        """The name of the volume that is ``source`` of the host; ``create``: a directory is made there."""
        clean = os.path.normpath(source)
        for volume in self._by_name.values():
            if volume.get("kind") == "host" and volume["source"] == clean:
                return str(volume["name"])
        made = {"create": True} if create else {}
        return self.other({"kind": "host", "source": clean, **made})

    def fresh(self, name: str = "") -> str:
        """A volume of the pod by that name, which may be there; without one, another."""
        name = name or f"anonymous-{os.urandom(4).hex()}"
        if name in self._by_name:
            return name
        return self.add({"name": name, "kind": "pod"})

    def other(self, volume: dict[str, Any]) -> str:
        """One without a name gets one of its source: it may join a pod that has others."""
        digest = zlib.crc32(volume["source"].encode(errors="surrogateescape"))
        return self.add({"name": f"{volume['kind']}-{digest:08x}", **volume})

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._by_name[name]

    def all(self) -> list[dict[str, Any]]:
        return list(self._by_name.values())


class Targets:
    """The places in one container where something is mounted or put: none twice."""

    def __init__(self) -> None:
        self._mounts: set[str] = set()
        self._files: set[str] = set()

    def mount(self, path: str) -> str:
        clean = target(path)
        if clean in self._mounts:
            raise InvalidRequest(f"two volumes are mounted at {clean!r}")
        self._mounts.add(clean)
        return clean

    def file(self, path: str) -> str:
        """After all mounts: a file that a mount would hide is refused."""
        clean = target(path)
        if clean in self._files:
            raise InvalidRequest(f"two files are put at {clean!r}")
        for mount in self._mounts:
            if clean == mount or clean.startswith(f"{mount}/"):
                raise InvalidRequest(f"{clean!r} would be hidden by what is mounted at {mount!r}")
        self._files.add(clean)
        return clean


def share(source: str) -> str:
    """``SERVER:/PATH`` of an NFS server."""
    if not _SHARE.fullmatch(source):
        raise InvalidRequest(f"{source[:60]!r} is no share", hint="it is SERVER:/PATH")
    return source


def target(path: str) -> str:
    """An absolute path in a container, in its shortest form; not the root itself."""
    if not path.startswith("/"):
        raise InvalidRequest(f"{path[:60]!r} is no absolute path")
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean == "/":
        raise InvalidRequest("nothing can be mounted over the root of a container")
    if len(clean) > 4096:
        raise InvalidRequest(f"{path[:60]!r}... is longer than 4096 bytes")
    return clean


def tmpfs(text: str, targets: Targets) -> dict[str, Any]:
    """Docker's ``--tmpfs PATH[:OPTIONS]`` as a model.pod.MountSpec."""
    path, _, rest = text.partition(":")
    options = [option for option in rest.split(",") if option]
    for option in options:
        _check_tmpfs_option(option)
    mount: dict[str, Any] = {"target": targets.mount(path)}
    if "ro" in options:
        mount["read_only"] = True
    if options := [option for option in options if option not in {"ro", "rw"}]:
        mount["options"] = options
    return mount


def _check_tmpfs_option(option: str) -> None:
    name, equals, value = option.partition("=")
    if equals and name in _TMPFS_OPTIONS and re.fullmatch(_TMPFS_OPTIONS[name], value):
        return
    if option not in _TMPFS_FLAGS:
        raise InvalidRequest(
            f"invalid option {option[:40]!r} of a tmpfs", hint="for example size=64m,mode=1777"
        )
