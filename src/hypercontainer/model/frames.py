"""The frames of attached streams and logs, as bytes: ``u8 kind | 3 zero bytes | u32 length | payload``.

Kinds are those of `model.rest.StreamKind`; they are plain integers here so that the CLI can import
this without the types of the whole API.
"""

from __future__ import annotations

import struct

from hypercontainer.errors import InvalidRequest

_HEADER = struct.Struct(">B3sI")
_ZEROS = bytes(3)

MAX_PAYLOAD = 1 << 20  # bytes; more in one frame is a fault of the peer
CHUNK = 1 << 16  # bytes of data in a frame that we write


def header(kind: int, length: int) -> bytes:
    return _HEADER.pack(kind, _ZEROS, length)


def encode(kind: int, payload: bytes) -> bytes:
    return _HEADER.pack(kind, _ZEROS, len(payload)) + payload


class Decoder:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def is_between_frames(self) -> bool:
        """Whether an end of the stream here cuts no frame."""
        return not self._rest

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that ``data`` completes; raises InvalidRequest when it cannot be frames."""
        data = self._rest + data if self._rest else data
        frames = []
        at = 0
        while len(data) - at >= _HEADER.size:
            kind, zeros, length = _HEADER.unpack_from(data, at)
            if zeros != _ZEROS or length > MAX_PAYLOAD:
                raise InvalidRequest(f"not a stream frame: {data[at : at + _HEADER.size].hex()}")
            end = at + _HEADER.size + length
            if end > len(data):
                break
            frames.append((kind, data[at + _HEADER.size : end]))
            at = end
        self._rest = data[at:]
        return frames
