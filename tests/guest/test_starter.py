"""The job that built a container's root becomes its main process; where it cannot, another one does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from hypercontainer.guest.protocol import RemoveContainer
from tests.guest.laboratory import Pod, finish

_WAITING = "ps -o pid,comm | sed -n 's/ *\\([0-9]*\\) starter/\\1/p'"


async def waiting_in(pod: Pod, count: int) -> str:
    """Their pids, once there are so many: the container is told of before its own takes that name."""
    return await pod.output(f"until [ $({_WAITING} | wc -l) = {count} ]; do sleep 0.02; done; {_WAITING}")


async def test_who_built_the_root_becomes_the_main_process_and_a_later_one_is_another(pod: Pod) -> None:
    waiting = await waiting_in(pod, 1)
    first = await pod.run("sh", "-c", "echo $$", is_main=True)
    assert first.output.decode() == waiting != ""
    assert await pod.output(_WAITING) == ""
    second = await pod.run("sh", "-c", "echo $$", is_main=True)
    assert second.status == 0
    assert second.output.decode() != waiting


async def test_the_main_process_has_the_streams_and_nothing_else_open(pod: Pod) -> None:
    result = await pod.run("sh", "-c", "ls /proc/self/fd; cat", stdin=b"given", is_main=True)
    assert result.output == b"0\n1\n2\n3\ngiven"  # 3 is ls reading the directory


@pytest.mark.parametrize("number", ["KILL", "TERM"])
async def test_one_that_was_sent_a_signal_while_it_waited_is_no_loss(pod: Pod, number: str) -> None:
    await pod.output(f"kill -{number} {await waiting_in(pod, 1)}", privileged=True)
    assert (await pod.run("echo", "here", is_main=True)).output == b"here\n"


async def test_one_that_is_killed_before_it_sees_its_order_is_no_loss(pod: Pod) -> None:
    waiting = await _starter(pod.hyperstart_pid())
    os.kill(waiting, signal.SIGSTOP)
    starting = asyncio.ensure_future(pod.run("cat", stdin=b"here", is_main=True))
    await asyncio.sleep(0.2)
    assert not starting.done()
    os.kill(waiting, signal.SIGKILL)
    assert (await starting).output == b"here"


async def _starter(hyperstart: int) -> int:
    children = Path(f"/proc/{hyperstart}/task/{hyperstart}/children")
    while True:
        for pid in children.read_text().split():
            with contextlib.suppress(FileNotFoundError):  # it was another job, which has ended
                if Path(f"/proc/{pid}/comm").read_text() == "starter\n":
                    return int(pid)
        await asyncio.sleep(0.01)


async def test_a_start_too_large_for_the_one_that_waits_is_another_process(pod: Pod) -> None:
    large = tuple(f"V{number}={'x' * 60_000}" for number in range(4))
    assert (await pod.run("sh", "-c", "echo ${#V3}", environment=large, is_main=True)).output == b"60000\n"


async def test_one_that_waits_is_no_process_of_the_container_and_goes_with_it(bare: Pod) -> None:
    await bare.create("c1")
    await bare.create("c2")
    await waiting_in(bare, 2)
    await bare.agent.request(RemoveContainer("c2", erase=True))
    await waiting_in(bare, 1)


async def test_a_command_that_is_not_there_is_told_of_and_the_next_runs(pod: Pod) -> None:
    with pytest.raises(Exception, match="nothing-like-it"):
        await pod.start("nothing-like-it", is_main=True)
    process = await pod.start("true", is_main=True)
    assert (await finish(process)).status == 0
