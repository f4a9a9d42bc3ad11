"""UML's management console: one datagram for a command, one or more for its answer.

Source: arch/um/drivers/mconsole.h and mconsole_kern.c of Linux.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

from hypercontainer.errors import HypervisorError
from hypercontainer.files import short_path

_MAGIC = 0xCAFEBABE
_VERSION = 2
_DATA_SIZE = 512  # MCONSOLE_MAX_DATA
_REQUEST = struct.Struct(f"=IiI{_DATA_SIZE}s")
_REPLY = struct.Struct("=IiI")
TIMEOUT = 10.0  # seconds for one command


async def command(path: Path, text: str) -> str:
    """Carry out ``text`` on the UML whose mconsole is at ``path``; raises HypervisorError with its reason."""
    data = text.encode()
    if len(data) >= _DATA_SIZE:
        raise HypervisorError("the command is too long for UML's mconsole")
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        client.bind("")  # autobind (unix(7)): an abstract address to answer to, and no file to remove
        with short_path(path) as name:
            client.sendto(_REQUEST.pack(_MAGIC, _VERSION, len(data), data), name)
        async with asyncio.timeout(TIMEOUT):
            return await _answer(client, text)
    except TimeoutError as error:
        raise HypervisorError(f"UML did not answer {text!r} in {TIMEOUT:.0f} s") from error
    except OSError as error:
        raise HypervisorError(f"UML's mconsole is not there: {error.strerror}") from error
    finally:
        client.close()


async def _answer(client: socket.socket, text: str) -> str:
    words = b""
    while len(words) < 1 << 16:
        packet = await asyncio.get_running_loop().sock_recv(client, 4096)
        if len(packet) < _REPLY.size:
            break
        failed, more, length = _REPLY.unpack_from(packet)
        words += packet[_REPLY.size :][:length].rstrip(b"\0")
        if more:
            continue
        reply = words.decode(errors="replace").strip()
        if failed:
            raise HypervisorError(f"UML refused {text!r}: {reply:.300}")
        return reply
    raise HypervisorError(f"UML's mconsole answered nonsense to {text!r}")
