"""A layer's blob as a plain tar file: decompressed when it must be, and verified by its diff id.

Which compression it is, its first bytes say: media types are often wrong.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from hypercontainer.errors import InvalidRequest, RegistryError
from hypercontainer.images.work import Stop
from hypercontainer.model.image import Digest, short

CHUNK = 1 << 20

GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh"
_SKIPPABLE = b"\x2a\x4d\x18"  # after 0x50 to 0x5f: a zstd frame without content (RFC 8878 section 3.1.2)
_MAX_WINDOW = 1 << 27  # bytes: what a zstd frame may make us allocate (zstd --long=27)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of an image, as it came."""

    path: Path
    digest: Digest  # of the file at path, verified when it was written
    diff_id: Digest | None  # of the uncompressed tar, as the image says; None: nobody says yet


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLayer:
    """An uncompressed tar that is what its image says it is."""

    path: Path
    size: int
    diff_id: Digest


def plain(stop: Stop, layer: Layer, spool: Path, *, is_fresh: bool = False) -> PlainLayer:
    """The tar of ``layer``: its file itself, or ``spool``, which is made when that is compressed.

    ``is_fresh``: the file's digest was computed just now, so an uncompressed one needs no second look.
    """
    with layer.path.open("rb") as blob:
        if is_compressed(blob):
            found, size = _spool(stop, blob, spool)
            path = spool
        else:
            found = layer.digest if is_fresh else hash_file(stop, blob)
            path, size = layer.path, layer.path.stat().st_size
    if layer.diff_id is not None and found != layer.diff_id:
        raise RegistryError(
            f"layer {short(layer.diff_id)} is corrupt: unpacked it is {found}, "
            f"the image's config says {layer.diff_id}"
        )
    return PlainLayer(path=path, size=size, diff_id=found)


def hash_file(stop: Stop, file: BinaryIO) -> Digest:
    digest = hashlib.sha256()
    for data in _read_all(stop, file):
        digest.update(data)
    return Digest(f"sha256:{digest.hexdigest()}")


def _spool(stop: Stop, blob: BinaryIO, spool: Path) -> tuple[Digest, int]:
    digest, size = hashlib.sha256(), 0
    with spool.open("wb") as target:
        for data in read_plain(stop, blob):
            digest.update(data)
            size += target.write(data)
    return Digest(f"sha256:{digest.hexdigest()}"), size


def read_plain(stop: Stop, file: BinaryIO) -> Iterator[bytes]:
    """The bytes of ``file``, decompressed; raises InvalidRequest when they are damaged."""
    magic = _magic(file)
    reader = _read_compressed(stop, file, magic) if magic else _read_all(stop, file)
    try:
        yield from reader
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise InvalidRequest(f"the compressed data is damaged: {error}") from error


def is_compressed(file: BinaryIO) -> bool:
    return bool(_magic(file))


def _magic(file: BinaryIO) -> bytes:
    start = file.read(8)
    file.seek(-len(start), 1)
    if start[1:4] == _SKIPPABLE and start[0] & 0xF0 == 0x50:
        return ZSTD
    return next((magic for magic in (GZIP, ZSTD, XZ, BZIP2) if start.startswith(magic)), b"")


def _read_all(stop: Stop, file: IO[bytes]) -> Iterator[bytes]:
    while data := file.read(CHUNK):
        stop.check()
        yield data


def _read_compressed(stop: Stop, file: BinaryIO, magic: bytes) -> Iterator[bytes]:
    if magic == GZIP:
        return _read_gzip(stop, file)
    if magic == ZSTD:
        return _read_zstd(stop, file)
    if magic == XZ:
        return _read_all(stop, lzma.open(file))
    return _read_bzip2(stop, file)


def _read_gzip(stop: Stop, file: BinaryIO) -> Iterator[bytes]:
    """All members of a gzip file (RFC 1952 section 2.2), a bounded piece at a time."""
    member = zlib.decompressobj(31)
    while data := file.read(CHUNK // 4):
        while data:
            stop.check()
            if member.eof:
                if not data.startswith(GZIP):
                    return  # padding after the last member: gzip(1) ignores it too
                member = zlib.decompressobj(31)
            yield member.decompress(data, CHUNK)
            data = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        raise EOFError("it ends early")


def _read_bzip2(stop: Stop, file: BinaryIO) -> Iterator[bytes]:
    with bz2.open(file) as reader:
        try:
            while data := reader.read(CHUNK):
                stop.check()
                yield data
        except OSError as error:  # bz2's word for damaged data
            raise EOFError(str(error)) from error


def _read_zstd(stop: Stop, file: BinaryIO) -> Iterator[bytes]:
    import zstandard  # late: most layers are gzip

    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    reader = decompressor.stream_reader(file, read_across_frames=True, closefd=False)
    try:
        while data := reader.read(CHUNK):
            stop.check()
            yield data
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error
