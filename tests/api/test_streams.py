"""Attached streams: a process's bytes, end and signals over a connection that was taken over."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from hypercontainer.api.messages import Stream, Upgrade
from hypercontainer.api.routing import Routes
from hypercontainer.api.streaming import attached, in_batches
from hypercontainer.client import Client
from hypercontainer.client.http import error_from
from hypercontainer.client.streams import Attached
from hypercontainer.errors import GuestError, InvalidRequest
from hypercontainer.model import frames
from hypercontainer.model.json import decode
from hypercontainer.model.rest import ErrorView, StreamKind, TimelineView, WaitView
from tests.api.serving import HostProcess, Serving, serving
from tests.support.waiting import PATIENCE_S

SHELL = ("sh", "-c")


class Processes:
    """The processes that a test's clients have attached to, in turn."""

    def __init__(self) -> None:
        self.all: list[HostProcess] = []
        self.command: tuple[str, ...] = ("cat",)


@pytest.fixture
def processes() -> Processes:
    return Processes()


@pytest.fixture
def server(tmp_path: Path, processes: Processes) -> Iterator[Serving]:
    routes = Routes()

    @routes.post("/v1/containers/{container}/attach", upgrade=True)
    async def attach(_: object, container: str, *, start: bool, from_start: bool, timeline: bool) -> Upgrade:
        process = await HostProcess.run(*processes.command)
        processes.all.append(process)
        return attached(process, timeline=timeline)

    @routes.post("/v1/execs/{exec_id}/start", upgrade=True)
    async def start_exec(_: object, exec_id: str) -> Upgrade:
        process = Lost(await HostProcess.run("true"))
        processes.all.append(process)
        return attached(process)

    @routes.get("/many")
    def many(_: object) -> Stream:
        async def pieces() -> object:
            for each in range(10_000):
                yield b"%d\n" % each

        return Stream(chunks=in_batches(pieces()), content_type="text/plain")  # type: ignore[arg-type]

    with serving(tmp_path, routes, processes=processes.all) as running:
        yield running


class Lost(HostProcess):
    def __init__(self, process: HostProcess) -> None:
        super().__init__(process.child)

    async def exit_code(self) -> int:
        await self.child.wait()
        raise GuestError("the machine died", hint="look at its console")


@pytest.fixture
def client(server: Serving) -> Client:
    return Client(server.path)


def attach(client: Client, processes: Processes, *command: str, timeline: bool = False) -> Attached:
    processes.command = command
    return client.containers.attach("c", timeline=timeline)


def collect(attached_to: Attached) -> tuple[bytes, bytes, list[tuple[int, bytes]]]:
    """stdout, stderr, and the other frames."""
    kept: dict[int, bytearray] = {StreamKind.STDOUT: bytearray(), StreamKind.STDERR: bytearray()}
    others = []
    for kind, payload in attached_to.frames():
        if kind in kept:
            kept[kind] += payload
        else:
            others.append((kind, payload))
    return bytes(kept[StreamKind.STDOUT]), bytes(kept[StreamKind.STDERR]), others


def exit_code(others: list[tuple[int, bytes]]) -> int:
    kind, payload = others[-1]
    assert kind == StreamKind.EXIT
    return decode(payload, WaitView, subject="the last frame").exit_code


def test_both_outputs_and_the_exit_code_arrive_apart(client: Client, processes: Processes) -> None:
    with attach(client, processes, *SHELL, "echo out; echo err >&2; exit 17") as held:
        out, err, others = collect(held)
    assert (out, err, exit_code(others)) == (b"out\n", b"err\n", 17)


def test_a_hundred_megabytes_come_back_as_they_went(client: Client, processes: Processes) -> None:
    block = os.urandom(1 << 20)
    received = hashlib.sha256()
    with attach(client, processes, "cat") as held:

        def send() -> None:
            for _ in range(100):
                held.send(StreamKind.STDIN, block)
            held.send(StreamKind.STDIN_END)

        sender = threading.Thread(target=send)
        sender.start()
        for kind, payload in held.frames():
            if kind == StreamKind.STDOUT:
                received.update(payload)
        sender.join()
    assert received.hexdigest() == hashlib.sha256(block * 100).hexdigest()


def test_each_keystroke_is_answered_at_once(client: Client, processes: Processes) -> None:
    took = []
    with attach(client, processes, "cat") as held:
        for number in range(20):
            started = time.monotonic()
            held.send(StreamKind.STDIN, b"%d\n" % number)
            assert next(held.frames()) == (StreamKind.STDOUT, b"%d\n" % number)
            took.append(time.monotonic() - started)
    assert median(took) < 0.5  # any one may have met a host that was busy


def test_the_timeline_comes_before_the_end_when_asked_for(client: Client, processes: Processes) -> None:
    with attach(client, processes, "true", timeline=True) as held:
        kinds = [kind for kind, _ in collect(held)[2]]
    assert kinds == [StreamKind.TIMELINE, StreamKind.EXIT]
    with attach(client, processes, "true", timeline=True) as held:
        view = decode(collect(held)[2][0][1], TimelineView, subject="timeline")
    assert view.marks[0].name == "exec"


def test_half_closing_ends_stdin_and_nothing_else(client: Client, processes: Processes) -> None:
    with attach(client, processes, *SHELL, "cat; sleep 0.6; echo end") as held:
        held.send(StreamKind.STDIN, b"data\n")
        held.connection.shutdown(socket.SHUT_WR)
        out, _, others = collect(held)
    assert (out, exit_code(others)) == (b"data\nend\n", 0)


def test_detaching_leaves_the_process_and_lets_go_of_it(client: Client, processes: Processes) -> None:
    held = attach(client, processes, "sleep", "60")
    held.close()
    assert processes.all[0].is_closed.wait(PATIENCE_S)
    assert processes.all[0].child.returncode is None


def test_detaching_does_not_end_stdin(client: Client, processes: Processes) -> None:
    held = attach(client, processes, "cat")
    held.send(StreamKind.STDIN, b"some")
    held.close()
    assert processes.all[0].is_closed.wait(PATIENCE_S)
    assert processes.all[0].child.stdin is not None
    assert not processes.all[0].child.stdin.is_closing()


def test_detaching_is_seen_while_the_process_prints_without_end(client: Client, processes: Processes) -> None:
    held = attach(client, processes, "yes")
    held.receive()
    held.close()
    assert processes.all[0].is_closed.wait(PATIENCE_S)


def test_a_client_that_does_not_read_stops_the_process(client: Client, processes: Processes) -> None:
    with attach(client, processes, *SHELL, "head -c 64M /dev/zero; echo done >&2") as held:
        time.sleep(0.5)
        assert processes.all[0].child.returncode is None
        out, err, _ = collect(held)
    assert (len(out), err) == (64 << 20, b"done\n")


def test_resize_and_signals_reach_the_process(client: Client, processes: Processes) -> None:
    with attach(client, processes, "sleep", "60") as held:
        held.send(StreamKind.RESIZE, struct.pack(">HH", 40, 120))
        held.send(StreamKind.SIGNAL, b"\x0f")
        assert exit_code(collect(held)[2]) == 128 + 15
    assert processes.all[0].sizes == [(40, 120)]


@pytest.mark.parametrize(
    "nonsense",
    [
        frames.encode(StreamKind.EXIT, b"{}"),
        frames.encode(99, b""),
        frames.encode(StreamKind.RESIZE, b"123"),
        frames.encode(StreamKind.SIGNAL, b""),
        b"\x00\x00\x00\x00\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_nonsense_is_told_and_hurts_nobody(
    client: Client, processes: Processes, nonsense: bytes, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with attach(client, processes, "cat", str(tmp_path / "fifo")) as held:
        held.connection.sendall(nonsense)
        kind, payload = next(held.frames())
        (tmp_path / "fifo").write_bytes(b"fine\n")
        out, _, others = collect(held)
    assert kind == StreamKind.ERROR
    assert decode(payload, ErrorView, subject="error").code == InvalidRequest.code
    assert (out, exit_code(others)) == (b"fine\n", 0)


def test_an_error_after_the_upgrade_is_the_last_frame(client: Client) -> None:
    with client.execs.start("e") as held:
        *_, (kind, payload) = held.frames()
    assert kind == StreamKind.ERROR
    error = error_from(decode(payload, dict[str, str], subject="error"))
    assert isinstance(error, GuestError)
    assert (error.message, error.hint) == ("the machine died", "look at its console")


def test_small_pieces_travel_together(client: Client) -> None:
    chunks = list(client.request("GET", "/many").chunks())
    assert b"".join(chunks) == b"".join(b"%d\n" % each for each in range(10_000))
    assert len(chunks) < 100


@pytest.mark.parametrize("size", [1, 3, 7, 8, 9, 1000])
def test_frames_cut_anywhere_are_put_together(size: int) -> None:
    wanted = [(1, b"one"), (2, b""), (0, bytes(500)), (8, b"\xff" * 7)]
    data = b"".join(frames.encode(kind, payload) for kind, payload in wanted)
    decoder = frames.Decoder()
    found = [frame for at in range(0, len(data), size) for frame in decoder.feed(data[at : at + size])]
    assert found == wanted
    assert decoder.is_between_frames
