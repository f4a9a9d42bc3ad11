"""Streams: every byte once, whoever dies meanwhile, and nothing that waits for ever."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from pathlib import Path

from hypercontainer.guest.agent import Process
from hypercontainer.guest.protocol import STREAM_BUFFER, SignalProcess, Stream
from tests.guest.laboratory import Pod, finish, read_until
from tests.support.waiting import PATIENCE_S

MIB = 1 << 20


async def test_a_megabyte_of_random_bytes_comes_back_as_it_was(pod: Pod) -> None:
    data = os.urandom(MIB)
    assert (await pod.run("cat", stdin=data)).output == data


async def test_bytes_that_look_like_frames_come_back_as_they_were(pod: Pod) -> None:
    data = bytes([0xC0, 0xDB, 0xDC, 0xDD, 0x00]) * 50_000
    assert (await pod.run("cat", stdin=data)).output == data


async def test_stdout_and_stderr_stay_apart(pod: Pod) -> None:
    result = await pod.shell("for i in $(seq 1000); do echo out $i; echo err $i >&2; done")
    assert result.output.decode().split("\n")[:-1] == [f"out {i}" for i in range(1, 1001)]
    assert result.errors.decode().split("\n")[:-1] == [f"err {i}" for i in range(1, 1001)]


async def test_the_end_of_stdin_arrives(pod: Pod) -> None:
    assert (await pod.run("wc", "-c", stdin=b"")).output == b"0\n"
    assert (await pod.run("wc", "-c", stdin=b"x" * 100_000)).output == b"100000\n"


async def test_a_reader_that_goes_away_does_not_stop_the_writer(pod: Pod) -> None:
    process = await pod.start("sh", "-c", "head -c 5; exec <&-; sleep 0.2; echo; echo on", stdin=True)
    async with asyncio.timeout(PATIENCE_S):
        await process.write(b"x" * 5 * MIB)  # far more than any buffer: the rest is dropped
    result = await finish(process)
    assert result.output == b"xxxxx\non\n"


async def test_output_that_nobody_reads_blocks_its_writer_and_no_one_else(pod: Pod) -> None:
    script = "dd if=/dev/zero bs=1k count=4096 2>/dev/null; echo done >&2"
    process = await pod.start("sh", "-c", script)
    await asyncio.sleep(0.3)
    assert await pod.output("echo alive") == "alive\n"
    result = await finish(process)
    assert result.output == bytes(4 * MIB)
    assert result.errors == b"done\n"


async def test_hyperstart_keeps_no_more_than_the_buffer_of_a_stream(pod: Pod) -> None:
    before = resident_kib(pod)
    processes = [await pod.start("cat", "/dev/zero") for _ in range(5)]
    await asyncio.sleep(0.3)
    grown = resident_kib(pod) - before
    for process in processes:
        await pod.agent.request(SignalProcess(process.number, signal.SIGKILL, False))
    if "asan" not in pod.machine.console():
        assert grown < 5 * 2 * STREAM_BUFFER // 1024 + 512


def resident_kib(pod: Pod) -> int:
    """Of hyperstart, which is the child of the driver's unshare."""
    lines = Path(f"/proc/{pod.hyperstart_pid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


# --- Ends ---


async def test_children_that_keep_the_pipes_do_not_hold_up_the_end(pod: Pod) -> None:
    async with asyncio.timeout(PATIENCE_S):
        result = await pod.shell("sleep 1000 & echo said; exit 4")
    assert (result.status, result.output) == (4, b"said\n")


async def test_children_that_go_on_writing_do_not_hold_up_the_end(pod: Pod) -> None:
    async with asyncio.timeout(PATIENCE_S):
        result = await pod.shell("(while :; do echo more; done) & sleep 0.1; exit 4")
    assert result.status == 4
    assert set(result.lines) <= {"more", "mor", "mo", "m"}


async def test_what_was_written_just_before_the_end_arrives(pod: Pod) -> None:
    size = 60_000  # fits the pipe, so that the process ends with all of it unread
    for _ in range(5):
        result = await pod.shell(f"head -c {size} /dev/zero")
        assert len(result.output) == size


# --- Connections ---


async def test_a_new_connection_in_the_middle_of_output_loses_and_doubles_nothing(pod: Pod) -> None:
    script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo line $i of many; done"
    expected = "".join(f"line {i} of many\n" for i in range(1, 30001)).encode()
    process = await pod.start("sh", "-c", script)
    number, collected = process.number, b""
    for round_ in range(6):
        collected += await read_some(process, 50_000)
        if round_ % 2:  # what was read is not always what was acknowledged
            process.stored(Stream.STDOUT, len(collected))
        resume = {number: {Stream.STDOUT: len(collected), Stream.STDERR: 0}}
        await pod.reconnect(resume=resume)
        process = pod.agent.process(number)
    while (output := await process.read()) is not None:
        assert output.offset == len(collected)
        collected += output.data
        process.stored(Stream.STDOUT, len(collected))
    assert collected == expected
    assert (await process.exited()).status == 0


async def read_some(process: Process, size: int) -> bytes:
    data = b""
    while len(data) < size:
        output = await process.read()
        if output is None:
            break
        data += output.data
    return data


async def test_input_goes_on_after_a_new_connection(pod: Pod) -> None:
    data = os.urandom(3 * MIB)
    process = await pod.start("sha256sum", stdin=True)
    number = process.number
    await process.write(data[:MIB])
    for part in (data[MIB : 2 * MIB], data[2 * MIB :]):
        await pod.reconnect(previous=pod.agent)
        process = pod.agent.process(number)
        await process.write(part)
    await process.write_end()
    assert (await finish(process)).output.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_an_end_that_was_not_recorded_is_told_again(pod: Pod) -> None:
    process = await pod.start("sh", "-c", "echo last words; exit 9")
    first = await finish(process, forget=False)
    for _ in range(3):
        await pod.reconnect(resume={process.number: {}})
        (state,) = pod.agent.welcome.processes
        assert (state.is_running, state.status, state.stdout_produced) == (False, 9, len(first.output))
        # it was acknowledged: nothing of it comes again but its end
        await pod.reconnect(resume={process.number: {Stream.STDOUT: len(first.output)}})
        again = pod.agent.process(process.number)
        assert await again.read() is None
        assert (await again.exited()).at_ns == first.exited.at_ns
    await again.forget()
    await pod.reconnect()
    assert pod.agent.welcome.processes == ()


async def test_a_process_that_ended_without_hyperd_is_told_of(pod: Pod) -> None:
    process = await pod.start("sh", "-c", "sleep 0.2; echo alone; exit 6")
    await pod.agent.close()
    await asyncio.sleep(0.5)
    await pod.reconnect(resume={process.number: {}})
    result = await finish(pod.agent.process(process.number))
    assert (result.status, result.output) == (6, b"alone\n")


async def test_many_connections_leave_nothing_behind(pod: Pod) -> None:
    process = await pod.start("cat", stdin=True)
    before = open_files(pod)
    for _ in range(50):
        await pod.reconnect(previous=pod.agent)
    assert open_files(pod) == before
    process = pod.agent.process(process.number)
    await process.write(b"still there")
    await process.write_end()
    assert (await finish(process)).output == b"still there"


def open_files(pod: Pod) -> int:
    return len(list(Path(f"/proc/{pod.hyperstart_pid()}/fd").iterdir()))


async def test_processes_and_connections_that_end_give_all_back(pod: Pod) -> None:
    await pod.run("cat", stdin=b"x")
    before = open_files(pod)
    for _ in range(30):
        await pod.run("cat", stdin=b"x" * 1000)
        await pod.run("true", terminal=True)
    assert open_files(pod) == before


# --- Speed and rest ---


async def test_streams_are_fast_enough(pod: Pod) -> None:
    """No measurement: ten times slower than it is would be a fault.  Its own time counts: hosts are busy."""
    size = 20 * MIB
    process = await pod.start("cat", stdin=True)
    before = cpu_ticks(pod)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(feed_zeros(process, size))
        result = group.create_task(finish(process))
    assert len(result.result().output) == size
    assert (cpu_ticks(pod) - before) / os.sysconf("SC_CLK_TCK") < size / (8 * MIB)


async def feed_zeros(process: Process, size: int) -> None:
    for _ in range(size // MIB):
        await process.write(bytes(MIB))
    await process.write_end()


async def test_an_idle_hyperstart_uses_no_cpu(pod: Pod) -> None:
    await pod.start("sleep", "60", stdin=True)
    for is_connected in (True, False):
        if not is_connected:
            await pod.agent.close()
        before = cpu_ticks(pod)
        await asyncio.sleep(1)
        assert cpu_ticks(pod) - before <= 1


def cpu_ticks(pod: Pod) -> int:
    stat = Path(f"/proc/{pod.hyperstart_pid()}/stat").read_text()
    return sum(map(int, stat.rpartition(")")[2].split()[11:13]))


async def test_a_torn_frame_does_not_take_the_next_hello_with_it(pod: Pod) -> None:
    for rubbish in (b"\xc0\x01\x02", b"\xdb", b"half a frame", bytes(300_000), b"\xc0" * 10):
        await pod.agent.close()
        channel = await pod.machine.connect()
        channel.writer.write(rubbish)
        await channel.writer.drain()
        channel.writer.close()
        await channel.writer.wait_closed()
        await pod.reconnect()
    assert await read_until(await pod.start("echo", "well"), b"well") == b"well\n"
