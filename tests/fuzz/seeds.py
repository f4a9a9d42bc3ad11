"""Write the fuzzers' first inputs: ``python -m tests.fuzz.seeds``."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from hypercontainer.guest import schema, wire
from hypercontainer.guest.schema import Boolean, Data, Integer, Kind, Record, Sequence, Text

CORPUS = Path(__file__).with_name("corpus")


def seeds() -> dict[Path, bytes]:
    """Every seed: of each message the body alone for ``reader`` and the frame for ``frames``; tar streams."""
    found = {}
    for cls in schema.messages():
        frame = wire.encode(value(Record(cls)), 3)
        inside = wire.unstuff(frame[1:-1]) or b""
        found[CORPUS / "reader" / cls.__name__] = inside[:2] + inside[6:-4]
        found[CORPUS / "frames" / cls.__name__] = b"\x04" + frame
    return found | {CORPUS / "tar" / name: data for name, data in tars().items()}


def tars() -> dict[str, bytes]:
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    return {name: _tar(format) for name, format in formats.items()} | {"none": b"", "zeros": bytes(1024)}


def _tar(format: int) -> bytes:
    """An entry of each type, and names that need what the format has for long ones."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=format) as tar:
        for kind in (b"0", b"1", b"2", b"3", b"4", b"5", b"6"):
            info = tarfile.TarInfo("d/" + kind.decode())
            info.type, info.linkname, info.uname, info.devmajor = kind, "d/0", "joe", 1
            info.pax_headers = {"SCHILY.xattr.user.x": "y", "mtime": "-1.5"}
            info.size = 3 if kind == b"0" else 0
            tar.addfile(info, io.BytesIO(b"abc"))
        tar.addfile(tarfile.TarInfo("long/" * 21 + "name"))
    return target.getvalue()


def value(kind: Kind) -> Any:
    match kind:
        case Integer():
            return 0xC0
        case Boolean():
            return True
        case Text():
            return "text"
        case Data():
            return b"\xc0\xdb\xdc"
        case Record(cls):
            return cls(*(value(inner) for _, inner in schema.fields(cls)))
        case Sequence(item):
            return (value(item), value(item))


if __name__ == "__main__":
    for path, data in seeds().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
