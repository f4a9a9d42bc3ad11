"""Tar, read and written as bytes: the entries of a layer, and the one plain form that we hand on.

Reading accepts what image builders write: v7, ustar, GNU (long names, base-256 numbers, old sparse files)
and PAX (long everything, extended attributes, sparse files of formats 0.0, 0.1 and 1.0).  Names are bytes and
stay so: they may hold newlines and need not be UTF-8.  A tar is hostile: every size is checked against what
is there, extension records are bounded, and what is written is made afresh from checked values, so the
program that reads it (mksquashfs) never sees a stranger's header.

Sources: POSIX pax (IEEE 1003.1), GNU tar's manual ("Basic Tar Format", "Storing Sparse Files"), star(5).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from mmap import mmap

import msgspec

from hypercontainer.errors import InvalidRequest

BLOCK = 512
MAX_EXTENSION = 1 << 20  # bytes of a PAX or GNU extension record, as Go's archive/tar has it
MAX_EXPANDED = 64 << 30  # bytes a sparse file may claim
MAX_LINK = 4095  # PATH_MAX - 1 (limits.h)
MAX_MTIME = (1 << 32) - 1  # squashfs keeps unsigned 32-bit seconds
MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "no change" to chown(2)

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (b"%d" % n for n in range(7))
_LINKS = (HARD_LINK, SYMLINK)
_REGULAR = (FILE, b"\0", b"7", b"S")
_WITHOUT_DATA = (HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)

_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12s")
# Of global records only these count: one global attribute on each of a million files would be a bomb.
_GLOBAL = (b"uid", b"gid", b"mtime")
_DECIMAL = re.compile(rb"-?\d{1,20}(?:\.\d*)?")
_XATTR = b"SCHILY.xattr."
# squashfs keeps these name spaces; overlay's own attributes would change what the guest's overlayfs does
_KEPT_XATTRS = (b"user.", b"trusted.", b"security.")
_DROPPED_XATTRS = (b"trusted.overlay.", b"user.overlay.")

Segments = tuple[tuple[int, int, int], ...]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One member of a tar, checked."""

    name: bytes  # as it stands in the archive
    kind: bytes  # FILE ... FIFO
    mode: int
    uid: int
    gid: int
    size: int  # bytes of content, holes included
    mtime: int  # seconds, within what squashfs keeps
    link: bytes
    major: int
    minor: int
    data: int  # where the content starts in the archive
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    segments: Segments | None = None  # of a sparse file: (offset in file, offset in archive, bytes)


def entries(archive: mmap | bytes, *, check: Callable[[], None] = lambda: None) -> Iterator[Entry]:
    """The entries of ``archive``, in order; raises `InvalidRequest` at the first thing that is wrong.

    ``check`` is called now and then and may raise, to end the reading.
    """
    reader = _Reader(archive)
    for count, entry in enumerate(reader.read()):
        if count % 1024 == 0:
            check()
        yield entry


class _Reader:
    def __init__(self, archive: mmap | bytes) -> None:
        self.archive = archive
        self.end = len(archive)
        self.at = 0
        self.globals: dict[bytes, bytes] = {}

    def read(self) -> Iterator[Entry]:
        extension = _Extension()
        while (header := self._header()) is not None:
            kind = header[7]
            if kind in (b"x", b"X"):
                extension.read_pax(self._extension_data(header))
            elif kind == b"g":
                self._globals(self._extension_data(header))
            elif kind == b"L":
                extension.name = _cut(self._extension_data(header))
            elif kind == b"K":
                extension.link = _cut(self._extension_data(header))
            elif kind == b"V":  # a volume's label
                self._skip(_number(header[4], "size"))
            else:
                yield self._entry(header, extension)
                extension = _Extension()
        if extension.name or extension.link or extension.pax:
            raise InvalidRequest("the archive ends between an extension record and its entry")

    def _header(self) -> tuple[bytes, ...] | None:
        block = self.archive[self.at : self.at + BLOCK]
        if not block or not any(block):
            return None
        if len(block) < BLOCK:
            raise InvalidRequest(f"the archive ends in the middle of a header, at byte {self.at}")
        if _checksum(block) != _number(block[148:156], "checksum"):
            raise InvalidRequest(f"byte {self.at} is no tar header: its checksum is wrong")
        self.at += BLOCK
        return _HEADER.unpack(block)

    def _extension_data(self, header: tuple[bytes, ...]) -> bytes:
        size = _number(header[4], "size")
        if size > MAX_EXTENSION:
            raise InvalidRequest(f"an extension record claims {size} bytes; the limit is {MAX_EXTENSION}")
        start = self.at
        self._skip(size)
        return self.archive[start : start + size]

    def _skip(self, size: int) -> None:
        if size < 0 or self.at + size > self.end:
            raise InvalidRequest(
                f"the archive ends early: an entry has {size} bytes, {self.end - self.at} are left"
            )
        self.at += (size + BLOCK - 1) & -BLOCK

    def _globals(self, data: bytes) -> None:
        self.globals.update((key, value) for key, value in _pax_records(data) if key in _GLOBAL)

    def _entry(self, header: tuple[bytes, ...], extension: _Extension) -> Entry:
        pax = {**self.globals, **extension.pax} if self.globals else extension.pax
        name = extension.name or pax.get(b"path") or _header_name(header)
        kind = header[7]
        size = _pax_number(pax, b"size", header[4], 1 << 62)
        if kind in (FILE, b"\0") and name.endswith(b"/"):
            kind = DIRECTORY  # v7 tar has no other way to say it
        if kind == b"D":  # GNU dumpdir: a directory with a list of names
            kind = DIRECTORY
        elif kind in _WITHOUT_DATA:
            size = 0
        elif kind not in _REGULAR:
            raise InvalidRequest(f"{name[:200]!r} is of type {kind!r}, which no image has")
        return self._finished(header, pax, extension, name, kind, size)

    def _finished(
        self,
        header: tuple[bytes, ...],
        pax: dict[bytes, bytes],
        extension: _Extension,
        name: bytes,
        kind: bytes,
        size: int,
    ) -> Entry:
        segments: Segments | None = None
        content = size if kind in _REGULAR else 0
        if kind == b"S":
            segments, content = self._old_sparse(size)
        elif kind in _REGULAR and (b"GNU.sparse.size" in pax or b"GNU.sparse.realsize" in pax):
            segments, content = self._pax_sparse(pax, size)
            name = pax.get(b"GNU.sparse.name") or name
        data = self.at
        if segments is None or kind != b"S":
            self._skip(size)
        is_device = kind in (CHARACTER, BLOCK_DEVICE)
        return Entry(
            name=_checked_name(name),
            kind=FILE if kind in _REGULAR else kind,
            mode=_number(header[1], "mode") & 0o7777,
            uid=_pax_number(pax, b"uid", header[2], MAX_ID),
            gid=_pax_number(pax, b"gid", header[3], MAX_ID),
            size=content,
            mtime=_mtime(pax, header[5]),
            link=_link(extension.link or pax.get(b"linkpath") or _cut(header[8]), name)
            if kind in _LINKS
            else b"",
            major=_device(header[13], 12) if is_device else 0,
            minor=_device(header[14], 20) if is_device else 0,
            data=data,
            xattrs=_xattrs(pax) if pax else (),
            segments=segments,
        )

    def _old_sparse(self, size: int) -> tuple[Segments, int]:
        """GNU format: the map is in the header and in blocks that follow it."""
        header = self.archive[self.at - BLOCK : self.at]
        pairs = _sparse_pairs(header[386:482])
        more, content = header[482], _number(header[483:495], "size")
        while more:
            block = self.archive[self.at : self.at + BLOCK]
            self._skip(BLOCK)
            pairs += _sparse_pairs(block[:504])
            more = block[504]
        segments = _segments(pairs, self.at, size, content)
        self._skip(size)
        return segments, content

    def _pax_sparse(self, pax: dict[bytes, bytes], size: int) -> tuple[Segments, int]:
        content = _decimal(pax.get(b"GNU.sparse.realsize") or pax[b"GNU.sparse.size"])
        if pax.get(b"GNU.sparse.major") == b"1":
            return self._sparse_map_in_data(size, content)
        numbers = [_decimal(number) for number in pax.get(b"GNU.sparse.map", b"").split(b",") if number]
        return _segments(
            list(zip(numbers[::2], numbers[1::2], strict=False)), self.at, size, content
        ), content

    def _sparse_map_in_data(self, size: int, content: int) -> tuple[Segments, int]:
        """Format 1.0: decimal lines (count, then offset and size of each), padded to a block."""
        limit = min(size, MAX_EXTENSION)
        text = self.archive[self.at : self.at + limit]
        count_line, _, rest = text.partition(b"\n")
        count = _decimal(count_line)
        lines = rest.split(b"\n", 2 * count)[: 2 * count] if count <= limit else []
        if len(lines) != 2 * count:
            raise InvalidRequest("a sparse file's map is cut off or too long")
        numbers = [_decimal(line) for line in lines]
        length = len(count_line) + 1 + sum(len(line) + 1 for line in lines)
        length = (length + BLOCK - 1) & -BLOCK
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        return _segments(pairs, self.at + length, size - length, content), content


class _Extension:
    """What extension records said about the entry that follows them."""

    __slots__ = ("link", "name", "pax")

    def __init__(self) -> None:
        self.name = b""
        self.link = b""
        self.pax: dict[bytes, bytes] = {}

    def read_pax(self, data: bytes) -> None:
        sparse: list[bytes] = []
        for key, value in _pax_records(data):
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):  # format 0.0: repeated, in order
                sparse.append(value)
            self.pax[key] = value
        if sparse:
            self.pax[b"GNU.sparse.map"] = b",".join(sparse)


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data) and data[at] != 0:
        space = data.find(b" ", at, at + 20)
        if space < 0 or not data[at:space].isdigit():
            raise InvalidRequest("a PAX record has no length")
        end = at + int(data[at:space])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or not equals or data[end - 1] != 0x0A:
            raise InvalidRequest("a PAX record is damaged")
        yield key, value
        at = end


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 256


def _number(field: bytes, what: str) -> int:
    """A numeric field: octal text, or GNU's base-256 when the top bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(
            bytes([field[0] & 0x7F if field[0] != 0xFF else 0xFF]) + field[1:], "big", signed=True
        )
    text = field.partition(b"\0")[0].strip()
    if not text:
        return 0
    try:
        return int(text, 8) if text.isdigit() else _bad_number(field, what)
    except ValueError:
        return _bad_number(field, what)


def _bad_number(field: bytes, what: str) -> int:
    raise InvalidRequest(f"a header's {what} is no number: {field!r}")


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise InvalidRequest(f"{text[:40]!r} is no number")
    return int(text)


def _pax_number(pax: dict[bytes, bytes], key: bytes, field: bytes, limit: int) -> int:
    value = _decimal(pax[key]) if pax.get(key) else _number(field, key.decode())
    if not 0 <= value <= limit:
        raise InvalidRequest(f"a header's {key.decode()} of {value} is out of range")
    return value


def _mtime(pax: dict[bytes, bytes], field: bytes) -> int:
    text = pax.get(b"mtime")
    if text is None:
        seconds = _number(field, "mtime")
    elif _DECIMAL.fullmatch(text):
        seconds = int(text.partition(b".")[0])
    else:
        raise InvalidRequest(f"{text[:40]!r} is no time")
    return min(max(seconds, 0), MAX_MTIME)


def _device(field: bytes, bits: int) -> int:
    number = _number(field, "device number")
    if not 0 <= number < 1 << bits:
        raise InvalidRequest(f"a device number of {number} does not fit Linux")
    return number


def _cut(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _header_name(header: tuple[bytes, ...]) -> bytes:
    name = _cut(header[0])
    if header[9] == b"ustar\0" and (prefix := _cut(header[15])):
        return prefix + b"/" + name
    return name


def _checked_name(name: bytes) -> bytes:
    if b"\0" in name or len(name) > MAX_LINK:
        raise InvalidRequest(f"an entry has an impossible name: {name[:100]!r}")
    return name


def _link(link: bytes, name: bytes) -> bytes:
    if not link or b"\0" in link or len(link) > MAX_LINK:
        raise InvalidRequest(f"{name[:200]!r} is a link to an impossible name: {link[:100]!r}")
    return link


def _xattrs(pax: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    found = []
    for key, value in pax.items():
        name = key.removeprefix(_XATTR)
        if name == key or not name.startswith(_KEPT_XATTRS) or name.startswith(_DROPPED_XATTRS):
            continue
        if len(name) > 255 or len(value) > 65536:  # XATTR_NAME_MAX, XATTR_SIZE_MAX (limits.h)
            raise InvalidRequest(f"the extended attribute {name[:80]!r} is larger than Linux has them")
        found.append((name, value))
    return tuple(found)


def _sparse_pairs(block: bytes) -> list[tuple[int, int]]:
    fields = [(block[at : at + 12], block[at + 12 : at + 24]) for at in range(0, len(block) - 23, 24)]
    return [(_number(at, "offset"), _number(size, "size")) for at, size in fields if at[0] or size[0]]


def _segments(pairs: list[tuple[int, int]], start: int, size: int, content: int) -> Segments:
    """Checked: in order, within the file, and as many bytes as the archive has."""
    if content > MAX_EXPANDED:
        raise InvalidRequest(f"a sparse file claims {content} bytes; the limit is {MAX_EXPANDED}")
    segments, last, taken = [], 0, 0
    for offset, length in pairs:
        if offset < last or length < 0 or offset + length > content or taken + length > size:
            raise InvalidRequest("a sparse file's map makes no sense")
        segments.append((offset, start + taken, length))
        last, taken = offset + length, taken + length
    return tuple(segments)


# Writing: ustar, with a PAX record before it when a value doesn't fit.

_USTAR = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")


def header(entry: Entry, *, name: bytes, kind: bytes, link: bytes) -> bytes:
    """The header blocks for ``entry`` under another ``name``, as ``kind`` with ``link``."""
    size = entry.size if kind == FILE else 0
    records: list[tuple[bytes, bytes]] = []
    if len(name) > 99:
        records.append((b"path", name))
    if len(link) > 99:
        records.append((b"linkpath", link))
    if entry.uid > 0o7777777:
        records.append((b"uid", b"%d" % entry.uid))
    if entry.gid > 0o7777777:
        records.append((b"gid", b"%d" % entry.gid))
    if size > 0o77777777777:
        records.append((b"size", b"%d" % size))
    if kind != HARD_LINK:
        records += [(_XATTR + key, value) for key, value in entry.xattrs]
    block = _ustar(entry, name, kind, link, size)
    return _pax(records) + block if records else block


def _ustar(entry: Entry, name: bytes, kind: bytes, link: bytes, size: int) -> bytes:
    block = _USTAR.pack(
        name[:99],
        b"%07o" % entry.mode,
        b"%07o" % (entry.uid if entry.uid <= 0o7777777 else 0),
        b"%07o" % (entry.gid if entry.gid <= 0o7777777 else 0),
        b"%011o" % (size if size <= 0o77777777777 else 0),
        b"%011o" % entry.mtime,
        b"        ",
        kind,
        link[:99],
        b"ustar\x0000",
        b"",
        b"",
        b"%07o" % entry.major,
        b"%07o" % entry.minor,
        b"",
    )
    return b"%s%06o\0 %s" % (block[:148], sum(block), block[156:])


def _pax(records: list[tuple[bytes, bytes]]) -> bytes:
    data = b"".join(_pax_record(key, value) for key, value in records)
    entry = Entry(b"", b"x", 0o644, 0, 0, len(data), 0, b"", 0, 0, 0)
    return _ustar(entry, b"PaxHeader", b"x", b"", len(data)) + data + padding(len(data))


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = len(key) + len(value) + 3
    length = body + len(str(body))
    length = body + len(str(length))  # the length counts its own digits
    return b"%d %s=%s\n" % (length, key, value)


def padding(size: int) -> bytes:
    """What fills the last block of ``size`` bytes."""
    return b"\0" * (-size % BLOCK)


END = b"\0" * (2 * BLOCK)
