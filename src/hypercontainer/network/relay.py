"""A program: carries frames between a machine and passt's stream socket.

    python -I -S relay.py {packet|stream} MACHINE_SOCKET PASST_SOCKET PID_FILE

UML takes one frame from each packet of a seqpacket socket; passt, as QEMU's ``-netdev stream``, has a u32
big-endian length before each frame.  It listens, goes into the background, serves the one machine that
connects, and ends when either side does.  It is one file that imports little, as each start of a pod
waits for it: a third of the time of ``python -m``.

It also sends the third packet of a TCP handshake, which an old passt does not (2023-03, of Debian 12).
There a connection from the host is only complete for the guest once the client has sent something, so a
server that speaks first (ssh, SMTP, MySQL) waits for ever.  A newer passt sends it; then ours is a
duplicate, which TCP ignores.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing and collections.abc cost more to import than all the rest
    from collections.abc import Iterator

_FRAME_MAX = 65550  # the longest of passt's: 64 KiB of IP and an Ethernet header
_LENGTH = struct.Struct(">I")
_BATCH = 64  # frames that one turn takes from a packet socket, at most
_BUFFER = 1 << 20
_POLL_S = 0.0005

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")  # RFC 791 section 3.1
_TCP = struct.Struct("!HHIIBBHHH")  # RFC 9293 section 3.1
_TYPE_IPV4 = 0x0800
_PROTOCOL_TCP = 6
_DONT_FRAGMENT = 0x4000
_FRAGMENT_OFFSET = 0x1FFF
_SYN, _ACK = 0x02, 0x10
_WINDOW = 512  # in units of 256 bytes by passt's window scale; passt's next segment says its own


class FrameError(Exception):
    """The stream holds a length that no frame can have."""


class Frames:
    """Takes frames out of the bytes of a stream, however they come."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now."""
        self._held += data
        return list(self._take())

    def _take(self) -> Iterator[bytes]:
        at = 0
        while len(self._held) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._held, at)
            if length > _FRAME_MAX:
                raise FrameError(f"a frame of {length} bytes")
            end = at + _LENGTH.size + length
            if end > len(self._held):
                break
            yield bytes(self._held[at + _LENGTH.size : end])
            at = end
        del self._held[:at]


class StreamSide:
    def __init__(self, endpoint: socket.socket) -> None:
        self._endpoint = endpoint
        self._frames = Frames()
        self.fileno = endpoint.fileno

    def receive(self) -> list[bytes] | None:
        data = self._endpoint.recv(_BUFFER)
        return self._frames.feed(data) if data else None

    def send(self, frames: list[bytes]) -> None:
        self._endpoint.sendall(
            b"".join(part for frame in frames for part in (_LENGTH.pack(len(frame)), frame))
        )

    def is_read_up(self) -> bool:
        """Whether the other end has read all that was sent (SIOCOUTQ, unix(7))."""
        return not any(fcntl.ioctl(self._endpoint, termios.TIOCOUTQ, bytes(4)))


class PacketSide:
    def __init__(self, endpoint: socket.socket) -> None:
        self._endpoint = endpoint
        self.fileno = endpoint.fileno

    def receive(self) -> list[bytes] | None:
        frames = []
        for _ in range(_BATCH):
            try:
                frame = self._endpoint.recv(_FRAME_MAX, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not frame:
                return None
            frames.append(frame)
        return frames

    def send(self, frames: list[bytes]) -> None:
        for frame in filter(None, frames):  # an empty packet would read as the end
            self._endpoint.send(frame)


def relay(machine: PacketSide | StreamSide, passt: StreamSide) -> None:
    """Until one side ends.  A side that does not read holds up the other: frames wait or are lost there."""
    acks: list[bytes] = []  # that complete handshakes of the machine's, once passt knows of them
    while True:
        ready = select.select([machine, passt], [], [], _POLL_S if acks else None)[0]
        if machine in ready:
            if (frames := machine.receive()) is None:
                return
            passt.send(frames)
            acks += [ack for frame in frames if (ack := completing_ack(frame))]
        if passt in ready:
            if (frames := passt.receive()) is None:
                return
            machine.send(frames)
        # An old passt that finds the SYN and the first data in one read loops for ever: keep them apart.
        if acks and passt.is_read_up():
            machine.send(acks)
            acks = []


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


def main(kind: str, machine_path: str, passt_path: str, pid_file: str) -> None:
    listener = socket.socket(
        socket.AF_UNIX, socket.SOCK_SEQPACKET if kind == "packet" else socket.SOCK_STREAM
    )
    listener.bind(machine_path)
    os.chmod(machine_path, 0o600)  # noqa: PTH101
    listener.listen(1)
    _into_background(pid_file)
    machine, _ = listener.accept()
    listener.close()
    with machine, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as passt:
        for endpoint in (machine, passt):
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        passt.connect(passt_path)
        try:
            relay(PacketSide(machine) if kind == "packet" else StreamSide(machine), StreamSide(passt))
        except (OSError, FrameError) as error:
            sys.exit(f"the network at {machine_path} ended: {error}")


def _into_background(pid_file: str) -> None:
    """The parent ends when the child has written its pid: who waits for it finds all in place."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os._exit(0 if os.read(reader, 1) else 1)
    os.setsid()
    with open(pid_file, "w") as file:  # noqa: PTH123
        file.write(f"{os.getpid()}\n")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.write(writer, b"1")
    for descriptor in (reader, writer, null):
        os.close(descriptor)


if __name__ == "__main__":
    main(*sys.argv[1:])
