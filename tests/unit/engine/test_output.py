"""The output log: what was stored is read back once, whole and in order, whatever happened to the daemon."""

from __future__ import annotations

import asyncio
import os
import resource
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercontainer.engine.output import FOLLOWER_LAG, OutputLog, stored_offsets, tail_position
from hypercontainer.errors import Unavailable
from hypercontainer.guest.protocol import Stream


async def _read(log: OutputLog, *, start: int = 0) -> list[tuple[Stream, bytes]]:
    follower = log.follow(start=start)
    try:
        return [(record.stream, record.data) async for record in follower.records(follow=False)]
    finally:
        follower.close()


async def test_records_are_read_back_in_the_order_they_were_stored(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log")
    log.append(Stream.STDOUT, b"one")
    log.append(Stream.STDERR, b"two")
    log.append(Stream.STDOUT, b"three")
    assert await _read(log) == [
        (Stream.STDOUT, b"one"),
        (Stream.STDERR, b"two"),
        (Stream.STDOUT, b"three"),
    ]
    assert log.offsets == {Stream.STDOUT: 8, Stream.STDERR: 3}
    log.close()


@settings(max_examples=60, deadline=None)
@given(
    writes=st.lists(
        st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.binary(min_size=1)), max_size=8
    ),
    lost=st.integers(0, 200),
)
def test_a_torn_end_is_cut_off_and_the_offsets_say_what_is_left(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[Stream, bytes]], lost: int
) -> None:
    async def scenario() -> None:
        path = tmp_path_factory.mktemp("torn") / "log"
        log = OutputLog(path)
        for stream, data in writes:
            log.append(stream, data)
        log.close()
        os.truncate(path, max(0, path.stat().st_size - lost))
        again = OutputLog(path)
        read = await _read(again)
        assert read == writes[: len(read)]
        for stream in (Stream.STDOUT, Stream.STDERR):
            assert again.offsets[stream] == sum(len(data) for s, data in read if s == stream)
        again.append(Stream.STDOUT, b"more")
        assert await _read(again) == [*read, (Stream.STDOUT, b"more")]
        again.close()

    asyncio.run(scenario())


async def test_another_run_counts_from_zero_behind_what_is_stored(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log")
    log.append(Stream.STDOUT, b"first run")
    log.restart()
    assert log.offsets == {Stream.STDOUT: 0, Stream.STDERR: 0}
    log.append(Stream.STDOUT, b"second")
    log.close()
    assert stored_offsets(tmp_path / "log") == {Stream.STDOUT: 6, Stream.STDERR: 0}


async def test_a_follower_gets_what_comes_and_ends_with_the_process(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log")
    follower = log.follow()
    got: list[bytes] = []

    async def follow() -> None:
        async for record in follower.records(follow=True):
            got.append(record.data)

    task = asyncio.create_task(follow())
    for number in range(5):
        log.append(Stream.STDOUT, b"%d" % number)
        await asyncio.sleep(0)
    log.finish()
    await task
    assert b"".join(got) == b"01234"
    follower.close()
    log.close()


async def test_a_slow_throttling_follower_makes_the_writer_wait_and_others_do_not(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log")
    idle = log.follow()
    slow = log.follow(throttle=True)
    chunk = bytes(1 << 16)
    while log.size <= FOLLOWER_LAG:
        await asyncio.wait_for(log.room(), 1)
        log.append(Stream.STDOUT, chunk)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(log.room(), 0.05)
    slow.close()
    await asyncio.wait_for(log.room(), 1)
    idle.close()
    log.close()


async def test_a_full_disk_is_said_and_leaves_no_torn_record(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log")
    log.append(Stream.STDOUT, b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # stands in for a full file system
    try:
        with pytest.raises(Unavailable, match="cannot store output"):
            log.append(Stream.STDOUT, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.append(Stream.STDOUT, b"after")
    assert await _read(log) == [(Stream.STDOUT, b"before"), (Stream.STDOUT, b"after")]
    log.close()


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 4, 5, 6, 10])
@pytest.mark.parametrize("cuts", [(), (7,), (6,), (1, 2, 3, 20), tuple(range(41))])
@pytest.mark.parametrize("end", [b"", b"half"])
async def test_a_tail_is_the_last_lines(
    tmp_path: Path, lines: int, cuts: tuple[int, ...], end: bytes
) -> None:
    """However the output was cut into records."""
    log = OutputLog(tmp_path / "log")
    printed = [b"line %d\n" % number for number in range(6)] + ([end] if end else [])
    text = b"".join(printed)
    for start, stop in pairwise([0, *cuts, len(text)]):
        log.append(Stream.STDOUT, text[start:stop])
    position, skipped = tail_position(log.path, lines)
    found = b"".join(data for _, data in await _read(log, start=position))[skipped:]
    assert found == b"".join(printed[max(0, len(printed) - lines) :])
    log.close()
