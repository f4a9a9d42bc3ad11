"""Write the fuzzers' first inputs, one for each message: ``python -m tests.fuzz.seeds``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypercontainer.guest import schema, wire
from hypercontainer.guest.schema import Boolean, Data, Integer, Kind, Record, Sequence, Text

CORPUS = Path(__file__).with_name("corpus")


def seeds() -> dict[Path, bytes]:
    """Every seed: the body alone for ``reader``, the whole frame for ``frames``."""
    found = {}
    for cls in schema.messages():
        frame = wire.encode(value(Record(cls)), 3)
        inside = wire.unstuff(frame[1:-1]) or b""
        found[CORPUS / "reader" / cls.__name__] = inside[:2] + inside[6:-4]
        found[CORPUS / "frames" / cls.__name__] = b"\x04" + frame
    return found


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
