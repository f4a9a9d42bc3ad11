"""Messages to frames and back.  No I/O here; the format is told in ``protocol.py``.

A frame that is torn, too long or fails its checksum is dropped and counted: a dying peer leaves such.
A frame with a good checksum and a bad body was made so on purpose or by a fault: GuestError.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from hypercontainer.errors import GuestError, InvalidRequest
from hypercontainer.guest import schema
from hypercontainer.guest.protocol import FRAME_SIZE, PROTOCOL_VERSION, Hello, Message, Welcome

END = b"\xc0"
ESC = b"\xdb"
ESC_END = b"\xdb\xdc"
ESC_ESC = b"\xdb\xdd"

_HEAD = struct.Struct("<HI")
_U32 = struct.Struct("<I")
_STRUCTS = {name: struct.Struct("<" + code) for name, code in zip(
    ("u8", "u16", "u32", "u64", "i32"), "BHIQi", strict=True)}  # fmt: skip
_SMALLEST = _HEAD.size + _U32.size
_STUFFED_LIMIT = 2 * FRAME_SIZE
_VERSIONS = range(1, 1 << 16)  # anything else is no version, but what some other program says

Write = Callable[[list[bytes], Any], None]
Read = Callable[[bytes, int], tuple[Any, int]]  # body and position to value and next position


class BadBody(ValueError):
    """The body of a frame is not what its message number says."""


# --- Frames ---


def encode(message: Message, request_id: int = 0) -> bytes:
    """The frame of ``message``, ready to send; raises InvalidRequest for what no frame can carry."""
    pieces = [_HEAD.pack(message.number, request_id)]
    try:
        _codec(type(message))[0](pieces, message)
    except (struct.error, ValueError) as error:
        raise InvalidRequest(f"{type(message).__name__} cannot be sent to the guest: {error}") from error
    body = b"".join(pieces)
    if len(body) + _U32.size > FRAME_SIZE:
        raise InvalidRequest(
            f"{type(message).__name__} is too large for the guest: {len(body)} of {FRAME_SIZE} bytes",
            hint="fewer or shorter arguments, variables and files",
        )
    return stuff(body + _U32.pack(zlib.crc32(body)))


def stuff(frame: bytes) -> bytes:
    """END, the bytes with no END inside, END.  The first ends what a torn frame may have left."""
    return END + frame.replace(ESC, ESC_ESC).replace(END, ESC_END) + END


def unstuff(stuffed: bytes) -> bytes | None:
    """The bytes between two ENDs, or None when an ESC is followed by what it must not be."""
    escapes = stuffed.count(ESC)
    if not escapes:
        return stuffed
    frame = stuffed.replace(ESC_END, END).replace(ESC_ESC, ESC)
    return frame if len(stuffed) - len(frame) == escapes else None  # a good escape is two bytes for one


def decode(frame: bytes, *, exact: bool = True) -> tuple[Message, int]:
    """The message and request id in a whole frame, its checksum taken off; raises GuestError.

    Not ``exact``, from a peer of another version, fields may be missing at the end, or be too many.
    """
    number, request_id = _HEAD.unpack_from(frame)
    cls = Message.registry.get(number)
    if cls is None:
        raise GuestError(f"the guest sent message number {number}, which there is not")
    if cls in (Hello, Welcome):
        exact = _version(cls, frame) == PROTOCOL_VERSION
    try:
        message, end = _codec(cls, exact)[1](frame, _HEAD.size)
        if exact and end != len(frame):
            raise BadBody(f"{len(frame) - end} bytes after the last field")
    except (struct.error, ValueError) as error:
        raise GuestError(f"the guest sent a bad {cls.__name__}: {error}") from error
    assert isinstance(message, Message)
    return message, request_id


def _version(cls: type[Message], frame: bytes) -> int:
    """Hello and Welcome begin with it, in all versions."""
    if len(frame) < _HEAD.size + _U32.size:
        raise GuestError(f"the guest sent a bad {cls.__name__}: no version")
    version: int = _U32.unpack_from(frame, _HEAD.size)[0]
    if version not in _VERSIONS:
        raise GuestError(
            f"the machine speaks another protocol (version {version})",
            hint="stop the pod and start it again: its machine was started by another program",
        )
    return version


class FrameParser:
    """Bytes in chunks of any size to messages; holds at most one frame."""

    def __init__(self) -> None:
        self.exact = True  # the peer's version is ours; else messages that we don't know are left out
        self.dropped = 0  # frames with a bad checksum, or too long
        self._pieces: list[bytes] = []  # of the frame that has not ended
        self._size = 0
        self._is_too_long = False

    def feed(self, data: bytes) -> list[tuple[Message, int]]:
        """The messages that end in ``data``, with their request ids; raises GuestError for a bad body."""
        first, *others = data.split(END)
        self._keep(first)
        if not others:
            return []
        last = others.pop()
        stuffed = [self._take(), *others]
        self._keep(last)
        frames = [frame for each in stuffed if each and (frame := self._open(each)) is not None]
        return [decode(frame, exact=self.exact) for frame in frames if self._is_known(frame)]

    def _is_known(self, frame: bytes) -> bool:
        return self.exact or _HEAD.unpack_from(frame)[0] in Message.registry

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > _STUFFED_LIMIT:  # counted here, not at the END: that may never come
            self.dropped += 1
            self._pieces.clear()
            self._size = 0
            self._is_too_long = True
        elif piece and not self._is_too_long:
            self._pieces.append(piece)

    def _take(self) -> bytes:
        stuffed = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._is_too_long = False
        return stuffed

    def _open(self, stuffed: bytes) -> bytes | None:
        frame = unstuff(stuffed)
        if frame is None or not _SMALLEST <= len(frame) <= FRAME_SIZE:
            self.dropped += 1
            return None
        body = frame[: -_U32.size]
        if zlib.crc32(body) != _U32.unpack_from(frame, len(body))[0]:
            self.dropped += 1
            return None
        return body


# --- Fields: a writer and a reader for each class, built once ---


_codecs: dict[tuple[type[Any], bool], tuple[Write, Read]] = {}


def _codec(cls: type[Any], exact: bool = True) -> tuple[Write, Read]:
    codec = _codecs.get((cls, exact))
    if codec is None:
        codec = _codecs[cls, exact] = _fields_codec(cls, exact)
    return codec


def _fields_codec(cls: type[Any], exact: bool) -> tuple[Write, Read]:
    kinds = schema.fields(cls)
    codecs = [_field_codec(kind, exact) for _, kind in kinds]
    writers = [(name, write) for (name, _), (write, _) in zip(kinds, codecs, strict=True)]
    # what an older peer does not know, and so leaves out
    empty = [not exact and schema.since(cls, name) and (_empty(kind),) for name, kind in kinds]
    readers = list(zip([read for _, read in codecs], empty, strict=True))

    def write(out: list[bytes], value: Any) -> None:
        for name, write_field in writers:
            write_field(out, getattr(value, name))

    def read(body: bytes, at: int) -> tuple[Any, int]:
        values: list[Any] = []
        for read_field, absent in readers:
            if absent and at == len(body):
                values += absent
                continue
            value, at = read_field(body, at)
            values.append(value)
        return cls(*values), at

    return write, read


def _empty(kind: schema.Kind) -> Any:
    """What a field is that its sender did not know."""
    match kind:
        case schema.Record(cls):
            return cls(*(_empty(inner) for _, inner in schema.fields(cls)))
        case schema.Text():
            return ""
        case schema.Data():
            return b""
        case schema.Sequence():
            return ()
        case schema.Boolean():
            return False
        case _:
            return 0


def _part_codec(cls: type[Any], exact: bool) -> tuple[Write, Read]:
    """A length, so that a reader passes over fields that it does not know."""
    write_fields, read_fields = _codec(cls, exact)

    def write(out: list[bytes], value: Any) -> None:
        inner: list[bytes] = []
        write_fields(inner, value)
        _write_data(out, b"".join(inner))

    def read(body: bytes, at: int) -> tuple[Any, int]:
        inner, at = _read_data(body, at)
        value, end = read_fields(inner, 0)
        if exact and end != len(inner):
            raise BadBody(f"{len(inner) - end} bytes after the last field of a {cls.__name__}")
        return value, at

    return write, read


def _field_codec(kind: schema.Kind, exact: bool) -> tuple[Write, Read]:
    match kind:
        case schema.Integer(name):
            return _integer_codec(_STRUCTS[name])
        case schema.Boolean():
            return _write_bool, _read_bool
        case schema.Text():
            return _write_text, _read_text
        case schema.Data():
            return _write_data, _read_data
        case schema.Record(cls):
            return _part_codec(cls, exact)
        case schema.Sequence(item):
            return _sequence_codec(item, exact)


def _integer_codec(form: struct.Struct) -> tuple[Write, Read]:
    pack, unpack_from, size = form.pack, form.unpack_from, form.size

    def write(out: list[bytes], value: Any) -> None:
        out.append(pack(value))

    def read(body: bytes, at: int) -> tuple[Any, int]:
        return unpack_from(body, at)[0], at + size

    return write, read


def _sequence_codec(item: schema.Kind, exact: bool) -> tuple[Write, Read]:
    write_item, read_item = _field_codec(item, exact)
    least = schema.least_size(item)

    def write(out: list[bytes], value: Any) -> None:
        out.append(_U32.pack(len(value)))
        for each in value:
            write_item(out, each)

    def read(body: bytes, at: int) -> tuple[Any, int]:
        (count,) = _U32.unpack_from(body, at)
        at += _U32.size
        if count > (len(body) - at) // least:
            raise BadBody(f"a list of {count} items in {len(body) - at} bytes")
        values = []
        for _ in range(count):
            value, at = read_item(body, at)
            values.append(value)
        return tuple(values), at

    return write, read


def _write_bool(out: list[bytes], value: Any) -> None:
    out.append(b"\1" if value else b"\0")


def _read_bool(body: bytes, at: int) -> tuple[Any, int]:
    byte = body[at : at + 1]
    if byte not in (b"\0", b"\1"):
        raise BadBody(f"a bool of {byte!r}")
    return byte == b"\1", at + 1


def _write_data(out: list[bytes], value: Any) -> None:
    out.append(_U32.pack(len(value)))
    out.append(value)


def _read_data(body: bytes, at: int) -> tuple[Any, int]:
    (size,) = _U32.unpack_from(body, at)
    at += _U32.size
    if size > len(body) - at:
        raise BadBody(f"{size} bytes promised and {len(body) - at} there")
    return body[at : at + size], at + size


def _write_text(out: list[bytes], value: Any) -> None:
    if "\0" in value:
        raise ValueError(f"{value!r} has a NUL inside")
    _write_data(out, value.encode(errors="surrogateescape"))  # arguments may be any bytes, as os.fsencode


def _read_text(body: bytes, at: int) -> tuple[Any, int]:
    raw, at = _read_data(body, at)
    if b"\0" in raw:
        raise BadBody("a NUL inside a string")
    return raw.decode(errors="replace"), at  # never a lone surrogate: it would break JSON later
