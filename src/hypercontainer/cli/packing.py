"""Files of this host as a tar for a container, made while it is read: nothing of it is stored."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from hypercontainer.errors import InvalidRequest

CONTENTS = "."
_PIECE = 1 << 18
_END = b"\0" * (2 * tarfile.BLOCKSIZE)


class PackedFiles:
    """A tar of ``source`` that can be read once.  ``size`` counts bytes of files.

    ``name`` is the root's name in the archive; CONTENTS for what is in a directory.  ``follow``: what a
    symbolic link at ``source`` leads to.  Owners are root's, unless they are kept.
    """

    def __init__(self, source: Path, *, name: str, follow: bool, keep_owners: bool) -> None:
        self.size = 0
        self._source = source.resolve() if follow else source
        self._name = name
        self._keep_owners = keep_owners
        self._writer = tarfile.TarFile(fileobj=io.BytesIO(), mode="w", format=tarfile.PAX_FORMAT)
        self._pieces = self._make()
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)

    def _make(self) -> Iterator[bytes]:
        batch = bytearray()
        for piece in self._entries(self._source, self._name):
            batch += piece
            if len(batch) >= _PIECE:
                yield bytes(batch)
                batch.clear()
        yield bytes(batch) + _END

    def _entries(self, path: Path, name: str) -> Iterator[bytes]:
        try:
            yield from self._entry(path, name)
        except OSError as error:
            raise InvalidRequest(f"cannot read {path}: {error.strerror}") from error

    def _entry(self, path: Path, name: str) -> Iterator[bytes]:
        info = self._writer.gettarinfo(path, arcname=name)
        if info is None:  # a socket, which no archive can hold
            return
        if not self._keep_owners:
            info.uid = info.gid = 0
        info.uname = info.gname = ""  # numbers: this host's names are not the container's
        if name != CONTENTS:  # the directory there is not to become like this one
            yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if info.isreg():
            yield from self._content(path, info.size)
        elif info.isdir():
            for child in sorted(path.iterdir()):
                yield from self._entries(child, f"{name}/{child.name}")

    def _content(self, path: Path, size: int) -> Iterator[bytes]:
        """Exactly ``size`` bytes, whatever is written to the file meanwhile."""
        left = size
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            while left and (data := file.read(min(left, _PIECE))):
                left -= len(data)
                yield data
        if left:
            raise InvalidRequest(f"{path} became shorter while it was copied")
        self.size += size
        yield b"\0" * (-size % tarfile.BLOCKSIZE)


def is_directory(path: Path, *, follow: bool) -> bool:
    """Raises InvalidRequest when there is nothing at ``path``."""
    try:
        status = path.stat() if follow else path.lstat()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from error
    return stat.S_ISDIR(status.st_mode)
