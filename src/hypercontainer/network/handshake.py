"""The third packet of a TCP handshake, which an old passt does not send (2023-03, of Debian 12).

There a connection from the host is only complete for the guest once the client has sent something, so a
server that speaks first (ssh, SMTP, MySQL) waits for ever.  A newer passt sends it; then ours is a
duplicate, which TCP ignores.
"""

from __future__ import annotations

import struct

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")  # RFC 791 section 3.1
_TCP = struct.Struct("!HHIIBBHHH")  # RFC 9293 section 3.1
_TYPE_IPV4 = 0x0800
_PROTOCOL_TCP = 6
_DONT_FRAGMENT = 0x4000
_FRAGMENT_OFFSET = 0x1FFF
_SYN, _ACK = 0x02, 0x10
_WINDOW = 512  # in units of 256 bytes by passt's window scale; passt's next segment says its own


def completing_ack(frame: bytes | memoryview) -> bytes | None:
    """The frame that answers ``frame`` if that is the second packet of a handshake (SYN and ACK)."""
    if len(frame) < _ETHERNET.size + _IPV4.size + _TCP.size:
        return None
    target, source, kind = _ETHERNET.unpack_from(frame)
    if kind != _TYPE_IPV4:
        return None
    version, _, _, _, fragment, _, protocol, _, ours, theirs = _IPV4.unpack_from(frame, _ETHERNET.size)
    at = _ETHERNET.size + (version & 15) * 4
    if version >> 4 != 4 or protocol != _PROTOCOL_TCP or fragment & _FRAGMENT_OFFSET:
        return None
    if len(frame) < at + _TCP.size:
        return None
    port, their_port, sequence, acknowledged, _, flags, *_ = _TCP.unpack_from(frame, at)
    if flags & (_SYN | _ACK) != _SYN | _ACK:
        return None
    segment = _segment(theirs, ours, (their_port, port, acknowledged, (sequence + 1) & 0xFFFFFFFF))
    return _ETHERNET.pack(source, target, kind) + _packet(theirs, ours, segment)


def _segment(source: bytes, target: bytes, fields: tuple[int, int, int, int]) -> bytes:
    def pack(checksum: int) -> bytes:
        return _TCP.pack(*fields, 5 << 4, _ACK, _WINDOW, checksum, 0)

    pseudo_header = source + target + struct.pack("!HH", _PROTOCOL_TCP, _TCP.size)
    return pack(_checksum(pseudo_header + pack(0)))


def _packet(source: bytes, target: bytes, segment: bytes) -> bytes:
    def pack(checksum: int) -> bytes:
        length = _IPV4.size + len(segment)
        return _IPV4.pack(0x45, 0, length, 0, _DONT_FRAGMENT, 64, _PROTOCOL_TCP, checksum, source, target)

    return pack(_checksum(pack(0))) + segment


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
