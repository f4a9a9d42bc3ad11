"""The images that are here, as files and rows together: added whole, found by any of their names, removed.

Order of things, so that a daemon killed at any point leaves nothing half-made: files first, each by a
rename; the rows that speak of them last; when removing, the rows first.  `Library.collect` removes files
that no row speaks of.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from hypercontainer.errors import ImageNotFound, InvalidRequest, Unavailable
from hypercontainer.images import disks
from hypercontainer.images.blobs import Blobs
from hypercontainer.images.index import Index, Record
from hypercontainer.images.layers import Layer, PlainLayer, plain
from hypercontainer.images.work import Stop, disk_errors, in_thread
from hypercontainer.model.image import Digest, Image, Reference, digest_of, hexadecimal

_PREFIX = re.compile(r"[0-9a-f]{1,64}")


class Locks:
    """A lock for each thing that is worked on."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        lock, holders = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, holders + 1
        try:
            async with lock:
                yield
        finally:
            lock, holders = self._locks[key]
            self._locks[key] = lock, holders - 1
            if holders == 1:
                del self._locks[key]

    def is_held(self, key: Hashable) -> bool:
        return key in self._locks


class Library:
    def __init__(self, root: Path) -> None:
        with disk_errors("open the image store", root):
            self.blobs = Blobs(root)
        self.index = Index(root / "images.db", disks=self.blobs.disks)
        self.locks = Locks()

    def close(self) -> None:
        self.index.close()

    async def add(
        self,
        document: bytes,
        layers: Sequence[Layer],
        plains: Sequence[PlainLayer],
        *,
        names: Sequence[Reference],
        workspace: Path,
    ) -> Image:
        """Add an image, or only its ``names`` when it is here already."""
        identity = digest_of(document)
        async with self.locks.hold(identity):
            with disk_errors("store the image", self.blobs.root):
                made = None if self.is_whole(identity) else await self._make(plains, workspace)
                self._commit(identity, document, layers, plains, names, made)
        return self.index.image(identity)

    def name(self, identity: Digest, names: Sequence[Reference]) -> Image:
        """Give an image that is here more names."""
        with self.index.change():
            for name in names:
                self.index.name(identity, name)
        return self.index.image(identity)

    @asynccontextmanager
    async def using(self, digests: Sequence[Digest]) -> AsyncIterator[None]:
        """Keep these blobs while the block lasts; those that then no image has are removed."""
        try:
            with self.blobs.holding(digests):
                yield
        finally:
            await self._sweep(digests)

    def is_whole(self, identity: Digest) -> bool:
        """Whether the image is here, and its disk too."""
        return self.index.has(identity) and self._has_disk(self.index.image(identity))

    async def _make(self, plains: Sequence[PlainLayer], workspace: Path) -> Path:
        made = workspace / "disk"
        await in_thread(disks.make, plains, made)
        return made

    def _commit(
        self,
        identity: Digest,
        document: bytes,
        layers: Sequence[Layer],
        plains: Sequence[PlainLayer],
        names: Sequence[Reference],
        made: Path | None,
    ) -> None:
        """Without a pause, so that nobody removes a blob between its rename and its row."""
        for layer in layers:
            if layer.path.exists():  # a layer that comes twice was moved the first time
                self.blobs.keep(layer.path, layer.digest)
        size = made.stat().st_size if made else 0
        if made:
            self.blobs.keep_disk(made, identity)
        with self.index.change():
            if not self.index.has(identity):
                self.index.add(
                    Record(
                        id=identity,
                        document=document,
                        size=sum(layer.size for layer in plains),
                        disk_size=size,
                        blobs=tuple(layer.digest for layer in layers),
                    )
                )
            elif made:
                self.index.set_disk_size(identity, size)
            for name in names:
                self.index.name(identity, name)

    async def disk(self, image: Image) -> Path:
        """The image's disk, made again from its layers when it is gone or cut short."""
        async with self.locks.hold(image.id):
            if not self.index.has(image.id):
                raise ImageNotFound(f"image {image.id} was removed")
            current = self.index.image(image.id)
            if not self._has_disk(current):
                await self._remake(current)
        return self.blobs.disk(image.id)

    def _has_disk(self, image: Image) -> bool:
        try:
            return self.blobs.disk(image.id).stat().st_size == image.disk_size
        except FileNotFoundError:
            return False

    async def _remake(self, image: Image) -> None:
        digests = self.index.blobs(image.id)
        layers = [
            Layer(path=self.blobs.path(digest), digest=digest, diff_id=diff_id)
            for digest, diff_id in zip(digests, image.layers, strict=True)
        ]
        if missing := [layer for layer in layers if not layer.path.is_file()]:
            raise Unavailable(
                f"the disk of image {image.short_id} is lost, and so is its layer {missing[0].digest}",
                hint="remove the image and pull or load it again",
            )
        with (
            disk_errors("make the image's disk", self.blobs.root),
            self.blobs.holding(digests),
        ):
            await self._remake_from(layers, image)

    async def _remake_from(self, layers: Sequence[Layer], image: Image) -> None:
        async with self.blobs.workspace() as workspace:
            made = await self._make(await self.plains(layers, workspace), workspace)
            size = made.stat().st_size
            self.blobs.keep_disk(made, image.id)
            self.index.set_disk_size(image.id, size)

    async def plains(self, layers: Sequence[Layer], workspace: Path) -> list[PlainLayer]:
        return [await self.plain(layer, workspace) for layer in layers]

    async def plain(self, layer: Layer, workspace: Path, *, is_fresh: bool = False) -> PlainLayer:
        spool = workspace / f"plain-{hexadecimal(layer.digest)}"
        with disk_errors("unpack a layer", self.blobs.root):
            return await in_thread(plain, layer, spool, is_fresh=is_fresh)

    def find(self, name: str) -> Image:
        """By id, reference, or the beginning of one id; raises ImageNotFound."""
        identity = self._by_id(name) or self._by_reference(name) or self._by_prefix(name)
        if identity is None:
            raise ImageNotFound(
                f"no image {name[:300]!r} here", hint="hyper images lists what is here; hyper pull gets one"
            )
        return self.index.image(identity)

    def _by_id(self, name: str) -> Digest | None:
        digits = name.removeprefix("sha256:")
        identity = Digest(f"sha256:{digits}")
        return identity if len(digits) == 64 and self.index.has(identity) else None

    def _by_reference(self, name: str) -> Digest | None:
        try:
            return self.index.by_reference(Reference.parse(name))
        except InvalidRequest:
            return None  # it may still be the beginning of an id

    def _by_prefix(self, name: str) -> Digest | None:
        digits = name.removeprefix("sha256:")
        if not _PREFIX.fullmatch(digits):
            return None
        found = self.index.by_prefix(digits)
        if len(found) > 1:
            raise InvalidRequest(f"{name!r} begins more than one image id", hint="give more digits")
        return found[0] if found else None

    async def remove(self, identity: Digest) -> None:
        """Remove an image with all its names, its disk, and the layers that no other image has."""
        async with self.locks.hold(identity):
            if not self.index.has(identity):
                return
            blobs = self.index.blobs(identity)
            with self.index.change():
                self.index.remove(identity)
            self.blobs.drop_disk(identity)
            await self._sweep(blobs)

    async def _sweep(self, blobs: Sequence[Digest]) -> None:
        """Remove those of ``blobs`` that no image has and no work holds."""
        self.blobs.drop(self.index.unused(blobs))
        await self.blobs.empty_bin()

    async def collect(self) -> None:
        """Remove what a daemon that was killed left behind; only at start-up, before any other work."""
        images = {image.id for image in self.index.images()}
        blobs = self.index.all_blobs()

        def remove(_stop: Stop) -> None:
            self.blobs.collect(blobs=blobs, images=images)

        await in_thread(remove)
