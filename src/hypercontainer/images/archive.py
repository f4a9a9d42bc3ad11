"""Images out of an archive: what ``docker save``, ``skopeo`` and ``buildah`` write.

Two layouts, both tars, perhaps compressed as a whole: Docker's (``manifest.json`` lists configs, layers and
tags) and OCI's (``index.json`` leads to blobs by digest; OCI image-layout.md).  An archive may be both: then
Docker's list is taken, as it has the tags.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hypercontainer.errors import InvalidRequest, RegistryError
from hypercontainer.images import tar
from hypercontainer.images.layers import CHUNK, Layer, is_compressed, read_plain
from hypercontainer.images.tree import components
from hypercontainer.images.work import Stop
from hypercontainer.model.image import (
    INDEX_TYPES,
    MAX_DOCUMENT_SIZE,
    Descriptor,
    Digest,
    ImageDocument,
    Index,
    Manifest,
    Platform,
    Reference,
    decode,
    hexadecimal,
    parse_digest,
)

_MAX_MEMBERS = 100_000
_MAX_DEPTH = 4  # of indexes within indexes, and of links to links
_CONTAINERD_NAME = "io.containerd.image.name"
_OCI_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    document: bytes
    layers: tuple[Layer, ...]
    tags: tuple[Reference, ...]
    manifest_digest: Digest | None  # of an OCI layout


class _DockerImage(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] = msgspec.field(default_factory=list)


def read(
    stop: Stop,
    archive: Path,
    workspace: Path,
    *,
    platform: Platform,
    existing: Callable[[Digest], Path | None],
) -> list[ArchivedImage]:
    """The images of ``archive``; their layers are copied into ``workspace``, each once, and verified.

    ``existing`` gives the path of a blob that is known already, so that it isn't copied.
    """
    with _members(stop, _uncompressed(stop, archive, workspace)) as members:
        layers = _Layers(stop, members, workspace, existing)
        if members.has("manifest.json"):
            return _read_docker(members, layers)
        if members.has("index.json"):
            return _read_oci(members, layers, platform)
    raise InvalidRequest(
        "the archive holds no image: it has neither manifest.json nor index.json",
        hint="a tar of a root file system is imported, not loaded: hyper import",
    )


def _uncompressed(stop: Stop, archive: Path, workspace: Path) -> Path:
    with archive.open("rb") as file:
        if not is_compressed(file):
            return archive
        plain = workspace / "plain"
        with plain.open("wb") as target:
            for data in read_plain(stop, file):
                target.write(data)
    archive.unlink()
    return plain


class _Members:
    """The files of the archive by name."""

    def __init__(self, stop: Stop, descriptor: int, data: mmap.mmap | bytes) -> None:
        self.descriptor = descriptor
        self.data = data
        self._entries: dict[str, tar.Entry] = {}
        for entry in tar.entries(data, check=stop.check):
            self._entries[_plain_name(entry.name)] = entry
            if len(self._entries) > _MAX_MEMBERS:
                raise InvalidRequest(
                    f"the archive has more than {_MAX_MEMBERS} members: it is no image archive"
                )

    def has(self, name: str) -> bool:
        return name in self._entries

    def entry(self, name: str) -> tar.Entry:
        """The file ``name``; links within the archive, by which old Dockers say "the same", are followed."""
        asked = name
        for _ in range(_MAX_DEPTH):
            entry = self._entries.get(_plain_name(name.encode()))
            if entry is None:
                break
            if entry.kind == tar.FILE and entry.segments is None:
                return entry
            name = _link_target(entry)
        raise InvalidRequest(f"the archive has no file {asked[:200]!r}, which its manifest names")

    def document(self, name: str) -> bytes:
        entry = self.entry(name)
        if entry.size > MAX_DOCUMENT_SIZE:
            raise InvalidRequest(f"{name[:200]} is {entry.size} bytes; the limit is {MAX_DOCUMENT_SIZE}")
        return self.data[entry.data : entry.data + entry.size]


def _plain_name(name: bytes) -> str:
    return os.fsdecode(b"/".join(components(name)))


def _link_target(entry: tar.Entry) -> str:
    if entry.kind == tar.SYMLINK:
        directory = entry.name.rpartition(b"/")[0]
        return os.fsdecode(directory + b"/" + entry.link)
    return os.fsdecode(entry.link)


@contextmanager
def _members(stop: Stop, archive: Path) -> Iterator[_Members]:
    with archive.open("rb") as file:
        if archive.stat().st_size == 0:
            yield _Members(stop, file.fileno(), b"")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield _Members(stop, file.fileno(), data)


class _Layers:
    """Copies layers out of the archive, each once."""

    def __init__(
        self, stop: Stop, members: _Members, workspace: Path, existing: Callable[[Digest], Path | None]
    ) -> None:
        self._stop = stop
        self._members = members
        self._workspace = workspace
        self._existing = existing
        self._copied: dict[int, tuple[Path, Digest]] = {}  # by where the data is in the archive

    def copy(self, name: str, diff_id: Digest, expected: Digest | None) -> Layer:
        if expected is not None and (path := self._existing(expected)) is not None:
            return Layer(path=path, digest=expected, diff_id=diff_id)
        entry = self._members.entry(name)
        if entry.data not in self._copied:
            target = self._workspace / f"layer-{len(self._copied)}"
            self._copied[entry.data] = target, self._copy(entry, target)
        path, digest = self._copied[entry.data]
        if expected is not None and digest != expected:
            raise RegistryError(f"the archive's blob {expected} is corrupt: it is {digest}")
        return Layer(path=path, digest=digest, diff_id=diff_id)

    def _copy(self, entry: tar.Entry, target: Path) -> Digest:
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for start in range(entry.data, entry.data + entry.size, CHUNK):
                self._stop.check()
                data = self._members.data[start : min(start + CHUNK, entry.data + entry.size)]
                digest.update(data)
                file.write(data)
        return Digest(f"sha256:{digest.hexdigest()}")


def _read_docker(members: _Members, layers: _Layers) -> list[ArchivedImage]:
    listed = decode(members.document("manifest.json"), list[_DockerImage], what="manifest.json")
    images = []
    for item in listed:
        document = members.document(item.config)
        diff_ids = checked_diff_ids(document, len(item.layers), what=item.config)
        copied = [
            layers.copy(name, diff_id, None) for name, diff_id in zip(item.layers, diff_ids, strict=True)
        ]
        images.append(
            ArchivedImage(
                document=document,
                layers=tuple(copied),
                tags=tuple(Reference.parse(tag).tagged() for tag in item.repo_tags),
                manifest_digest=None,
            )
        )
    return images


def checked_diff_ids(document: bytes, count: int, *, what: str) -> list[Digest]:
    """The diff ids of a config, one for each of ``count`` layers."""
    diff_ids = decode(document, ImageDocument, what=what[:200]).rootfs.diff_ids
    if len(diff_ids) != count:
        raise InvalidRequest(f"{what[:200]} speaks of {len(diff_ids)} layers, the manifest of {count}")
    return [parse_digest(diff_id) for diff_id in diff_ids]


def _read_oci(members: _Members, layers: _Layers, platform: Platform) -> list[ArchivedImage]:
    index = decode(members.document("index.json"), Index, what="index.json")
    found: dict[Digest, list[Reference]] = {}
    _find_manifests(members, index.manifests, platform, (), found)
    if not found:
        raise InvalidRequest(f"the archive holds no image for {platform}")
    return [_read_manifest(members, layers, digest, tags) for digest, tags in found.items()]


def _find_manifests(
    members: _Members,
    descriptors: Sequence[Descriptor],
    platform: Platform,
    path: tuple[Reference, ...],
    found: dict[Digest, list[Reference]],
    depth: int = 0,
) -> None:
    """Collect the manifests for ``platform`` with the names they have, or that an index above them has."""
    if depth > _MAX_DEPTH or len(found) > _MAX_MEMBERS:
        raise InvalidRequest("the archive's indexes are nested too deep")
    for descriptor in descriptors:
        digest = descriptor.checked_digest()
        names = _names(descriptor) or path
        if descriptor.media_type in INDEX_TYPES:
            index = decode(_blob_document(members, digest), Index, what=f"index {digest}")
            _find_manifests(members, index.manifests, platform, names, found, depth + 1)
        elif _is_wanted(members, descriptor, platform):
            found.setdefault(digest, []).extend(name for name in names if name not in found.get(digest, []))


def _is_wanted(members: _Members, descriptor: Descriptor, platform: Platform) -> bool:
    if not members.has(_blob_name(descriptor.checked_digest())):
        return False  # an archive need not have all that its index lists
    return descriptor.platform is None or platform.accepts(descriptor.platform)


def _names(descriptor: Descriptor) -> tuple[Reference, ...]:
    """The name of a manifest; the OCI annotation is often but a tag, and then names nothing."""
    name = descriptor.annotations.get(_CONTAINERD_NAME) or descriptor.annotations.get(_OCI_NAME, "")
    if "/" not in name and ":" not in name:
        return ()
    return (Reference.parse(name).tagged(),)


def _blob_name(digest: Digest) -> str:
    return f"blobs/sha256/{hexadecimal(digest)}"


def _blob_document(members: _Members, digest: Digest) -> bytes:
    data = members.document(_blob_name(digest))
    if hashlib.sha256(data).hexdigest() != hexadecimal(digest):
        raise RegistryError(f"the archive's blob {digest} is corrupt")
    return data


def _read_manifest(
    members: _Members, layers: _Layers, digest: Digest, tags: Sequence[Reference]
) -> ArchivedImage:
    manifest = decode(_blob_document(members, digest), Manifest, what=f"manifest {digest}")
    document = _blob_document(members, manifest.config.checked_digest())
    diff_ids = checked_diff_ids(document, len(manifest.layers), what=manifest.config.digest)
    copied = []
    for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True):
        blob = descriptor.checked_digest()
        copied.append(layers.copy(_blob_name(blob), diff_id, blob))
    return ArchivedImage(document=document, layers=tuple(copied), tags=tuple(tags), manifest_digest=digest)
