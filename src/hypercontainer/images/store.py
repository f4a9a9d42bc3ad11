"""The images of this host: pulled, loaded, imported, named, listed, removed, and each as a disk.

One instance lives in hyperd.  What is below does the work: `library` keeps images, `registry` and `pulling`
fetch them, `archive` reads them from tars, `disks` merges their layers.
"""

from __future__ import annotations

import builtins
import dataclasses
import datetime
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hypercontainer.config import Settings
from hypercontainer.errors import InvalidRequest
from hypercontainer.images import archive as archives
from hypercontainer.images import changes as instructions
from hypercontainer.images import removal
from hypercontainer.images.layers import Layer, hash_file
from hypercontainer.images.library import Library
from hypercontainer.images.progress import Progress, Report, relay
from hypercontainer.images.removal import Removed
from hypercontainer.images.work import Stop, disk_errors, in_thread
from hypercontainer.model.image import (
    Credentials,
    Digest,
    History,
    Image,
    ImageConfig,
    ImageDocument,
    Platform,
    Reference,
    RootFs,
    short,
)

if TYPE_CHECKING:
    from hypercontainer.images.endpoint import Retry

__all__ = ["Credentials", "Image", "Images", "Progress", "Removed"]

_BATCH = 1 << 20


class Images:
    """``pull``, ``load`` and ``import_`` work while their progress is read; who stops early closes them
    (`contextlib.aclosing`), which ends the work and removes what it had begun.
    """

    def __init__(
        self,
        root: Path,
        *,
        settings: Settings,
        certificates: Path | None = None,
        retry: Retry | None = None,
        changed: Callable[[str, str, str], None] = lambda action, image, name: None,
    ) -> None:
        """``root``: where all files are; ``certificates``: has ``HOST/ca.crt`` of registries.

        ``changed`` is told what was done (pull, load, import, tag, untag, delete), to which id, and a name.
        """
        self._library = Library(root)
        self._settings = settings
        self._certificates = certificates
        self._retry = retry
        self._changed = changed

    def close(self) -> None:
        self._library.close()

    async def pull(
        self, reference: str, *, platform: str = "", credentials: Credentials | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Fetch an image from its registry; what is here already is not fetched again.

        Raises Unauthorized, ImageNotFound, RegistryError, Unavailable; nothing half-done is kept but
        layers on their way, with which the next pull goes on.
        """
        from hypercontainer.images.pulling import Pull  # late: httpx takes 130 ms to import

        wanted = Reference.parse(reference)

        async def work(report: Report) -> None:
            pull = Pull(self._library, self._settings, self._certificates, report, retry=self._retry)
            image = await pull.run(wanted, platform, credentials)
            self._changed("pull", image.id, wanted.familiar)

        async with aclosing(relay(work)) as lines:
            async for progress in lines:
                yield progress

    async def load(self, archive: AsyncIterator[bytes]) -> AsyncGenerator[Progress, None]:
        """Add the images of an archive that ``docker save`` or an OCI tool wrote."""

        async def work(report: Report) -> None:
            async with self._library.blobs.workspace() as workspace:
                await self._load(await self._spool(archive, workspace), workspace, report)

        async with aclosing(relay(work)) as lines:
            async for progress in lines:
                yield progress

    async def import_(
        self, archive: AsyncIterator[bytes], *, reference: str, changes: Sequence[str] = ()
    ) -> AsyncGenerator[Progress, None]:
        """Make an image of one layer, a tar of a root file system; ``reference`` may be empty."""
        name = Reference.parse(reference) if reference else None
        if name is not None and name.digest is not None:
            raise InvalidRequest(
                f"{reference!r}: an import is named by a tag, its digest is not known before"
            )
        config = instructions.apply(ImageConfig(), changes)

        async def work(report: Report) -> None:
            async with self._library.blobs.workspace() as workspace:
                await self._import(await self._spool(archive, workspace), name, config, workspace, report)

        async with aclosing(relay(work)) as lines:
            async for progress in lines:
                yield progress

    def get(self, name: str) -> Image:
        """The image by reference, id, or the beginning of its id; raises ImageNotFound."""
        return self._library.find(name)

    def list(self) -> list[Image]:
        """All images, the newest first."""
        return self._library.index.images()

    async def tag(self, name: str, reference: str) -> None:
        """Give the image another name; a name that another image has moves over."""
        image, new = self.get(name), Reference.parse(reference)
        if new.digest is not None:
            raise InvalidRequest(f"{reference!r}: a tag cannot have a digest")
        with self._library.index.change():
            self._library.index.name(image.id, new)
        self._changed("tag", image.id, new.familiar)

    async def remove(
        self, name: str, *, force: bool = False, in_use: Collection[str] = ()
    ) -> builtins.list[Removed]:
        """Take a name away, and the image with its last one; ``in_use``: ids of images that pods have.

        Raises Conflict when a pod uses the image, or its id has names in several repositories.
        """
        image = self.get(name)
        names = self._library.index.names(image.id)
        done = removal.plan(image, names, _asked(name, names), force=force, in_use=in_use)
        with self._library.index.change():
            for gone in done.names:
                self._library.index.unname(gone)
        for gone in done.names:
            self._changed("untag", image.id, gone.familiar)
        if done.deletes:
            await self._library.remove(image.id)
            self._changed("delete", image.id, name)
        return done.lines(image.id)

    async def disk(self, image: Image) -> Path:
        """The squashfs of ``image``, read-only for its user; made again when it was lost."""
        return await self._library.disk(image)

    async def collect(self) -> None:
        """Remove what a killed daemon left behind; at start-up, before anything else."""
        await self._library.collect()

    async def _spool(self, archive: AsyncIterator[bytes], workspace: Path) -> Path:
        """The whole archive as a file: its lists may stand at its end."""
        path = workspace / "archive"
        with disk_errors("receive the archive", self._library.blobs.root), path.open("wb") as file:
            batch = bytearray()
            async for data in archive:
                batch += data
                if len(batch) >= _BATCH:
                    await in_thread(_write, file.fileno(), bytes(batch))
                    batch.clear()
            await in_thread(_write, file.fileno(), bytes(batch))
        return path

    async def _load(self, path: Path, workspace: Path, report: Report) -> None:
        with disk_errors("unpack the archive", self._library.blobs.root):
            found = await in_thread(
                archives.read, path, workspace, platform=Platform.of_host(), existing=self._existing
            )
        for item in found:
            async with self._library.using([layer.digest for layer in item.layers]):
                image = await self._add(item, workspace, report)
            for tag in item.tags:
                status = f"Loaded image: {tag.familiar}"
                report(Progress(status=status, image=image.id, reference=str(tag)))
            if not item.tags:
                report(Progress(status=f"Loaded image ID: {image.id}", image=image.id))

    async def _add(self, item: archives.ArchivedImage, workspace: Path, report: Report) -> Image:
        layers = [self._where_now(layer) for layer in item.layers]
        plains = []
        for layer in layers:
            plains.append(await self._library.plain(layer, workspace, is_fresh=True))
            size = plains[-1].size
            identity = short(plains[-1].diff_id)
            report(Progress(id=identity, status="Loading layer", current=size, total=size))
        image = await self._library.add(item.document, layers, plains, names=item.tags, workspace=workspace)
        self._changed("load", image.id, next(iter(image.tags), image.id))
        return image

    def _where_now(self, layer: Layer) -> Layer:
        """An earlier image of the same archive may have moved the layer to where blobs are."""
        existing = self._existing(layer.digest)
        return layer if existing is None else dataclasses.replace(layer, path=existing)

    def _existing(self, digest: Digest) -> Path | None:
        return self._library.blobs.path(digest) if self._library.blobs.has(digest) else None

    async def _import(
        self, path: Path, name: Reference | None, config: ImageConfig, workspace: Path, report: Report
    ) -> None:
        with disk_errors("read the archive", self._library.blobs.root):
            digest = await in_thread(_digest_of_file, path)
        layer = Layer(path=path, digest=digest, diff_id=None)
        plain = await self._library.plain(layer, workspace, is_fresh=True)
        document = _imported(config, plain.diff_id)
        async with self._library.using([digest]):
            image = await self._library.add(
                document, [layer], [plain], names=[name] if name else [], workspace=workspace
            )
        self._changed("import", image.id, name.familiar if name else image.id)
        report(Progress(status=image.id, image=image.id, reference=str(name) if name else ""))


def _asked(name: str, names: Sequence[Reference]) -> Reference | None:
    """The name of an image that ``name`` means, or None when it is an id."""
    try:
        asked = Reference.parse(name)
    except InvalidRequest:
        return None
    for known in names:
        if asked.digest is not None and known.digest == asked.digest and known.name == asked.name:
            return known
    return asked if asked in names else None


def _write(stop: Stop, descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        stop.check()
        view = view[os.write(descriptor, view) :]


def _digest_of_file(stop: Stop, path: Path) -> Digest:
    with path.open("rb") as file:
        return hash_file(stop, file)


def _imported(config: ImageConfig, diff_id: Digest) -> bytes:
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    platform = Platform.of_host()
    document = ImageDocument(
        architecture=platform.architecture,
        os=platform.os,
        created=now,
        config=config,
        rootfs=RootFs(diff_ids=[diff_id]),
        history=[History(created=now, comment="Imported from -")],
    )
    return msgspec.json.encode(document)
