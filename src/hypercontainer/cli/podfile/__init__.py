"""Podfiles: the original HyperContainer's format, or a Kubernetes Pod manifest, read to a PodSpec's JSON.

`keys` and `manifest_keys` say what a file may hold (`shapes`), `pod` and `manifest` what it means.  Nothing
is ignored: a key that is not known or cannot be had is an error that names the file, the line and the key.
docs/podfile.md describes the fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypercontainer.cli.nodes import Node, Pairs, read_nodes
from hypercontainer.cli.podfile import content, manifest, pod
from hypercontainer.cli.podfile.content import Fetch
from hypercontainer.errors import InvalidRequest

MAX_SIZE = 4 << 20  # bytes; of what is larger, the content belongs into files


def read(path: Path) -> dict[str, Any]:
    """The pod that the file at ``path`` describes; raises InvalidRequest."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequest(f"cannot read podfile {str(path)!r}: {reason}") from error
    return parse(data, str(path), path.parent)


def parse(data: bytes, file: str, directory: Path, fetch: Fetch = content.fetch) -> dict[str, Any]:
    """As `read`, of what is in the file; paths in it start at ``directory``, and ``fetch`` reads URIs."""
    if len(data) > MAX_SIZE:
        raise InvalidRequest(f"{file} is larger than {MAX_SIZE >> 20} MiB")
    try:
        root = read_nodes(data.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(f"{file}, line {line}: this is not UTF-8 text") from error
    reader = manifest.pod if is_manifest(root) else pod.pod
    return reader(root, content.Source(directory.absolute(), fetch))


def is_manifest(root: Node) -> bool:
    """Whether this is for Kubernetes, whose every object says what it is."""
    keys = {key.lower() for key, _ in root.value} if isinstance(root.value, Pairs) else set()
    return not keys.isdisjoint({"apiversion", "kind"})
