"""Where the files of images are, below one root, and how they come there whole.

    blobs/sha256/HEX        layers as they came: never changed, named by their digest
    disks/HEX.squashfs      one for each image, named by the image's id
    downloads/HEX           layers that are on their way, or wait for the rest of their image
    tmp/NAME/               one directory for each piece of work; nothing in it outlives the daemon

A file gets its name in ``blobs`` and ``disks`` by a rename, when it is complete and verified.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import mkdtemp

from hypercontainer.faults import point
from hypercontainer.files import remove_tree
from hypercontainer.images.work import Stop, disk_errors, in_thread
from hypercontainer.model.image import Digest, hexadecimal

_THROWN = "thrown-"
_KEPT_DOWNLOADS_S = 7 * 86400  # a pull that broke can go on this long


class Blobs:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self.disks = root / "disks"
        self._downloads = root / "downloads"
        self._tmp = root / "tmp"
        self._held: Counter[Digest] = Counter()
        for directory in (self._blobs, self.disks, self._downloads, self._tmp):
            directory.mkdir(parents=True, exist_ok=True)

    def path(self, digest: Digest) -> Path:
        return self._blobs / hexadecimal(digest)

    def has(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    def download(self, digest: Digest) -> Path:
        return self._downloads / hexadecimal(digest)

    def disk(self, image: Digest) -> Path:
        return self.disks / f"{hexadecimal(image)}.squashfs"

    @asynccontextmanager
    async def workspace(self) -> AsyncIterator[Path]:
        """A new directory for one piece of work, gone at its end."""
        with disk_errors("make a temporary directory", self.root):
            directory = Path(mkdtemp(dir=self._tmp))
        try:
            yield directory
        finally:
            await in_thread(_remove, directory)

    @contextmanager
    def holding(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Keep these blobs while the block lasts, though no image has them yet or any more."""
        held = list(digests)
        self._held.update(held)
        try:
            yield
        finally:
            self._held.subtract(held)

    def keep(self, path: Path, digest: Digest) -> None:
        """Move the verified file ``path`` to where blobs are."""
        if path != self.path(digest):
            path.replace(self.path(digest))
            point("blob kept")

    def keep_disk(self, path: Path, image: Digest) -> None:
        """Move a finished disk to where disks are."""
        path.replace(self.disk(image))
        point("disk kept")

    def drop(self, digests: Iterable[Digest]) -> None:
        """Take these blobs out, but those that some work holds; `empty_bin` frees their room."""
        for digest in digests:
            if self._held[digest] <= 0:
                self._throw(self.path(digest))

    def drop_disk(self, image: Digest) -> None:
        self._throw(self.disk(image))

    def _throw(self, path: Path) -> None:
        """A rename is quick; removing a gigabyte would stop the daemon's loop."""
        with contextlib.suppress(FileNotFoundError):
            path.replace(self._tmp / f"{_THROWN}{uuid.uuid4().hex}")
        point("thrown away")

    async def empty_bin(self) -> None:
        await in_thread(_empty, self._tmp)

    def collect(self, *, blobs: set[Digest], images: set[Digest]) -> None:
        """Remove what a dead daemon left behind: all but these, and downloads that may still go on."""
        for directory in self._tmp.iterdir():
            remove_tree(directory) if directory.is_dir() else directory.unlink(missing_ok=True)
        _remove_others(self._blobs, {self.path(digest) for digest in blobs})
        _remove_others(self.disks, {self.disk(image) for image in images})
        oldest = time.time() - _KEPT_DOWNLOADS_S
        recent = {path for path in self._downloads.iterdir() if path.stat().st_mtime > oldest}
        _remove_others(self._downloads, recent)


def _remove(_stop: Stop, directory: Path) -> None:
    remove_tree(directory)


def _empty(_stop: Stop, directory: Path) -> None:
    for path in directory.glob(f"{_THROWN}*"):
        path.unlink(missing_ok=True)


def _remove_others(directory: Path, kept: set[Path]) -> None:
    for path in directory.iterdir():
        if path not in kept:
            path.unlink(missing_ok=True)
