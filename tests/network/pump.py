"""Stand-in for a VMM: carries frames between a NIC's backend and a tap in another namespace.

pump.py KIND BACKEND NAMESPACE TAP MAC
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI = 0x2, 0x1000
SIOCSIFHWADDR = 0x8924  # linux/sockios.h
ARPHRD_ETHER = 1


def open_tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def connect(path: str, kind: socket.SocketKind) -> socket.socket:
    endpoint = socket.socket(socket.AF_UNIX, kind)
    endpoint.connect(path)
    return endpoint


def stream_reader(endpoint: socket.socket) -> Callable[[], bytes]:
    def read() -> bytes:
        header = endpoint.recv(4, socket.MSG_WAITALL)
        if len(header) < 4:
            return b""
        (length,) = struct.unpack(">I", header)
        return endpoint.recv(length, socket.MSG_WAITALL)

    return read


def backend(kind: str, name: str) -> tuple[int, Callable[[], bytes], Callable[[bytes], object]]:
    if kind == "tap":
        tap = open_tap(name)
        return tap, lambda: os.read(tap, 65536), lambda frame: os.write(tap, frame)
    if kind == "packet":
        packets = connect(name, socket.SOCK_SEQPACKET)
        return packets.fileno(), lambda: packets.recv(65536), packets.send
    stream = connect(name, socket.SOCK_STREAM)
    return (
        stream.fileno(),
        stream_reader(stream),
        lambda frame: stream.sendall(struct.pack(">I", len(frame)) + frame),
    )


def enter(namespace: str) -> None:
    with Path(f"/run/netns/{namespace}").open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def set_mac(name: str, mac: str) -> None:
    request = struct.pack("16sH6s16x", name.encode(), ARPHRD_ETHER, bytes.fromhex(mac.replace(":", "")))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFHWADDR, request)


def main() -> None:
    kind, name, namespace, tap, mac = sys.argv[1:]
    outer, read, write = backend(kind, name)
    enter(namespace)
    inner = open_tap(tap)
    set_mac(tap, mac)
    print("ready", flush=True)
    while True:
        for ready in select.select([outer, inner], [], [])[0]:
            try:
                if ready == inner:
                    write(os.read(inner, 65536))
                elif frame := read():
                    os.write(inner, frame)
                else:
                    return
            except OSError:  # a link is down or gone: the frame is lost, as on a cable
                continue


main()
