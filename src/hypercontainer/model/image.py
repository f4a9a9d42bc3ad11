"""What an image is: its names, its digests, and the documents of the OCI image and Docker formats.

The documents come from strangers (registries, archives): they are bounded in size, fields that we do
not know are ignored, fields that we use are checked.  Formats: OCI image-spec (manifest.md,
image-index.md, config.md) and Docker's "Image Manifest Version 2, Schema 2", which differ in media types.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from typing import Any, NewType, TypeVar

import msgspec

from hypercontainer.errors import InvalidRequest

Digest = NewType("Digest", str)
"""``sha256:`` and 64 lower-case hexadecimal digits; made by `digest_of` and `parse_digest` only."""

MAX_DOCUMENT_SIZE = 4 << 20  # of a manifest, index or config, as registries and containerd bound it

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")

Document = TypeVar("Document")


def digest_of(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def parse_digest(text: str) -> Digest:
    """``text`` as a digest; raises InvalidRequest for anything but SHA-256, which all images use."""
    if not _DIGEST.fullmatch(text):
        raise InvalidRequest(f"{text[:100]!r} is no sha256 digest")
    return Digest(text)


def hexadecimal(digest: Digest) -> str:
    """The 64 digits of ``digest``: safe as a file name."""
    return digest.partition(":")[2]


def short(digest: str) -> str:
    """The 12 digits that people see."""
    return digest.partition(":")[2][:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    username: str
    password: str

    def __repr__(self) -> str:  # a password must never reach a log
        return f"Credentials(username={self.username!r}, password=...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A name of an image as Docker reads it: ``[registry/]repository[:tag][@digest]``."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``text`` with Docker's defaults: docker.io, ``library/``, and tag ``latest``."""
        rest, at, digest = text.partition("@")
        name, tag = _split_tag(rest)
        registry, repository = _split_registry(name)
        _check_names(text, registry, repository)
        if (tag and not _TAG.fullmatch(tag)) or rest.endswith(":"):
            raise InvalidRequest(f"invalid image reference {text[:300]!r}: {tag[:150]!r} is no tag")
        if not tag and not at:
            tag = "latest"
        return cls(
            registry=registry, repository=repository, tag=tag, digest=parse_digest(digest) if at else None
        )

    @property
    def name(self) -> str:
        """The name without tag and digest, in full."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name as Docker prints it: without what is the default."""
        if self.registry != "docker.io":
            return self.name
        return self.repository.removeprefix("library/")

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._suffix()

    def tagged(self) -> Reference:
        """The same without its digest."""
        return replace(self, tag=self.tag or "latest", digest=None)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()


def _split_tag(text: str) -> tuple[str, str]:
    name, colon, tag = text.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (text, "")


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_registry = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_registry:
        return "docker.io", name if slash else f"library/{name}"
    if first in {"docker.io", "index.docker.io"}:
        return "docker.io", rest if "/" in rest else f"library/{rest}"
    return first, rest


def _check_names(text: str, registry: str, repository: str) -> None:
    problem = ""
    if not _DOMAIN.fullmatch(registry):
        problem = f"{registry[:150]!r} is no registry host"
    elif len(registry) + len(repository) > 254:
        problem = "the name is longer than 255 characters"
    elif not _REPOSITORY.fullmatch(repository):
        problem = "a repository is of lower-case letters, digits and single separators"
    elif _HEXADECIMAL.fullmatch(repository.removeprefix("library/")):
        problem = "a name of 64 hexadecimal digits would look like an image id"
    if problem:
        raise InvalidRequest(f"invalid image reference {text[:300]!r}: {problem}")


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv7l": "arm"}


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What an image runs on, in Go's words (``linux/arm64/v8``)."""

    architecture: str = ""
    os: str = "linux"
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``linux/arm/v7``, ``linux/amd64`` or ``arm64``; empty text: this host."""
        if not text:
            return cls.of_host()
        parts = text.lower().split("/")
        if len(parts) > 3 or not all(re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", part) for part in parts):
            raise InvalidRequest(f"invalid platform {text[:80]!r}", hint="for example linux/arm64")
        if len(parts) == 1:
            parts = ["linux", *parts]
        variant = parts[2] if len(parts) == 3 else ""
        return cls(os=parts[0], architecture=_ARCHITECTURES.get(parts[1], parts[1]), variant=variant)

    @classmethod
    def of_host(cls) -> Platform:
        machine = os.uname().machine
        return cls(architecture=_ARCHITECTURES.get(machine, machine))

    def accepts(self, other: Platform) -> bool:
        """Whether an image for ``other`` is one for this; an unsaid variant accepts any."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        return not self.variant or not other.variant or self.variant == other.variant

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A blob of a registry: what it is, its digest and its size in bytes."""

    media_type: str = ""
    digest: str = ""
    size: int = 0
    platform: Platform | None = None
    annotations: dict[str, str] = msgspec.field(default_factory=dict)

    def checked_digest(self) -> Digest:
        return parse_digest(self.digest)


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    config: Descriptor
    layers: list[Descriptor] = msgspec.field(default_factory=list)


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A list of manifests, one for each platform (Docker: a manifest list)."""

    schema_version: int = 0
    media_type: str = ""
    manifests: list[Descriptor] = msgspec.field(default_factory=list)


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """How to ask a container whether it is well; times are nanoseconds."""

    test: list[str] = msgspec.field(default_factory=list)
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """What a container of the image starts with (OCI config.md, "config")."""

    user: str = ""
    env: list[str] = msgspec.field(default_factory=list)
    entrypoint: list[str] = msgspec.field(default_factory=list)
    cmd: list[str] = msgspec.field(default_factory=list)
    working_dir: str = ""
    exposed_ports: dict[str, dict[str, object]] = msgspec.field(default_factory=dict)  # "80/tcp"
    volumes: dict[str, dict[str, object]] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds
    healthcheck: Healthcheck | None = None
    shell: list[str] = msgspec.field(default_factory=list)
    on_build: list[str] = msgspec.field(default_factory=list)


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "layers"
    diff_ids: list[str] = msgspec.field(default_factory=list)  # SHA-256 of each uncompressed layer


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The config blob of an image; its digest is the image's id."""

    architecture: str = ""
    os: str = "linux"
    variant: str = ""
    created: str = ""  # RFC 3339
    author: str = ""
    config: ImageConfig = msgspec.field(default_factory=ImageConfig)
    rootfs: RootFs = msgspec.field(default_factory=RootFs)
    history: list[History] = msgspec.field(default_factory=list)

    @property
    def platform(self) -> Platform:
        return Platform(architecture=self.architecture, os=self.os, variant=self.variant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of the store."""

    id: Digest  # of the config
    tags: tuple[str, ...]  # familiar names: "debian:latest", "registry.example:5000/a/b:1"
    digests: tuple[str, ...]  # of manifests it was pulled by: "debian@sha256:..."
    config: ImageConfig
    created: str  # RFC 3339, empty when the image doesn't say
    size: int  # bytes of all layers, uncompressed, as Docker counts
    disk_size: int  # bytes of the disk made of them
    platform: Platform
    layers: tuple[Digest, ...]  # diff ids, lowest first
    history: tuple[History, ...] = ()

    @property
    def short_id(self) -> str:
        return short(self.id)


def decode(data: bytes, kind: type[Document], *, what: str) -> Document:
    """A foreign document as ``kind``; raises InvalidRequest that names ``what``.

    Go writes ``null`` for empty lists and maps, so nulls count as absent.
    """
    if len(data) > MAX_DOCUMENT_SIZE:
        raise InvalidRequest(f"{what} is {len(data)} bytes; the limit is {MAX_DOCUMENT_SIZE}")
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(data)), kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{what} is not what it should be: {error}") from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value
