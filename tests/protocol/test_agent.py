"""The agent against a fake hyperstart over a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator

import pytest

from hypercontainer.errors import GuestError, InvalidRequest, Unavailable
from hypercontainer.guest.agent import Agent, Process
from hypercontainer.guest.protocol import (
    Done,
    GetStatistics,
    Output,
    Ping,
    ShutDown,
    Statistics,
    Stream,
)
from tests.protocol.fake_guest import FakeGuest, connected, start
from tests.support.waiting import PATIENCE_S


@contextlib.asynccontextmanager
async def an_agent(guest: FakeGuest) -> AsyncIterator[Agent]:
    async with connected(guest) as channel, await Agent.connect(channel) as agent:
        yield agent


async def read_all(process: Process) -> dict[int, bytes]:
    """Everything from now on, stored as it comes."""
    collected = {1: bytearray(), 2: bytearray()}
    while (output := await process.read()) is not None:
        collected[output.stream] += output.data
        process.stored(Stream(output.stream), output.offset + len(output.data))
    return {stream: bytes(data) for stream, data in collected.items()}


async def test_requests_are_answered_by_done_or_their_reply() -> None:
    async with an_agent(FakeGuest()) as agent:
        assert agent.welcome.kernel_release == "6.12.0"
        assert await agent.request(Ping()) == Done()
        assert await agent.request(GetStatistics()) == Statistics(1, 2, 3, 4, (), 1, 5, (), ())


async def test_many_requests_at_once_get_each_its_own_answer() -> None:
    async with an_agent(FakeGuest()) as agent:
        answers = await asyncio.gather(*(agent.request(m) for m in [Ping(), GetStatistics()] * 50))
    assert [type(answer) for answer in answers] == [Done, Statistics] * 50


async def test_a_refused_request_raises_the_guests_errno_in_words() -> None:
    async with an_agent(FakeGuest()) as agent:
        with pytest.raises(GuestError, match="execve nonsense: No such file or directory") as caught:
            await agent.start_process(start(1, "nonsense"))
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(GuestError, match="no process 1"):
            agent.process(1)
        assert await agent.request(Ping()) == Done()


async def test_stdin_comes_back_on_both_streams_and_the_status_after_them() -> None:
    data = os.urandom(3_000_000)
    guest = FakeGuest()
    async with an_agent(guest) as agent, asyncio.TaskGroup() as tasks:
        process = await agent.start_process(start(1, "cat"))
        output = tasks.create_task(read_all(process))
        await process.write(data)
        await process.write_end()
        assert (await process.exited()).status == 17
        assert await output == {1: data, 2: data.upper()}
        await process.forget()
        assert not guest.processes


async def test_a_process_that_nobody_reads_waits_and_keeps_memory_bounded() -> None:
    guest = FakeGuest(chunk=1000)
    async with an_agent(guest) as agent:
        process = await agent.start_process(start(1, "print", "abcdefgh", "1000000"))
        await agent.request(Ping())
        assert guest.processes[1].left
        assert sum(len(output.data) for output in process._outputs) <= 1 << 18
        assert (await read_all(process))[1] == b"abcdefgh" * 1000000


async def test_small_outputs_are_merged_while_they_wait() -> None:
    async with an_agent(FakeGuest(chunk=1)) as agent:
        process = await agent.start_process(start(1, "print", "x", "100000"))
        await process.exited()
        assert len(process._outputs) < 100
        assert (await read_all(process))[1] == b"x" * 100000


async def test_input_for_a_process_that_does_not_read_is_dropped() -> None:
    async with an_agent(FakeGuest()) as agent:
        process = await agent.start_process(start(1, "print", "x", "1", stdin=False))
        await process.write(b"y" * 1_000_000)
        await process.write_end()
        assert await read_all(process) == {1: b"x", 2: b""}


async def test_a_cancelled_request_leaves_the_agent_usable() -> None:
    guest = FakeGuest()
    guest.silent = {Ping}
    async with an_agent(guest) as agent:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(agent.request(Ping()), 0.01)
        assert await agent.request(GetStatistics()) == Statistics(1, 2, 3, 4, (), 1, 5, (), ())
        assert not agent._replies


async def test_a_cancelled_write_and_read_leave_the_agent_usable() -> None:
    guest = FakeGuest(input_room=10)
    async with an_agent(guest) as agent:
        process = await agent.start_process(start(1, "cat"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.write(b"z" * 1_000_000), 0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.exited(), 0.01)
        await asyncio.wait_for(process.read(), PATIENCE_S)
        assert await agent.request(Ping()) == Done()


async def test_a_lost_channel_raises_unavailable_everywhere() -> None:
    guest = FakeGuest()
    guest.silent = {Ping}
    async with connected(guest) as channel:
        agent = await Agent.connect(channel)
        process = await agent.start_process(start(1, "cat"))
        calls = [agent.request(Ping()), process.read(), process.exited(), process.write(b"x" * 10_000_000)]
        running = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.01)
        channel.writer.transport.abort()
        results = await asyncio.gather(*running, return_exceptions=True)
        read, others = results.pop(1), results
        assert isinstance(read, Output | Unavailable)
        assert all(isinstance(result, Unavailable) for result in others), results
        await asyncio.wait_for(agent.closed(), PATIENCE_S)
        assert isinstance(agent.failure, Unavailable)
        with pytest.raises(Unavailable):
            await agent.request(Ping())
        process.stored(Stream.STDOUT, 0)
        await agent.close()
        await agent.close()


async def test_a_request_too_large_is_refused_before_it_is_sent() -> None:
    async with an_agent(FakeGuest()) as agent:
        with pytest.raises(InvalidRequest, match="too large"):
            await agent.start_process(start(1, "x" * (1 << 18)))
        assert await agent.request(Ping()) == Done()


async def test_a_guest_that_breaks_the_protocol_is_given_up() -> None:
    async with connected(FakeGuest()) as channel:
        agent = await Agent.connect(channel)
        agent._session._pending.clear()
        channel.reader.feed_data(b"\xc0" + b"junk" * 1000 + b"\xc0")
        assert await agent.request(Ping()) == Done()
        for _ in range(70):
            channel.reader.feed_data(b"\xc0junk")
        await asyncio.wait_for(agent.closed(), PATIENCE_S)
        assert isinstance(agent.failure, GuestError)
        with pytest.raises(GuestError, match="broken frames"):
            await agent.request(ShutDown())
        await agent.close()


async def test_a_new_agent_goes_on_where_the_last_one_stopped() -> None:
    guest = FakeGuest(chunk=1000)
    text = b"0123456789" * 100_000
    async with connected(guest) as channel:
        agent = await Agent.connect(channel)
        process = await agent.start_process(start(1, "print", "0123456789", "100000"))
        first = await process.read()
        assert first is not None
        process.stored(Stream.STDOUT, len(first.data))
        channel.writer.transport.abort()
        await agent.closed()
        await agent.close()
    stored = {1: {Stream.STDOUT: len(first.data)}}
    async with connected(guest) as channel, await Agent.connect(channel, resume=stored) as agent:
        process = agent.process(1)
        rest = await read_all(process)
        assert (await process.exited()).status == 0
        assert first.data + rest[1] == text


async def test_input_that_was_not_acknowledged_is_sent_again_by_the_next_agent() -> None:
    guest = FakeGuest(input_room=100)
    data = os.urandom(1000)
    async with connected(guest) as channel:
        agent = await Agent.connect(channel)
        process = await agent.start_process(start(1, "cat"))
        agent._channel.writer.transport.abort()
        with contextlib.suppress(Unavailable):
            await process.write(data[:100])
    async with connected(guest) as channel, await Agent.connect(channel, previous=agent) as agent:
        process = agent.process(1)
        output = asyncio.ensure_future(read_all(process))
        taken = agent._session._processes[1].input.accepted
        await process.write(data[taken:])
        await process.write_end()
        assert (await output)[1] == data


async def test_connecting_to_a_dead_channel_is_unavailable_and_leaves_nothing() -> None:
    async with connected(FakeGuest()) as channel:
        channel.reader.feed_eof()
        with pytest.raises(Unavailable):
            await Agent.connect(channel)
