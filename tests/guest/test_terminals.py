"""Terminals: as a shell's user knows them."""

from __future__ import annotations

import asyncio
import errno
import signal
from typing import Any

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest.agent import Process
from hypercontainer.guest.protocol import ResizeTerminal, SignalProcess
from tests.guest.laboratory import Pod, as_root, finish, read_until
from tests.support.waiting import PATIENCE_S

TERMINAL: dict[str, Any] = {"terminal": True, "rows": 24, "columns": 80, "stdin": True}


async def test_a_terminal_has_a_name_and_a_size(pod: Pod) -> None:
    result = await pod.shell("tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all", **TERMINAL)
    assert result.lines == ["/dev/pts/0", "24 80", "all"]
    assert result.errors == b""


async def test_a_new_size_is_told_by_sigwinch(pod: Pod) -> None:
    process = await pod.start(
        "sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done", **TERMINAL
    )
    await read_until(process, b"ready\r\n")
    await pod.agent.request(ResizeTerminal(process.number, 50, 132))
    assert b"50 132" in await read_until(process, b"\r\n")


async def test_what_has_no_terminal_cannot_be_resized(pod: Pod) -> None:
    process = await pod.start("sleep", "60")
    for number, expected in ((process.number, errno.ENOTTY), (999_999, errno.ESRCH)):
        with pytest.raises(GuestError) as caught:
            await pod.agent.request(ResizeTerminal(number, 1, 1))
        assert caught.value.errno == expected


async def test_ctrl_c_interrupts_and_ctrl_d_ends(pod: Pod) -> None:
    process = await pod.start("sh", "-c", "echo ready; exec cat", **TERMINAL)
    await read_until(process, b"ready\r\n")
    await process.write(b"\x03")
    assert (await finish_all(process)) == 128 + signal.SIGINT
    process = await pod.start("sh", "-c", "echo ready; exec cat", **TERMINAL)
    await read_until(process, b"ready\r\n")
    await process.write(b"\x04")
    assert (await finish_all(process)) == 0


async def finish_all(process: Process) -> int:
    async with asyncio.timeout(PATIENCE_S):
        while await process.read() is not None:
            pass
        return (await process.exited()).status


@pytest.mark.parametrize("text", [b"", b"whole line\n", b"begun line"])
async def test_the_end_of_input_is_ctrl_d(pod: Pod, text: bytes) -> None:
    process = await pod.start("sh", "-c", "stty -echo; echo ready; exec wc -c", **TERMINAL)
    await read_until(process, b"ready\r\n")
    await process.write(text)
    await process.write_end()
    assert str(len(text)).encode() in await read_until(process, b"\r\n")
    assert await finish_all(process) == 0


async def test_an_interactive_shell_echoes_and_answers(pod: Pod) -> None:
    process = await pod.start("sh", "-i", **TERMINAL)
    await process.write(b"echo $((6 * 7))\n")
    assert b"42\r\n" in await read_until(process, b"42\r\n")
    await process.write(b"exit 3\n")
    assert await finish_all(process) == 3


async def test_the_console_is_the_terminal_of_the_main_process(pod: Pod) -> None:
    process = await pod.start(
        "sh", "-c", "echo through >/dev/console; ls -l /dev/console", is_main=True, **TERMINAL
    )
    result = await finish(process)
    assert result.output.startswith(b"through\r\n")
    assert b"136," in result.output


@as_root
async def test_a_terminal_belongs_to_its_user(pod: Pod) -> None:
    result = await pod.shell(
        "ls -ln $(tty) | cut -c1-10; ls -ln $(tty); echo again >$(tty)", user="joe", **TERMINAL
    )
    assert result.lines[0] == "crw--w----"
    assert result.lines[1].split()[2] == "1000"
    assert result.lines[-1] == "again"


async def test_a_terminal_that_is_killed_ends_its_job(pod: Pod) -> None:
    process = await pod.start("sh", "-c", "sleep 60", **TERMINAL)
    await pod.agent.request(SignalProcess(process.number, signal.SIGKILL, False))
    assert await finish_all(process) == 137


async def test_containers_have_terminals_of_their_own(pod: Pod) -> None:
    await pod.create("c2")
    first = await pod.start("sh", "-c", "tty; exec cat", **TERMINAL)
    await read_until(first, b"/dev/pts/0\r\n")
    second = await pod.start("sh", "-c", "tty; ls /dev/pts; exec cat", container="c2", **TERMINAL)
    assert b"/dev/pts/0\r\n" in await read_until(second, b"ptmx")
