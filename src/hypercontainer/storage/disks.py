"""A pod's writable disk: a sparse ext4 image, allocated at create and kept until rm.

mke2fs takes tens of milliseconds, so each size is formatted once into the cache and then copied with
its holes; a copy is a few hundred kilobytes of metadata.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import uuid
from pathlib import Path

from hypercontainer.errors import HyperError, Unavailable
from hypercontainer.files import copy_sparse
from hypercontainer.process import find_program, run

# A small journal: the guest may be killed at any moment and must mount again.  Nothing is initialised
# eagerly, since the file is a hole and reads as zeros.
_FORMAT = (
    "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size=4", "-I", "256", "-i", "32768",
    "-O", "^resize_inode,^metadata_csum_seed,sparse_super2",
    "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,assume_storage_prezeroed=1,root_owner=0:0",
)  # fmt: skip


class PodDisks:
    """The writable disks below ``pods``; formatted templates live in ``cache``."""

    def __init__(self, *, cache: Path) -> None:
        self._cache = cache
        self._formatting = asyncio.Lock()

    async def create(self, path: Path, *, size_mib: int) -> None:
        """Make a writable disk at ``path``; Unavailable when the host's disk is full, and nothing is left."""
        template = await self._template(size_mib)
        try:
            copy_sparse(template, path)  # half a millisecond; to have a thread do it takes more than that
        except OSError as error:
            raise _full_or_other(error, path) from error

    async def _template(self, size_mib: int) -> Path:
        key = hashlib.sha256(" ".join(_FORMAT).encode()).hexdigest()[:12]
        template = self._cache / f"ext4-{size_mib}-{key}.img"
        async with self._formatting:
            if not template.exists():
                await self._format(template, size_mib)
        return template

    async def _format(self, template: Path, size_mib: int) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        draft = self._cache / f".{template.name}.{uuid.uuid4().hex[:8]}"
        try:
            with draft.open("xb") as file:
                os.truncate(file.fileno(), size_mib << 20)
            mke2fs = find_program("mke2fs", package="e2fsprogs")
            await run([mke2fs, *_FORMAT, str(draft)])
            draft.replace(template)
        except OSError as error:
            raise _full_or_other(error, template) from error
        finally:
            draft.unlink(missing_ok=True)


def _full_or_other(error: OSError, path: Path) -> HyperError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Unavailable(
            f"cannot make the pod's disk {path}: the host's file system is full",
            hint="free space there, for example with hyper rm and hyper rmi",
        )
    return Unavailable(f"cannot make the pod's disk {path}: {error.strerror}")
