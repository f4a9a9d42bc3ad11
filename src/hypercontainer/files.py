"""Files done safely: whole-or-not writes, short socket paths and sparse copies."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.faults import point


@dataclass(frozen=True, slots=True)
class FileId:
    """Which file ``path`` named: another one may have the name later."""

    path: Path
    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileId:
        found = path.stat()
        return cls(path, found.st_dev, found.st_ino)

    def is_in_place(self) -> bool:
        """Whether the path names it still.  A path that cannot be looked at may."""
        try:
            return FileId.of(self.path) == self
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True


def identity(file: Path) -> str:
    """What changes when a file is another, or has other contents."""
    try:
        status = file.stat()
    except OSError:
        return f"{file} is missing"
    return f"{file} {status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = False) -> None:
    """Replace ``path`` by ``data``: a reader, or a crash, sees the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        point("file written")
        temporary.replace(path)
        point("file replaced")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of ``path`` that fits ``sockaddr_un`` (108 bytes, unix(7)), while the block lasts."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy ``source`` with its holes kept; ``target`` must not exist and is removed on failure."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            size = os.fstat(reader.fileno()).st_size
            os.truncate(writer.fileno(), size)
            point("copying")
            for start, end in _extents(reader.fileno(), size):
                _copy_extent(reader.fileno(), writer.fileno(), start, end)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left (lseek(2))
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at


def _copy_extent(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(reader, min(end - start, 1 << 20), start)
        if not data:
            return
        os.pwrite(writer, data, start)
        start += len(data)


def remove_tree(path: Path) -> None:
    """Remove ``path`` and what is below it; nothing there is no error."""
    point("removing tree")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
    point("tree removed")
