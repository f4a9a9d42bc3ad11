"""The control sockets against peers that a guest has taken over: QMP and mconsole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from hypercontainer.errors import HypervisorError
from hypercontainer.hypervisors import _mconsole, _qmp

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
OK = b'{"return": {}}\n'

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def qemu(path: Path, *answers: bytes) -> AsyncIterator[list[bytes]]:
    """A peer that greets with the first answer and gives one more for each line."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[0])
        with contextlib.suppress(OSError):
            for answer in answers[1:]:
                asked.append(await reader.readline())
                writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield asked
    finally:
        server.close()


async def test_events_between_a_command_and_its_answer_are_passed_over(tmp_path: Path) -> None:
    events = b'{"event": "STOP"}\n' * 100 + b'{"return": 7}\n'
    async with qemu(tmp_path / "qmp", GREETING, OK, events) as asked, _qmp.open_qmp(tmp_path / "qmp") as qmp:
        assert await qmp.execute("query-status", some_name={"in_ner": [1]}) == 7
    assert json.loads(asked[1]) == {"execute": "query-status", "arguments": {"some-name": {"in-ner": [1]}}}


async def test_a_refusal_carries_the_reason(tmp_path: Path) -> None:
    refusal = b'{"error": {"class": "GenericError", "desc": "no such node"}}\n'
    async with qemu(tmp_path / "qmp", GREETING, OK, refusal), _qmp.open_qmp(tmp_path / "qmp") as qmp:
        with pytest.raises(HypervisorError, match="no such node"):
            await qmp.execute("blockdev-del")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b"17\n",
        b"\xff\xfe\n",
        b'{"return": ' + b"[" * 100_000 + b"\n",
        b'{"return": "' + b"x" * (2 << 20) + b'"}\n',
        b'{"error": 3',
    ],
    ids=["eof", "empty", "text", "list", "number", "bytes", "deep", "long", "torn"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_nonsense_is_an_error_and_no_crash(tmp_path: Path, answer: bytes, place: int) -> None:
    answers = [GREETING, OK, OK]
    answers[place] = answer
    async with qemu(tmp_path / "qmp", *answers[: place + 1]):
        with pytest.raises(HypervisorError):
            async with _qmp.open_qmp(tmp_path / "qmp") as qmp:
                await qmp.execute("stop")


async def test_a_peer_that_never_answers_meets_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qmp, "TIMEOUT", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "qmp"))
        listener.listen()
        with pytest.raises(HypervisorError, match="did not come up"):
            async with _qmp.open_qmp(tmp_path / "qmp"):
                pass


async def test_a_peer_that_only_sends_events_meets_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qmp, "TIMEOUT", 1.0)
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING + OK)
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while True:
                writer.write(b'{"event": "X"}\n' * 10)
                await writer.drain()
                await asyncio.sleep(0.001)
        over.set()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "qmp"))
    with pytest.raises(HypervisorError, match="did not answer"):
        async with _qmp.open_qmp(tmp_path / "qmp") as qmp:
            await qmp.execute("stop")
    server.close()
    await over.wait()  # a connection left to the garbage collector fails some later test


async def test_no_peer_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(HypervisorError, match="no VMM listens"):
        async with _qmp.open_qmp(tmp_path / "qmp"):
            pass
    with pytest.raises(HypervisorError, match="not there"):
        await _mconsole.command(tmp_path / "mconsole", "stop")


# --- mconsole ---


@contextlib.asynccontextmanager
async def uml(path: Path, *packets: bytes) -> AsyncIterator[None]:
    """A peer that answers one request with ``packets``."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as peer:
        peer.bind(str(path))

        async def serve() -> None:
            _, address = await loop.sock_recvfrom(peer, 4096)
            for packet in packets:
                await loop.sock_sendto(peer, packet, address)

        task = asyncio.ensure_future(serve())
        yield
        task.cancel()


def a_reply(text: bytes, *, failed: int = 0, more: int = 0, length: int | None = None) -> bytes:
    return struct.pack("=IiI", failed, more, len(text) if length is None else length) + text


async def test_an_answer_in_pieces_is_joined(tmp_path: Path) -> None:
    async with uml(tmp_path / "m", a_reply(b"one ", more=1), a_reply(b"two\0")):
        assert await _mconsole.command(tmp_path / "m", "version") == "one two"


async def test_mconsole_refuses_with_its_reason(tmp_path: Path) -> None:
    async with uml(tmp_path / "m", a_reply(b"Device is currently open", failed=1)):
        with pytest.raises(HypervisorError, match="currently open"):
            await _mconsole.command(tmp_path / "m", "remove ubd1")


@pytest.mark.parametrize("packet", [b"", b"x", a_reply(b"x" * 2000, more=1) * 1])
async def test_mconsole_nonsense_is_an_error(
    tmp_path: Path, packet: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mconsole, "TIMEOUT", 1)
    async with uml(tmp_path / "m", *[packet] * 50):
        with pytest.raises(HypervisorError):
            await _mconsole.command(tmp_path / "m", "version")


async def test_a_command_that_is_too_long_is_not_cut(tmp_path: Path) -> None:
    with pytest.raises(HypervisorError, match="too long"):
        await _mconsole.command(tmp_path / "m", "x" * 512)
