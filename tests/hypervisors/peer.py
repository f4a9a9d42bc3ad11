"""A host on the other end of a NIC's socket: it answers ARP and ping for every address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

from hypercontainer.model.machine import NicKind

MAC = bytes.fromhex("02aabbccddee")
_ARP, _IPV4 = b"\x08\x06", b"\x08\x00"


@contextlib.asynccontextmanager
async def answering(path: Path, kind: NicKind) -> AsyncIterator[None]:
    """A peer that listens at ``path``; it hangs up at the end of the block."""
    type_ = socket.SOCK_STREAM if kind is NicKind.STREAM else socket.SOCK_SEQPACKET
    with socket.socket(socket.AF_UNIX, type_ | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(path))
        listener.listen()
        serving = asyncio.ensure_future(_serve(listener, kind))
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def _serve(listener: socket.socket, kind: NicKind) -> None:
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    buffer = b""
    with connection:
        while data := await loop.sock_recv(connection, 1 << 16):
            frames = [data]
            if kind is NicKind.STREAM:
                frames, buffer = _split(buffer + data)
            for frame in frames:
                if reply := _reply(frame):
                    head = struct.pack(">I", len(reply)) if kind is NicKind.STREAM else b""
                    await loop.sock_sendall(connection, head + reply)


def _split(buffer: bytes) -> tuple[list[bytes], bytes]:
    frames = []
    while len(buffer) >= 4 and len(buffer) - 4 >= (size := struct.unpack_from(">I", buffer)[0]):
        frames.append(buffer[4 : 4 + size])
        buffer = buffer[4 + size :]
    return frames, buffer


def _reply(frame: bytes) -> bytes:
    """To an ARP request or an ICMP echo request; nothing to all else (RFC 826, RFC 792)."""
    to, kind, body = frame[6:12], frame[12:14], frame[14:]
    if kind == _ARP and body[6:8] == b"\0\1":
        answer = body[:6] + b"\0\2" + MAC + body[24:28] + body[8:14] + body[14:18]
    elif kind == _IPV4 and body[9] == 1 and body[20] == 8:
        # Type 8 becomes 0: the checksum of the message grows by 0x0800, with end-around carry.
        total = struct.unpack_from(">H", body, 22)[0] + 0x0800
        checksum = struct.pack(">H", (total & 0xFFFF) + (total >> 16))
        answer = body[:12] + body[16:20] + body[12:16] + b"\0" + body[21:22] + checksum + body[24:]
    else:
        return b""
    return to + MAC + kind + answer
