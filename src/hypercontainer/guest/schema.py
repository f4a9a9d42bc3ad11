"""The dataclasses of ``protocol.py`` as plain data: what a codec or a generator walks over.

Reflection stays here, so that ``wire.py`` builds each codec once and never looks at a type again.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypercontainer.guest import protocol
from hypercontainer.guest.protocol import Message, Part

INTEGER_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i32": 4}
CONSTANTS = (
    "PROTOCOL_VERSION",
    "FRAME_SIZE",
    "STREAM_CHUNK",
    "STREAM_BUFFER",
    "NO_SLOT",
    "SHARE_SLOT",
    "NO_OWNER",
)


@dataclass(frozen=True, slots=True)
class Integer:
    name: str  # a key of INTEGER_SIZES


@dataclass(frozen=True, slots=True)
class Boolean:
    pass


@dataclass(frozen=True, slots=True)
class Text:
    pass


@dataclass(frozen=True, slots=True)
class Data:
    pass


@dataclass(frozen=True, slots=True)
class Record:
    cls: type[Any]


@dataclass(frozen=True, slots=True)
class Sequence:
    item: Kind


Kind = Integer | Boolean | Text | Data | Record | Sequence
_PLAIN: dict[Any, Kind] = {bool: Boolean(), str: Text(), bytes: Data()}


_fields: dict[type[Any], tuple[tuple[str, Kind], ...]] = {}


def fields(cls: type[Any]) -> tuple[tuple[str, Kind], ...]:
    """The fields of a message or part in the order of the wire; TypeError for what has no wire form."""
    if cls not in _fields:
        _fields[cls] = tuple(_reflect(cls))
    return _fields[cls]


def _reflect(cls: type[Any]) -> Iterator[tuple[str, Kind]]:
    hints = typing.get_type_hints(cls, vars(protocol), include_extras=True)
    for field in dataclasses.fields(cls):
        yield field.name, _kind(hints[field.name])


def _kind(hint: Any) -> Kind:
    if hint in _PLAIN:
        return _PLAIN[hint]
    if typing.get_origin(hint) is tuple:
        return _sequence(typing.get_args(hint))
    if typing.get_origin(hint) is typing.Annotated and hint.__metadata__[0] in INTEGER_SIZES:
        return Integer(hint.__metadata__[0])
    if isinstance(hint, type) and issubclass(hint, Part) and dataclasses.is_dataclass(hint):
        return Record(hint)
    raise TypeError(f"{hint!r} has no form on the wire")


def _sequence(arguments: tuple[Any, ...]) -> Sequence:
    if len(arguments) != 2 or arguments[1] is not Ellipsis:
        raise TypeError(f"a list is tuple[T, ...], not tuple{arguments!r}")
    return Sequence(_kind(arguments[0]))


def since(cls: type[Any], name: str) -> int:
    """The version that appended the field; 0: it was always there."""
    found: int = next(each for each in dataclasses.fields(cls) if each.name == name).metadata.get("since", 0)
    return found


def least_size(kind: Kind) -> int:
    """The fewest bytes that a value takes, from a peer of any version."""
    match kind:
        case Integer(name):
            return INTEGER_SIZES[name]
        case Boolean():
            return 1
        case Record(cls):
            return 4 + sum(least_size(inner) for name, inner in fields(cls) if not since(cls, name))
        case _:
            return 4  # a length or a count


def messages() -> list[type[Message]]:
    """Every message by its number."""
    return [cls for _, cls in sorted(Message.registry.items())]


def parts() -> list[type[Part]]:
    """Every part that a message holds, each after the parts that it holds itself."""
    found: dict[type[Part], None] = {}
    for cls in messages():
        _collect(cls, found)
    return list(found)


def _collect(cls: type[Any], found: dict[type[Part], None]) -> None:
    for _, kind in fields(cls):
        inner = kind.item if isinstance(kind, Sequence) else kind
        if isinstance(inner, Record) and inner.cls not in found:
            _collect(inner.cls, found)
            found[inner.cls] = None


def describe(kind: Kind) -> str:
    """The kind as ``protocol.py`` writes it, but for the case of the integers."""
    match kind:
        case Integer(name):
            return name
        case Boolean():
            return "bool"
        case Text():
            return "str"
        case Data():
            return "bytes"
        case Record(cls):
            return cls.__name__
        case Sequence(item):
            return f"tuple[{describe(item)}, ...]"


def newer_fields(value: Any, version: int) -> Iterator[str]:
    """The fields of a message that say something which a peer of ``version`` does not know."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if field.metadata.get("since", 0) > version and inner != field.default:
            yield f"{type(value).__name__}.{field.name}"
        for each in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(each, Part) and dataclasses.is_dataclass(each):
                yield from newer_fields(each, version)


def layout() -> dict[str, Any]:
    """All that a peer can tell of the protocol, as JSON has it: for the record of what was released."""
    return {
        "constants": {name: getattr(protocol, name) for name in CONSTANTS},
        "classes": {cls.__name__: _layout_of(cls) for cls in (*parts(), *messages())},
    }


def _layout_of(cls: type[Any]) -> dict[str, Any]:
    return {
        "number": getattr(cls, "number", None),
        "fields": [[name, describe(kind)] for name, kind in fields(cls)],
    }
