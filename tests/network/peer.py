"""One end of a conversation: ``serve`` says to each who asks which address it sees, ``ask`` prints it."""

from __future__ import annotations

import socket
import sys

PATIENCE_S = 10.0  # for an answer that must come, on a busy host


def serve_tcp(address: tuple[str, int]) -> None:
    server = socket.create_server(address, backlog=64)
    print("ready", flush=True)
    while True:
        connection, peer = server.accept()
        connection.sendall(peer[0].encode())
        connection.close()


def serve_http(address: tuple[str, int]) -> None:
    """As TCP, but the client speaks first."""
    server = socket.create_server(address, backlog=64)
    print("ready", flush=True)
    while True:
        connection, peer = server.accept()
        connection.recv(100)
        connection.sendall(peer[0].encode())
        connection.close()


def serve_udp(address: tuple[str, int]) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(address)
    print("ready", flush=True)
    while True:
        _, peer = server.recvfrom(100)
        server.sendto(peer[0].encode(), peer)


def serve_dns(address: tuple[str, int]) -> None:
    """Every name has the address 192.0.2.77 (message format: RFC 1035 section 4)."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(address)
    print("ready", flush=True)
    while True:
        query, peer = server.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        header = query[:2] + b"\x81\x80" + b"\0\1\0\1\0\0\0\0"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("192.0.2.77")
        server.sendto(header + query[12:end] + answer, peer)


def ask_tcp(address: tuple[str, int], seconds: float = PATIENCE_S) -> str:
    with socket.create_connection(address, timeout=seconds) as connection:
        return connection.recv(100).decode()


def ask_http(address: tuple[str, int], seconds: float = PATIENCE_S) -> str:
    with socket.create_connection(address, timeout=seconds) as connection:
        connection.sendall(b"who am I")
        return connection.recv(100).decode()


def ask_udp(address: tuple[str, int], seconds: float = PATIENCE_S) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(seconds)
        connection.connect(address)
        connection.send(b"who am I")
        return connection.recv(100).decode()


def ask_dns(address: tuple[str, int], seconds: float = PATIENCE_S) -> str:
    query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + b"\7example\3org\0" + b"\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(seconds)
        connection.connect(address)
        connection.send(query)
        return socket.inet_ntoa(connection.recv(512)[-4:])


SERVE = {"tcp": serve_tcp, "http": serve_http, "udp": serve_udp, "dns": serve_dns}
ASK = {"tcp": ask_tcp, "http": ask_http, "udp": ask_udp, "dns": ask_dns}


def main() -> None:
    verb, protocol, host, port, *patience = sys.argv[1:]
    address = (host, int(port))
    if verb == "serve":
        SERVE[protocol](address)
        return
    try:
        print(ASK[protocol](address, *map(float, patience)), end="")
    except OSError as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
