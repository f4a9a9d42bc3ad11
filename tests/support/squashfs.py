"""What is in a squashfs, by unsquashfs: an implementation that is not ours."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Node:
    kind: str  # as in ls -l
    mode: int
    uid: int
    gid: int
    mtime: int
    content: bytes = b""  # of a file, or the target of a link
    size: int = 0
    device: tuple[int, int] = (0, 0)
    links: int = 1
    xattrs: tuple[tuple[str, bytes], ...] = ()


def read_disk(disk: Path) -> dict[bytes, Node]:
    """Each name with what it is, the root left out; owners and devices need root."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "out"
        command: list[str | Path] = ["unsquashfs", "-quiet", "-no-progress", "-xattrs", "-d", target, disk]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == 0, done.stderr
        found: dict[bytes, Node] = {}
        walk(os.fsencode(target), found)
        return found


def walk(directory: bytes, found: dict[bytes, Node], prefix: bytes = b"") -> None:
    for item in os.scandir(directory):
        name = prefix + item.name
        found[name] = _node(item.path)
        if item.is_dir(follow_symlinks=False):
            walk(item.path, found, name + b"/")


def _node(path: bytes) -> Node:
    status = os.lstat(path)
    kind = stat.filemode(status.st_mode)[0]
    content = b""
    if kind == "-":
        content = Path(os.fsdecode(path)).read_bytes() if status.st_size < 1 << 28 else b"(large)"
    elif kind == "l":
        content = os.readlink(path)  # noqa: PTH115  (a Path would have to decode the name)
    return Node(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=int(status.st_mtime),
        content=content,
        size=status.st_size if kind == "-" else 0,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in "bc" else (0, 0),
        links=status.st_nlink if kind != "d" else 1,
        xattrs=tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        ),
    )
