"""A container's tar to files of this host.  A container is hostile: it wrote names, links, sizes and modes.

Nothing outside of the place that was asked for is written, whatever the archive says: each name is walked
from there without following a symbolic link.  Links are kept as they are; devices are left out, and so
are set-user-id bits, unless the archive's owners are kept too.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from hypercontainer.errors import InvalidRequest, Unavailable
from hypercontainer.tarstream import Member, Readable, parts_of, skip_padding

_COPY_SIZE = 1 << 20
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Unpacker:
    """Writes one archive to ``target``, whose parent is there.  ``size`` counts bytes of files."""

    def __init__(self, target: Path, *, keep_owners: bool) -> None:
        self._target = target
        self._keep_owners = keep_owners
        self._directories: list[Member] = []  # whose modes and times are set in the end
        self.skipped: list[str] = []
        self.size = 0

    def unpack(self, archive: Readable, entries: Iterator[Member]) -> None:
        with contextlib.ExitStack() as held:
            parent = os.open(self._target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, parent)
            for member in entries:
                self._take(parent, member, archive)
            for member in reversed(self._directories):
                with self._opened_parent(parent, member) as (directory, name):
                    self._finish(directory, name, member.info)

    def _take(self, parent: int, member: Member, archive: Readable) -> None:
        info = member.info
        try:
            with self._opened_parent(parent, member) as (directory, name):
                if info.isdir():
                    self._make_directory(directory, name, member)
                elif info.isreg():
                    self._write_file(directory, name, info, archive)
                else:
                    self._make_special(parent, directory, name, member)
        except OSError as error:
            where = self._target.joinpath(*member.parts)
            raise Unavailable(f"cannot write {where}: {error.strerror}") from error

    @contextlib.contextmanager
    def _opened_parent(self, parent: int, member: Member) -> Iterator[tuple[int, str]]:
        """The directory that ``member`` lies in, reached without a link, and its name there."""
        *above, name = (self._target.name, *member.parts)
        with contextlib.ExitStack() as held:
            for part in above:
                parent = os.open(part, _DIRECTORY, dir_fd=parent)
                held.callback(os.close, parent)
            yield parent, name

    def _make_directory(self, directory: int, name: str, member: Member) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
                raise
            return  # it stays as it is
        self._directories.append(member)

    def _write_file(self, directory: int, name: str, info: tarfile.TarInfo, archive: Readable) -> None:
        _make_room(directory, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb", buffering=0) as file:
            left = info.size
            while left:
                data = archive.read(min(left, _COPY_SIZE))
                if not data:
                    raise Unavailable("the archive ends early", hint="the copy is not complete")
                file.write(data)
                left -= len(data)
        skip_padding(archive, info.size)
        self.size += info.size
        self._finish(directory, name, info)

    def _make_special(self, parent: int, directory: int, name: str, member: Member) -> None:
        info = member.info
        if info.issym():
            _make_room(directory, name)
            os.symlink(info.linkname, name, dir_fd=directory)
            self._own(directory, name, info)
        elif info.islnk():
            self._link(parent, directory, name, member)
        elif info.isfifo():
            _make_room(directory, name)
            os.mkfifo(name, 0o600, dir_fd=directory)
            self._finish(directory, name, info)
        else:
            self.skipped.append(member.name or self._target.name)

    def _link(self, parent: int, directory: int, name: str, member: Member) -> None:
        """A hard link to what this archive brought before, and to nothing else."""
        root = parts_of(member.info.name)[: -len(member.parts) or None]
        parts = parts_of(member.info.linkname)
        if not member.parts or parts[: len(root)] != root:
            raise InvalidRequest(
                f"the archive links {member.name!r} to {member.info.linkname[:200]!r} outside"
            )
        other = Member(parts=parts[len(root) :], info=member.info)
        _make_room(directory, name)
        with self._opened_parent(parent, other) as (source, source_name):
            os.link(source_name, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def _finish(self, directory: int, name: str, info: tarfile.TarInfo) -> None:
        """Owner first: chown(2) takes set-user-id bits away."""
        self._own(directory, name, info)
        mask = 0o7777 if self._keep_owners else 0o777
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:  # through /proc, since fchmod(2) takes no O_PATH, and chmod(2) would follow a link put there
            Path(f"/proc/self/fd/{descriptor}").chmod(info.mode & mask)
        finally:
            os.close(descriptor)
        os.utime(name, (info.mtime, info.mtime), dir_fd=directory, follow_symlinks=False)

    def _own(self, directory: int, name: str, info: tarfile.TarInfo) -> None:
        if self._keep_owners:
            os.chown(name, info.uid, info.gid, dir_fd=directory, follow_symlinks=False)


def _make_room(directory: int, name: str) -> None:
    """Take away what stands where something else than a directory is to be, unless it is one."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except IsADirectoryError as error:
        raise IsADirectoryError(error.errno, "a directory is in the way") from error
