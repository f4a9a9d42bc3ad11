"""Reading a tar that a stranger makes while it comes: entry by entry, with every name and size bounded.

What a container packs, it may have written byte by byte; so names lead nowhere outside, and extension
records, which must be held as a whole, have a limit.  Formats: ustar, PAX and GNU's long names (POSIX pax;
GNU tar's manual, "Basic Tar Format").
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from hypercontainer.errors import InvalidRequest, Unavailable

MAX_EXTENSION = 1 << 20  # bytes of a PAX or GNU record
MAX_NAME = 4095  # PATH_MAX - 1
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"


class Readable(Protocol):
    """Of a file, all that is used of an archive."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of the archive; ``parts`` are the names below the archive's root, none for the root."""

    parts: tuple[str, ...]
    info: tarfile.TarInfo

    @property
    def name(self) -> str:
        return "/".join(self.parts)


def members(archive: Readable) -> Iterator[Member]:
    """The archive's entries; the first is its root, and all others lie below it.

    Whoever iterates reads each file's ``info.size`` bytes and the padding from ``archive`` before going on.
    """
    root: tuple[str, ...] | None = None
    for info in _headers(archive):
        parts = parts_of(info.name)
        root = parts if root is None else root
        if parts[: len(root)] != root:
            raise InvalidRequest(f"the archive holds {info.name[:200]!r}, which is not below its root")
        yield Member(parts=parts[len(root) :], info=info)


def _headers(archive: Readable) -> Iterator[tarfile.TarInfo]:
    extension: dict[str, str] = {}
    while (block := read_exactly(archive, tarfile.BLOCKSIZE)).strip(b"\0"):
        info = _header(block)
        if info.type in {_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK}:
            extension |= _extension(info, archive)
            continue
        _extend(info, extension)
        extension = {}
        yield info


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise InvalidRequest(f"the archive is damaged: {error}") from error


def _extension(info: tarfile.TarInfo, archive: Readable) -> dict[str, str]:
    if not 0 <= info.size <= MAX_EXTENSION:
        raise InvalidRequest(f"the archive holds a record of {info.size} bytes; {MAX_EXTENSION} are possible")
    data = read_exactly(archive, info.size)
    skip_padding(archive, info.size)
    if info.type in {_LONG_NAME, _LONG_LINK}:
        text = data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        return {"path" if info.type == _LONG_NAME else "linkpath": text}
    return dict(_pax_records(data)) if info.type == _PAX else {}


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """``LENGTH KEY=VALUE\\n``, one after the other (POSIX pax)."""
    while data.strip(b"\0"):
        digits, _, _ = data[:20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or not len(digits) + 3 <= length <= len(data):
            raise InvalidRequest("the archive holds a damaged PAX record")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        data = data[length:]


def _extend(info: tarfile.TarInfo, extension: dict[str, str]) -> None:
    info.name = extension.get("path", info.name)
    info.linkname = extension.get("linkpath", info.linkname)
    try:
        info.size = int(extension.get("size", info.size))
        info.uid = int(extension.get("uid", info.uid))
        info.gid = int(extension.get("gid", info.gid))
        info.mtime = float(extension.get("mtime", info.mtime))
    except ValueError as error:
        raise InvalidRequest(f"the archive's entry {info.name[:200]!r} has a damaged number") from error
    if info.size < 0 or not 0 <= info.mtime < 1 << 40:
        raise InvalidRequest(f"the archive's entry {info.name[:200]!r} has an impossible number")


def parts_of(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if name.startswith("/") or ".." in parts or "\0" in name or len(name) > MAX_NAME:
        raise InvalidRequest(f"the archive holds the name {name[:200]!r}, which leads outside")
    return parts


def read_exactly(archive: Readable, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = archive.read(size - len(data))
        if not piece:
            raise Unavailable("the archive ends early", hint="the copy is not complete")
        data += piece
    return bytes(data)


def skip_padding(archive: Readable, size: int) -> None:
    read_exactly(archive, -size % tarfile.BLOCKSIZE)
