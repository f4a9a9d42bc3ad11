"""What every driver promises (docs/drivers.md): the channel is found again, whole, and nobody else's."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from hypercontainer.guest.protocol import Ping, Stream
from tests.hypervisors.machines import (
    MIB,
    Place,
    a_shell,
    connected,
)

pytestmark = pytest.mark.needs_machine


async def test_reconnecting_twenty_times_finds_the_same_guest(place: Place) -> None:
    machine = await place.launch(place.config())
    starts = set()
    for _ in range(20):
        async with await connected(machine) as agent:
            starts.add(agent.welcome.started_ns)
            await agent.request(Ping())
    assert len(starts) == 1


@pytest.mark.however_started
async def test_a_guest_that_prints_all_the_time_is_found_again_two_hundred_times(place: Place) -> None:
    async with place.booted() as booted:
        printer = await booted.agent.start_process(a_shell("while :; do echo line; done"))
        agent, offset = booted.agent, 0
        for _ in range(200):
            await agent.close()
            agent = await connected(booted.machine, resume={printer.number: {Stream.STDOUT: offset}})
            async with asyncio.timeout(10):
                output = await agent.process(printer.number).read()
                await agent.request(Ping())
            assert output is not None
            assert output.offset == offset
            offset += len(output.data)
        await agent.close()


@pytest.mark.however_started
async def test_connections_cut_off_at_once_do_no_harm(place: Place) -> None:
    machine = await place.launch(place.config())
    async with await connected(machine):
        pass
    for garbage in (b"", b"\xc0", b"\xc0\x01\x00", secrets.token_bytes(1000)):
        channel = await machine.connect()
        channel.writer.write(garbage)
        channel.writer.transport.abort()
    async with await connected(machine) as agent:
        await agent.request(Ping())


@pytest.mark.however_started
async def test_megabytes_come_back_unharmed(place: Place) -> None:
    data = secrets.token_bytes(4 * MIB)
    async with place.booted() as booted:
        assert await booted.shell("exec cat", stdin=data) == data


@pytest.mark.however_started
async def test_nobody_else_may_connect(place: Place) -> None:
    machine = await place.launch(place.config())
    sockets = list(machine.run_dir.rglob("*.sock"))
    assert sockets
    assert all(path.stat().st_mode & 0o077 == 0 for path in sockets)
