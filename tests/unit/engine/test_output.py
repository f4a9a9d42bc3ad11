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

from hypercontainer.engine.follower import FOLLOWER_LAG
from hypercontainer.engine.output import OutputLog, Retention, stored_offsets
from hypercontainer.errors import Unavailable
from hypercontainer.guest.protocol import Stream
from tests.support.waiting import PATIENCE_S


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
        for segment in path.parent.iterdir():
            os.truncate(segment, max(0, segment.stat().st_size - lost))
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
        await asyncio.wait_for(log.room(), PATIENCE_S)
        log.append(Stream.STDOUT, chunk)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(log.room(), 0.05)
    slow.close()
    await asyncio.wait_for(log.room(), PATIENCE_S)
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
    position, skipped = log.tail(lines)
    found = b"".join(data for _, data in await _read(log, start=position))[skipped:]
    assert found == b"".join(printed[max(0, len(printed) - lines) :])
    log.close()


# --- Rotation ---

SMALL = Retention(size=1000, files=3)


def _fill(log: OutputLog, numbers: range) -> list[bytes]:
    pieces = [b"%05d\n" % number * 10 for number in numbers]
    for piece in pieces:
        log.append(Stream.STDOUT, piece)
    return pieces


async def test_only_the_newest_segments_are_kept(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log", keep=SMALL)
    pieces = _fill(log, range(100))
    kept = [data for _, data in await _read(log, start=log.start)]
    assert kept == pieces[-len(kept) :]
    assert 10 < len(kept) < 40
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 3 * 1000
    log.close()


async def test_a_rotated_log_knows_after_a_restart_how_far_its_streams_have_come(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log", keep=SMALL)
    log.append(Stream.STDERR, b"early")
    _fill(log, range(100))
    log.close()
    again = OutputLog(tmp_path / "log", keep=SMALL)
    assert again.offsets == {Stream.STDOUT: 6000, Stream.STDERR: 5}
    assert (again.size, again.start, again.run_start) == (log.size, log.start, log.run_start)
    again.append(Stream.STDOUT, b"more")
    assert (await _read(again, start=again.start))[-1] == (Stream.STDOUT, b"more")
    again.close()


async def test_what_an_attached_client_has_not_read_is_not_rotated_away(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log", keep=SMALL)
    attached = log.follow(throttle=True)
    pieces = _fill(log, range(100))
    assert len(log.segments) > SMALL.files
    assert [record.data async for record in attached.records(follow=False)] == pieces
    attached.close()
    assert len(log.segments) == SMALL.files
    log.close()


async def test_who_only_looks_loses_what_is_rotated_away_and_goes_on_behind_it(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log", keep=SMALL)
    looking = log.follow()
    pieces = _fill(log, range(100))
    seen = [record.data async for record in looking.records(follow=False)]
    assert seen == pieces[-len(seen) :]
    looking.close()
    log.close()


async def test_a_follower_reads_on_when_the_log_is_removed(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log", keep=SMALL)
    pieces = _fill(log, range(30))
    attached = log.follow(log.start, throttle=True)
    log.remove()
    assert list(tmp_path.iterdir()) == []
    seen = [record.data async for record in attached.records(follow=True)]
    assert seen == pieces[-len(seen) :]
    attached.close()


@pytest.mark.parametrize("lines", [0, 1, 5, 25, 1000])
async def test_a_tail_goes_over_segments(tmp_path: Path, lines: int) -> None:
    log = OutputLog(tmp_path / "log", keep=SMALL)
    text = b"".join(_fill(log, range(100)))
    kept = b"".join(data for _, data in await _read(log, start=log.start))
    assert text.endswith(kept)
    position, skipped = log.tail(lines)
    found = b"".join(data for _, data in await _read(log, start=position))[skipped:]
    assert found.splitlines() == kept.splitlines()[-lines:] * bool(lines)
    log.close()


# --- Clients that come back ---


@pytest.mark.parametrize("seen", [0, 1, 59, 60, 61, 3000, 5999, 6000])
async def test_a_client_that_comes_back_gets_what_it_has_not_seen(tmp_path: Path, seen: int) -> None:
    log = OutputLog(tmp_path / "log", keep=Retention(size=1000, files=0))
    log.append(Stream.STDERR, b"an earlier run")
    log.restart()
    text = b"".join(_fill(log, range(100)))
    log.append(Stream.STDERR, b"error")
    offsets = {Stream.STDOUT: seen, Stream.STDERR: 2}
    follower = log.follow(log.position_of(offsets), seen=offsets)
    got = {Stream.STDOUT: b"", Stream.STDERR: b""}
    async for record in follower.records(follow=False):
        got[record.stream] += record.data
    assert got == {Stream.STDOUT: text[seen:], Stream.STDERR: b"ror"}
    follower.close()
    log.close()


async def test_a_follower_of_one_run_ends_where_the_next_begins(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log", keep=SMALL)
    log.append(Stream.STDOUT, b"first")
    of_first = log.follow(log.run_start, throttle=True)
    over_all = log.follow(log.start)
    log.end_run()
    log.restart()
    log.append(Stream.STDOUT, b"second")
    assert [record.data async for record in of_first.records(follow=True)] == [b"first"]
    assert [record.data async for record in over_all.records(follow=False)] == [b"first", b"second"]
    of_first.close()
    over_all.close()
    log.close()
