"""What a machine boots: the kernel of a target, and an initramfs that holds hyperstart.

Both come with the package in ``hypercontainer/data``; ``make kernel`` and ``make guest`` put them there.
The initramfs is packed here (newc, Documentation/driver-api/early-userspace/buffer-format.rst of Linux)
and kept in a cache by the hash of what is in it; the same hyperstart gives the same bytes everywhere.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import hypercontainer
from hypercontainer.config import Paths
from hypercontainer.errors import Unavailable
from hypercontainer.files import identity, write_atomically

DATA = Path(hypercontainer.__file__).parent / "data"
KERNEL_FILES = ("vmlinux", "linux")  # a target's directory has one of them
DIRECTORIES = ("dev", "proc", "sys", "run")

# A guest whose kernel has gone wrong ends, instead of limping on; hyperd sees that and says so.
KERNEL_ARGUMENTS = ("oops=panic",)


@dataclass(frozen=True)
class Kernel:
    """A kernel on disk."""

    path: Path

    @cached_property
    def version(self) -> str:
        """As ``uname -r`` will say; "unknown" when the file does not tell."""
        return _noted_version(self.path) or _searched_version(self.path) or "unknown"


def find_kernel(target: str, *, override: str | Path = "") -> Kernel:
    """The kernel of ``target`` (a name of guest/kernel/targets.py), or the one that ``override`` names.

    ``override`` is a kernel, or a directory that holds one for each target as ``data/kernel`` does.
    Raises Unavailable when it is not there.
    """
    path = Path(override or DATA / "kernel")
    if path.is_dir() or not override:
        names = [path / target / name for name in KERNEL_FILES]
        path = next((name for name in names if name.is_file()), path / target)
    if not path.is_file():
        hint = "see the key kernel in hyperd.toml" if override else "make kernel"
        raise Unavailable(f"there is no {target} kernel at {path}", hint=hint)
    return Kernel(path.absolute())


def find_hyperstart(override: str | Path = "") -> Path:
    """The hyperstart that the package carries, or ``override``; raises Unavailable when it is not there."""
    path = Path(override or DATA / "hyperstart")
    if not path.is_file():
        raise Unavailable(f"there is no hyperstart at {path}", hint="make guest")
    return path.absolute()


def make_initramfs(cache: Path | None = None, *, hyperstart: str | Path = "") -> Path:
    """An initramfs with hyperstart as ``/init``, from ``cache`` when it was packed before.

    Not compressed: it is small, and the guest would have to undo it at each boot.
    """
    program = find_hyperstart(hyperstart)
    directory = (cache or Paths.default().cache) / "initramfs"
    path = directory / _name(program, identity(program))
    return path if path.exists() else _keep(pack(program.read_bytes()), directory)


@functools.lru_cache(maxsize=4)
def _name(program: Path, _identity: str) -> str:
    """In the cache.  Every start asks for it, and to pack and hash takes half a millisecond."""
    return _named(pack(program.read_bytes()))


def _named(archive: bytes) -> str:
    return f"{hashlib.sha256(archive).hexdigest()}.cpio"


def _keep(archive: bytes, directory: Path) -> Path:
    path = directory / _named(archive)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(path, archive)
    except OSError as error:
        raise Unavailable(f"cannot keep the initramfs {path}: {error.strerror}") from error
    return path


def pack(init: bytes) -> bytes:
    """A newc archive of ``/init``, the directories, and the console that the kernel opens for it."""
    entries = [_entry(name, stat.S_IFDIR | 0o755) for name in DIRECTORIES]
    entries.append(_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(_entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3)))
    entries.append(_entry("init", stat.S_IFREG | 0o755, data=init))
    entries.append(_entry("TRAILER!!!", 0))
    return b"".join(entries)


def _entry(name: str, mode: int, *, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One member: root's, of 1970, with the inode number 0 (nothing here has two links)."""
    path = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    numbers = (0, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(head + path) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _noted_version(path: Path) -> str:
    """From the ``kernel.json`` that the build leaves beside the kernel."""
    try:
        note = json.loads((path.parent / "kernel.json").read_bytes())
    except (OSError, ValueError):
        return ""
    version = note.get("release") if isinstance(note, dict) else None
    return version if isinstance(version, str) else ""


def _searched_version(path: Path) -> str:
    """From ``linux_banner`` in the image (init/version-timestamp.c)."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
            found = re.search(rb"Linux version ([\w.+~-]+) ", image)
            return found[1].decode() if found else ""
    except (OSError, ValueError):  # unreadable, or empty
        return ""
