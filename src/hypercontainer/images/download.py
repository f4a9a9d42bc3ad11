"""One blob on its way into a file: hashed as it comes, going on where an earlier try ended."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from hypercontainer.errors import RegistryError
from hypercontainer.images.work import Stop, in_thread
from hypercontainer.model.image import Digest

_BATCH = 1 << 20


class Download:
    """``prepare``, then ``take`` what comes, and ``verify``; ``seen`` is told how many bytes are there."""

    def __init__(self, target: Path, digest: Digest, size: int, seen: Callable[[int], None]) -> None:
        if size < 0:
            raise RegistryError(f"layer {digest} has a size of {size} bytes")
        self.digest = digest
        self.size = size
        self.at = 0
        self.best = 0  # the furthest it ever came: what counts as progress
        self.found = ""
        self._target = target
        self._seen = seen
        self._hash = hashlib.sha256()
        self._batch = bytearray()

    @property
    def is_complete(self) -> bool:
        return self.at == self.size

    async def prepare(self) -> None:
        """Take up what an earlier try, perhaps of an earlier daemon, has left."""
        if self._target.exists() and self._target.stat().st_size > self.size:
            self._target.unlink()
        self.at = await in_thread(_hash_existing, self._target, self._hash)
        self.best = self.at
        self._seen(self.at)

    async def restart(self) -> None:
        self._target.unlink(missing_ok=True)
        self._hash = hashlib.sha256()
        self._batch.clear()
        self.at = 0

    async def take(self, data: bytes) -> None:
        if self.at + len(self._batch) + len(data) > self.size:
            await self.restart()
            raise RegistryError(f"layer {self.digest} is larger than the {self.size} bytes its manifest says")
        self._batch += data
        if len(self._batch) >= _BATCH:
            await self.flush()

    async def flush(self) -> None:
        if not self._batch:
            return
        data, self._batch = bytes(self._batch), bytearray()
        await asyncio.shield(asyncio.to_thread(self._append, data))
        self._seen(self.at)

    def _append(self, data: bytes) -> None:
        self._hash.update(data)
        with self._target.open("ab") as file:
            file.write(data)
        self.at += len(data)
        self.best = max(self.best, self.at)

    async def verify(self) -> bool:
        """Whether it is what was asked for; what is not is removed, so that a next try begins afresh."""
        self.found = f"sha256:{self._hash.hexdigest()}"
        if self.found == self.digest:
            self._target.touch()
            return True
        await self.restart()
        return False


def _hash_existing(stop: Stop, path: Path, digest: hashlib._Hash) -> int:
    size = 0
    if not path.exists():
        return size
    with path.open("rb") as file:
        while data := file.read(_BATCH):
            stop.check()
            digest.update(data)
            size += len(data)
    return size
