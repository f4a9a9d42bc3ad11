"""Tiny images made from nothing, as archives that ``docker save`` could have written."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tools.make_image import busybox_layer, write_archive


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member of a layer's tar; ``content`` makes it a file unless ``kind`` says otherwise."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_600_000_000
    link: str = ""
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = field(default_factory=dict)


def directory(name: str, mode: int = 0o755) -> Member:
    return Member(name=name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, link: str) -> Member:
    return Member(name=name, kind=tarfile.SYMTYPE, link=link, mode=0o777)


def hard_link(name: str, link: str) -> Member:
    return Member(name=name, kind=tarfile.LNKTYPE, link=link)


def layer(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed layer."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format) as archive:
        for member in members:
            archive.addfile(_info(member), io.BytesIO(member.content))
    return output.getvalue()


def _info(member: Member) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member.name)
    info.type, info.mode, info.mtime = member.kind, member.mode, member.mtime
    info.uid, info.gid, info.linkname = member.uid, member.gid, member.link
    info.size = len(member.content)
    info.devmajor, info.devminor = member.device
    info.pax_headers = dict(member.pax)
    return info


def document(layers: Sequence[bytes], config: Mapping[str, object]) -> bytes:
    """An image's config for uncompressed ``layers``."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-05-06T07:08:09Z",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
        }
    ).encode()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    return layer(*(Member(name=name, content=content) for name, content in files.items()))


def docker_archive(
    path: Path,
    *,
    layers: Sequence[bytes],
    config: Mapping[str, object] | None = None,
    tags: Sequence[str] = (),
) -> Path:
    """Write an image of uncompressed ``layers`` to ``path`` as ``docker save`` does."""
    text = document(layers, config or {})
    name = hashlib.sha256(text).hexdigest() + ".json"
    manifest = [
        {"Config": name, "RepoTags": list(tags), "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}
    ]
    files = {name: text}
    files |= {f"{n}/layer.tar": data for n, data in enumerate(layers)}
    files["manifest.json"] = json.dumps(manifest).encode()
    path.write_bytes(tar_of(files))
    return path


def oci_archive(
    path: Path,
    *,
    layers: Sequence[bytes],
    config: Mapping[str, object] | None = None,
    name: str = "",
    blobs: Sequence[bytes] | None = None,
) -> Path:
    """Write an OCI layout; ``blobs`` are the layers as they are stored, when not as they are."""
    stored = list(blobs or layers)
    text = document(layers, config or {})
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor(text, "application/vnd.oci.image.config.v1+json"),
            "layers": [_descriptor(data, "application/vnd.oci.image.layer.v1.tar") for data in stored],
        }
    ).encode()
    listed = _descriptor(manifest, "application/vnd.oci.image.manifest.v1+json")
    if name:
        listed["annotations"] = {"org.opencontainers.image.ref.name": name}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [listed]}).encode()
    files |= {f"blobs/sha256/{digest(data)[7:]}": data for data in (text, manifest, *stored)}
    path.write_bytes(tar_of(files))
    return path


def _descriptor(data: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def busybox_archive(path: Path, *, tag: str = "busybox:latest") -> Path:
    """Write an image of the host's static busybox, with a link for each applet."""
    with path.open("wb") as output:
        write_archive(output, cached_busybox_layer(), command=["sh"], tag=tag)
    return path


@cache
def cached_busybox_layer() -> bytes:
    return busybox_layer()
