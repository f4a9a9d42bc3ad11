"""One pull: from a reference to an image in the library."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from hypercontainer.config import Settings
from hypercontainer.errors import HyperError, ImageNotFound, InvalidRequest, RegistryError, Unsupported
from hypercontainer.images.archive import checked_diff_ids
from hypercontainer.images.endpoint import Endpoint, Retry, endpoints
from hypercontainer.images.layers import Layer, PlainLayer
from hypercontainer.images.library import Library
from hypercontainer.images.progress import Progress, Report
from hypercontainer.images.registry import Registry
from hypercontainer.images.work import disk_errors
from hypercontainer.model.image import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Credentials,
    Descriptor,
    Digest,
    Image,
    ImageDocument,
    Index,
    Manifest,
    Platform,
    Reference,
    decode,
    digest_of,
    hexadecimal,
    short,
)

_PARALLEL = 3  # layers at once, as Docker has it
_REPORT_EVERY_S = 0.1
_MAX_LAYERS = 500  # Docker stops at 125
_CONFIG_TYPES = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",  # some old builders
    "",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a reference led to."""

    manifest: Manifest
    digest: Digest  # of what the reference names, be it an index or a manifest
    document: bytes
    diff_ids: tuple[Digest, ...]


class Pull:
    def __init__(
        self,
        library: Library,
        settings: Settings,
        certificates: Path | None,
        report: Report,
        *,
        retry: Retry | None = None,
    ) -> None:
        self._library = library
        self._settings = settings
        self._certificates = certificates
        self._report = report
        self._retry = retry or Retry()
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def run(self, wanted: Reference, platform: str, credentials: Credentials | None) -> Image:
        """Pull ``wanted`` for ``platform`` (empty: this host's) from the first place that has it."""
        if self._library.locks.is_held(("pull", wanted)):
            self._report(Progress(id=wanted.tag or short(wanted.digest or ""), status="Waiting"))
        async with self._library.locks.hold(("pull", wanted)):
            *mirrors, origin = endpoints(wanted.registry, self._settings)
            for mirror in mirrors:
                try:
                    return await self._from(mirror, wanted, platform, None)
                except (HyperError, OSError) as error:
                    log.warning("mirror %s does not give %s: %s", mirror.host, wanted, error)
            return await self._from(origin, wanted, platform, credentials)

    async def _from(
        self, endpoint: Endpoint, wanted: Reference, platform: str, credentials: Credentials | None
    ) -> Image:
        registry = Registry(
            endpoint, wanted, credentials=credentials, certificates=self._certificates, retry=self._retry
        )
        async with registry:
            self._report(
                Progress(
                    id=wanted.tag or short(wanted.digest or ""), status=f"Pulling from {wanted.repository}"
                )
            )
            found = await self._find(registry, wanted, platform)
            with disk_errors(f"pull {wanted.familiar}", self._library.blobs.root):
                image, is_new = await self._fetch(registry, wanted, found)
        self._tell_end(wanted, found.digest, image, is_new=is_new)
        return image

    async def _find(self, registry: Registry, wanted: Reference, platform: str) -> _Found:
        target = Platform.parse(platform)
        try:
            return await self._read(registry, wanted, target, is_asked=bool(platform))
        except InvalidRequest as error:  # it is the registry that is wrong, not the one who asked
            raise RegistryError(f"cannot pull {wanted.familiar}: {error.message}", hint=error.hint) from error

    async def _read(
        self, registry: Registry, wanted: Reference, target: Platform, *, is_asked: bool
    ) -> _Found:
        data, digest, kind = await registry.manifest(wanted.digest or wanted.tag)
        kind = _media_type(data, kind)
        if kind in INDEX_TYPES:
            chosen = _choose(decode(data, Index, what=f"index {digest}"), target, wanted)
            data, _, kind = await registry.manifest(chosen)
            kind = _media_type(data, kind)
        if kind not in MANIFEST_TYPES:
            raise Unsupported(
                f"{wanted.familiar} is of type {kind[:100]!r}, which is no image that hyper can read",
                hint="images of Docker before 2017 (schema 1) must be pushed again" if "v1+" in kind else "",
            )
        manifest = _checked_manifest(data, wanted)
        document = await self._document(registry, manifest)
        diff_ids = checked_diff_ids(document, len(manifest.layers), what=f"the config of {wanted.familiar}")
        if is_asked:
            _check_platform(document, target, wanted)
        return _Found(manifest=manifest, digest=digest, document=document, diff_ids=tuple(diff_ids))

    async def _document(self, registry: Registry, manifest: Manifest) -> bytes:
        identity = manifest.config.checked_digest()
        if self._library.index.has(identity):
            return self._library.index.document(identity)
        return await registry.document(manifest.config)

    async def _fetch(self, registry: Registry, wanted: Reference, found: _Found) -> tuple[Image, bool]:
        """Get what is missing, and keep the image; says also whether anything was new."""
        names = [replace(wanted, tag="", digest=found.digest)]
        names += [wanted] if wanted.digest is None else []
        identity = digest_of(found.document)
        if self._library.is_whole(identity):
            was = self._library.index.by_reference(wanted)
            return self._library.name(identity, names), was != identity
        digests = [descriptor.checked_digest() for descriptor in found.manifest.layers]
        async with self._library.using(digests), self._library.blobs.workspace() as workspace:
            layers, plains = await self._layers(registry, found, workspace)
            image = await self._library.add(found.document, layers, plains, names=names, workspace=workspace)
            for digest in digests:
                self._library.blobs.download(digest).unlink(missing_ok=True)
        return image, True

    async def _layers(
        self, registry: Registry, found: _Found, workspace: Path
    ) -> tuple[list[Layer], list[PlainLayer]]:
        unique = {descriptor.digest: n for n, descriptor in enumerate(found.manifest.layers)}
        for descriptor in found.manifest.layers:
            self._report(Progress(id=short(descriptor.digest), status="Pulling fs layer"))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    digest: group.create_task(
                        self._layer(registry, found.manifest.layers[n], found.diff_ids[n], workspace)
                    )
                    for digest, n in unique.items()
                }
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        done = [tasks[descriptor.digest].result() for descriptor in found.manifest.layers]
        return [layer for layer, _ in done], [plain for _, plain in done]

    async def _layer(
        self, registry: Registry, descriptor: Descriptor, diff_id: Digest, workspace: Path
    ) -> tuple[Layer, PlainLayer]:
        digest = descriptor.checked_digest()
        identity = short(digest)
        path, is_new = self._library.blobs.path(digest), False
        async with self._slots, self._library.locks.hold(("blob", digest)):
            if not self._library.blobs.has(digest):
                path, is_new = await self._download(registry, digest, descriptor.size, workspace), True
        self._report(Progress(id=identity, status="Extracting" if is_new else "Already exists"))
        layer = Layer(path=path, digest=digest, diff_id=diff_id)
        plain = await self._library.plain(layer, workspace, is_fresh=is_new)
        if is_new:
            self._report(Progress(id=identity, status="Pull complete"))
        return layer, plain

    async def _download(self, registry: Registry, digest: Digest, size: int, workspace: Path) -> Path:
        target = self._library.blobs.download(digest)
        await registry.layer(digest, size, target, self._teller(short(digest), size))
        self._report(Progress(id=short(digest), status="Download complete", current=size, total=size))
        # A link of our own: another pull of the same layer may move the file to where blobs are.
        path = workspace / f"layer-{hexadecimal(digest)}"
        os.link(target, path)
        return path

    def _teller(self, identity: str, size: int) -> Callable[[int], None]:
        last = 0.0

        def tell(current: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _REPORT_EVERY_S:
                last = now
                self._report(Progress(id=identity, status="Downloading", current=current, total=size))

        return tell

    def _tell_end(self, wanted: Reference, digest: Digest, image: Image, *, is_new: bool) -> None:
        self._report(Progress(status=f"Digest: {digest}", digest=digest))
        what = "Downloaded newer image for" if is_new else "Image is up to date for"
        self._report(
            Progress(
                status=f"Status: {what} {wanted.familiar}",
                digest=digest,
                image=image.id,
                reference=str(wanted),
            )
        )


def _media_type(data: bytes, said: str) -> str:
    """What the document itself says counts; the header only when it says nothing."""
    document = decode(data, _Typed, what="the manifest")
    if document.media_type:
        return document.media_type
    if document.schema_version == 1:  # it has no media type of its own
        return "application/vnd.docker.distribution.manifest.v1+json"
    if said in MANIFEST_TYPES or said in INDEX_TYPES:
        return said
    if document.manifests is not None:
        return INDEX_TYPES[0]
    return MANIFEST_TYPES[0] if document.config is not None else said


class _Typed(msgspec.Struct, frozen=True, rename="camel"):
    """Any kind of manifest, as far as it takes to tell which."""

    schema_version: int = 0
    media_type: str = ""
    manifests: list[object] | None = None
    config: dict[str, object] | None = None


def _choose(index: Index, target: Platform, wanted: Reference) -> Digest:
    listed = [item for item in index.manifests if item.platform and item.platform.os != "unknown"]
    for descriptor in listed:
        if descriptor.platform and target.accepts(descriptor.platform):
            return descriptor.checked_digest()
    has = ", ".join(sorted({str(item.platform) for item in listed})[:12]) or "none that it names"
    raise ImageNotFound(
        f"{wanted.familiar} has no image for {target}; it has: {has}", hint="choose one with --platform"
    )


def _checked_manifest(data: bytes, wanted: Reference) -> Manifest:
    manifest = decode(data, Manifest, what=f"the manifest of {wanted.familiar}")
    if manifest.config.media_type not in _CONFIG_TYPES:
        raise Unsupported(f"{wanted.familiar} is no container image but {manifest.config.media_type[:100]!r}")
    if len(manifest.layers) > _MAX_LAYERS:
        raise InvalidRequest(
            f"{wanted.familiar} has {len(manifest.layers)} layers; the limit is {_MAX_LAYERS}"
        )
    return manifest


def _check_platform(document: bytes, target: Platform, wanted: Reference) -> None:
    has = decode(document, ImageDocument, what=f"the config of {wanted.familiar}").platform
    if not target.accepts(has):
        raise ImageNotFound(f"{wanted.familiar} is for {has}, not for {target}")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one to tell of several that ended the pull together."""
    leaves: Sequence[BaseException] = errors.exceptions
    for error in leaves:
        if isinstance(error, BaseExceptionGroup):
            return _first(error)
    return next((error for error in leaves if isinstance(error, HyperError)), leaves[0])
