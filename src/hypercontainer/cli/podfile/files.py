"""What a podfile says of files: the pod's, and where a container has them."""

from __future__ import annotations

import base64
from typing import Any

from hypercontainer.cli.mounts import Targets
from hypercontainer.cli.podfile import content
from hypercontainer.cli.podfile.content import Source, decoded
from hypercontainer.cli.podfile.section import Section, located
from hypercontainer.cli.podfile.volumes import same_name

_PERM = "0755"  # the original's


class Files:
    """The files that a pod declares, each read once, and only if a container has it."""

    def __init__(self, section: Section, source: Source) -> None:
        self._source = source
        self._left = content.MAX_SIZE
        self._declared: dict[str, Section] = {}
        self._data: dict[str, bytes] = {}
        for one in section.sections("files"):
            self.declare(one, one.text("name"))

    def declare(self, file: Section, name: str) -> None:
        if not name:
            raise file.where.error("a file needs a 'name'")
        if name in self._declared:
            raise file.node("name").where.error(f"file {name!r} is there twice")
        if file.text("uri") and file.text("content"):
            raise file.node("content").where.error("a file has a 'content' or a 'uri', not both")
        self._declared[name] = file
        if not file.text("uri"):
            self._data[name] = self._inline(file)

    def data(self, name: str) -> bytes | None:
        """What is in the file ``name``; None when none is declared by it."""
        if name in self._declared and name not in self._data:
            self._data[name] = self._fetched(self._declared[name])
        return self._data.get(name)

    def names(self) -> list[str]:
        return list(self._declared)

    def use(self, size: int, where: Section) -> None:
        """Each container that has a file has a copy of it."""
        self._left -= size
        if self._left < 0:
            raise where.where.error(
                f"the files of a pod may have {content.MAX_SIZE >> 20} MiB in all", hint="a volume holds more"
            )

    def _inline(self, file: Section) -> bytes:
        with located(file.node("content").where):
            return decoded(file.text("content").encode(), file.text("encoding"))

    def _fetched(self, file: Section) -> bytes:
        with located(file.node("uri").where):
            data = self._source.fetch(file.text("uri"), self._source.directory, content.MAX_SIZE)
            return decoded(data, file.text("encoding"))


def files(section: Section, declared: Files, targets: Targets) -> list[dict[str, Any]]:
    """Those of a container, after its mounts."""
    return [_file(one, declared, targets) for one in section.sections("files")]


def _file(section: Section, declared: Files, targets: Targets) -> dict[str, Any]:
    name = _named(section, declared)
    data = declared.data(name)
    if data is None:
        known = ", ".join(declared.names()[:10])
        raise section.node("filename").where.error(
            f"there is no file {name!r} in the pod's 'files'",
            hint=f"there are: {known}" if known else "the pod declares none",
        )
    declared.use(len(data), section)
    path = section.text("path")
    with located(section.node("path").where):
        path = targets.file(path + name if path.endswith("/") else path)
    mode = int(section.text("perm", _PERM), 8)
    found = {"path": path, "data": base64.b64encode(data).decode(), "mode": mode}
    return found | _owner(section.text("user"), section.text("group"))


def _named(section: Section, declared: Files) -> str:
    name = section.text("filename")
    if "detail" in section:
        detail = section.section("detail")
        name = same_name(section.node("filename").value, detail, "file")
        declared.declare(detail, name)
    if not name:
        raise section.where.error("a file of a container needs a 'filename'")
    return name


def _owner(user: str, group: str) -> dict[str, Any]:
    if not (user or group):
        return {}
    return {"owner": f"{user or 0}:{group}" if group else user}
