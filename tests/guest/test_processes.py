"""Processes: how they start, what they are given, and how they end."""

from __future__ import annotations

import asyncio
import errno
import signal

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest.protocol import ForgetProcess, SignalProcess
from tests.guest.laboratory import PATH, Pod, a_limit, a_process, as_root, finish, read_until

DOCKER_CAPABILITIES = "00000000a80425fb"


# --- Ends ---


async def test_the_exit_status_arrives(pod: Pod) -> None:
    assert (await pod.shell("exit 17")).status == 17
    assert (await pod.shell("exit 0")).status == 0
    assert (await pod.shell("exit 255")).status == 255


async def test_a_signal_is_128_and_its_number(pod: Pod) -> None:
    assert (await pod.shell("kill -9 $$")).status == 128 + signal.SIGKILL
    assert (await pod.shell("kill -TERM $$")).status == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("no-such-program", errno.ENOENT),
        ("/no/such/program", errno.ENOENT),
        ("not-executable", errno.EACCES),
        ("/bin", errno.EACCES),
        ("/bin/wrong-format", errno.ENOEXEC),
        ("", errno.ENOENT),
    ],
)
async def test_what_cannot_be_executed_is_refused_with_the_errno_of_execve(
    pod: Pod, program: str, expected: int
) -> None:
    with pytest.raises(GuestError, match="execve") as caught:
        await pod.start(program)
    assert caught.value.errno == expected
    assert await pod.output("echo fine") == "fine\n"


async def test_a_failed_start_leaves_nothing_behind(pod: Pod) -> None:
    for _ in range(20):
        with pytest.raises(GuestError):
            await pod.start("no-such-program")
    await pod.reconnect()
    assert pod.agent.welcome.processes == ()
    await pod.output("while ps -o stat | grep -q Z; do sleep 0.02; done")  # the last one may be on its way


async def test_a_process_number_is_used_once(pod: Pod) -> None:
    await pod.start("sleep", "60", process=77777)
    with pytest.raises(GuestError) as caught:
        await pod.agent.request(a_process("true", process=77777))
    assert caught.value.errno == errno.EEXIST
    await pod.reconnect()  # the agent took the refusal for the end of 77777
    await pod.agent.request(SignalProcess(77777, signal.SIGKILL, False))
    assert (await finish(pod.agent.process(77777))).status == 137


async def test_a_process_without_arguments_or_container_is_refused(pod: Pod) -> None:
    with pytest.raises(GuestError) as caught:
        await pod.agent.request(a_process())
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(GuestError) as caught:
        await pod.agent.request(a_process("true", container="nobody"))
    assert caught.value.errno == errno.ENOENT


async def test_forgetting_what_is_not_known_is_done(pod: Pod) -> None:
    await pod.agent.request(ForgetProcess(123456))


@as_root
async def test_the_end_of_the_main_process_ends_its_container_and_no_other(pod: Pod) -> None:
    await pod.create("c2")
    other = await pod.start("sleep", "60", container="c2")
    beside = await pod.start("sleep", "60")
    main = await pod.start("sh", "-c", "sleep 60 & sleep 0.1; exit 3", is_main=True)
    assert (await finish(main)).status == 3
    assert (await finish(beside)).status == 137
    count = "ps -o comm | grep -c sleep"  # what was killed takes a moment to go
    assert await pod.output(f"while [ $({count}) -gt 1 ]; do :; done; {count}", container="c2") == "1\n"
    await pod.agent.request(SignalProcess(other.number, signal.SIGTERM, False))
    assert (await finish(other)).status == 143


# --- Signals ---


async def test_a_signal_reaches_the_process_or_the_whole_container(pod: Pod) -> None:
    process = await pod.start(
        "sh", "-c", "trap 'echo hup; exit 5' HUP; echo ready; while :; do sleep 0.01; done"
    )
    await read_until(process, b"ready\n")
    await pod.agent.request(SignalProcess(process.number, signal.SIGHUP, False))
    result = await read_rest(pod, process.number)
    assert result == 5
    sleepers = [await pod.start("sleep", "60") for _ in range(3)]
    await pod.agent.request(SignalProcess(sleepers[0].number, signal.SIGTERM, True))
    assert [(await finish(each)).status for each in sleepers] == [143] * 3


async def read_rest(pod: Pod, number: int) -> int:
    process = pod.agent.process(number)
    while await process.read() is not None:
        pass
    return (await process.exited()).status


async def test_a_signal_to_what_has_ended_is_esrch(pod: Pod) -> None:
    process = await pod.start("true")
    await finish(process, forget=False)
    for number in (process.number, 424242):
        with pytest.raises(GuestError) as caught:
            await pod.agent.request(SignalProcess(number, signal.SIGTERM, False))
        assert caught.value.errno == errno.ESRCH
    with pytest.raises(GuestError) as caught:
        await pod.agent.request(SignalProcess(process.number, 0, False))
    assert caught.value.errno == errno.EINVAL


# --- What it is given ---


async def test_arguments_and_environment_arrive_as_given(pod: Pod) -> None:
    arguments = ("", "two words", "quote'\"", "tab\t", "ünï")
    result = await pod.run("sh", "-c", 'for each; do echo "<$each>"; done', "sh", *arguments)
    assert result.lines == [f"<{each}>" for each in arguments]
    environment = (PATH, "A=1", "B=with space", "HOME=/given")
    assert sorted((await pod.run("env", environment=environment)).lines) == sorted(environment)


@as_root
async def test_home_comes_from_passwd_unless_it_is_given(pod: Pod) -> None:
    assert await pod.output("echo $HOME", user="joe") == "/home/joe\n"
    assert await pod.output("echo $HOME", user="4711") == "/\n"
    assert await pod.output("echo $HOME", user="joe", environment=(PATH, "HOME=/x")) == "/x\n"


async def test_the_path_of_the_environment_decides(pod: Pod) -> None:
    await pod.output("mkdir /a /b; echo '#!/bin/sh\necho found' >/b/tool; chmod 755 /b/tool; echo >/a/tool")
    result = await pod.run("tool", environment=("PATH=/nowhere:/a:/b:/bin",))
    assert result.output == b"found\n"
    with pytest.raises(GuestError) as caught:
        await pod.start("tool", environment=("PATH=/a",))
    assert caught.value.errno == errno.EACCES
    assert (await pod.run("echo", "default", environment=())).output == b"default\n"


async def test_the_working_directory_is_made(pod: Pod) -> None:
    assert await pod.output("pwd; ls -ld . | cut -c1-10", working_directory="/deep/down/here") == (
        "/deep/down/here\ndrwxr-xr-x\n"
    )
    with pytest.raises(GuestError) as caught:
        await pod.start("true", working_directory="/etc/passwd")
    assert caught.value.errno == errno.ENOTDIR


@as_root
@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root)"),
        ("root", "uid=0(root) gid=0(root) groups=0(root)"),
        ("joe", "uid=1000(joe) gid=1000(joe) groups=10(wheel),63(audio)"),
        ("1000", "uid=1000(joe) gid=1000(joe) groups=10(wheel),63(audio)"),
        ("joe:wheel", "uid=1000(joe) gid=10(wheel)"),
        ("joe:0", "uid=1000(joe) gid=0(root)"),
        ("4711", "uid=4711 gid=0(root)"),
        ("4711:4712", "uid=4711 gid=4712"),
        (":wheel", "uid=0(root) gid=10(wheel)"),
    ],
)
async def test_users_are_resolved_as_docker_does(pod: Pod, user: str, expected: str) -> None:
    assert comparable((await pod.output("id", user=user)).strip()) == comparable(expected)


def comparable(text: str) -> tuple[str, set[str]]:
    """busybox lists the groups, without or with the own one, in an order of its own."""
    head, _, groups = text.partition(" groups=")
    own = head.partition("gid=")[2]
    return head, set(groups.split(",")) - {"", own}


@as_root
async def test_additional_groups_are_names_or_numbers(pod: Pod) -> None:
    groups = (await pod.output("id -G", user="4711:4712", groups=("wheel", "99"))).split()
    assert set(groups) == {"4712", "10", "99"}


@as_root
@pytest.mark.parametrize("user", ["nobody-here", "joe:no-group", "joe:", "1000:1x", "4294967295", "-1"])
async def test_users_that_there_are_not_are_refused(pod: Pod, user: str) -> None:
    if user == "joe:":  # as without the colon
        assert "uid=1000" in await pod.output("id", user=user)
        return
    with pytest.raises(GuestError, match="find"):
        await pod.start("true", user=user)


@as_root
async def test_root_has_the_capabilities_of_docker_and_others_none(pod: Pod) -> None:
    script = "grep -E 'Cap(Prm|Eff|Bnd|Inh|Amb)' /proc/self/status | cut -f2"
    none = "0" * 16
    assert (await pod.shell(script)).lines == [none, *[DOCKER_CAPABILITIES] * 3, none]
    assert (await pod.shell(script, user="joe")).lines == [none, none, none, DOCKER_CAPABILITIES, none]
    privileged = (await pod.shell(script, privileged=True)).lines
    assert int(privileged[1], 16) & (1 << 21), "CAP_SYS_ADMIN"


async def test_limits_are_set(pod: Pod) -> None:
    limits = (a_limit("nofile", 100, 200), a_limit("core", 0, 0))
    assert await pod.output("ulimit -Sn; ulimit -Hn; ulimit -c", limits=limits) == "100\n200\n0\n"
    for bad in (a_limit("nofiles", 1, 1), a_limit("nofile", 5, 4)):
        with pytest.raises(GuestError) as caught:
            await pod.start("true", limits=(bad,))
        assert caught.value.errno == errno.EINVAL


async def test_a_process_inherits_nothing_but_its_streams(pod: Pod) -> None:
    script = "ls -l /proc/self/fd | wc -l; grep -E 'Sig(Blk|Ign|Cgt)|ShdPnd' /proc/self/status | cut -f2"
    count, *signals = (await pod.shell(script)).lines
    assert int(count) == 5  # "total", the three, and the directory itself
    assert {int(mask, 16) & ~(3 << 31) for mask in signals} == {0}  # but 32 and 33, which are the C library's
    assert await pod.output("umask") == "0022\n"


@as_root
async def test_a_user_may_open_its_streams_again(pod: Pod) -> None:
    result = await pod.shell(
        "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin", stdin=b"in", user="joe"
    )
    assert (result.output, result.errors) == (b"out\nin", b"err\n")


async def test_without_stdin_it_reads_nothing(pod: Pod) -> None:
    assert await pod.output("cat; readlink /proc/self/fd/0") == "/dev/null\n"


# --- Many ---


async def test_a_hundred_processes_at_once(pod: Pod) -> None:
    processes = [await pod.start("sh", "-c", f"cat; exit {i}", stdin=True) for i in range(100)]
    for i, process in enumerate(processes):
        await process.write(b"%d" % i * 1000)
        await process.write_end()
    results = await asyncio.gather(*(finish(process) for process in processes))
    assert [result.status for result in results] == list(range(100))
    assert all(result.output == b"%d" % i * 1000 for i, result in enumerate(results))


async def test_orphans_are_reaped_by_the_pods_init(pod: Pod) -> None:
    await pod.output("for i in 1 2 3 4 5; do (sh -c 'sleep 0.05 & exit' &) ; done")
    await pod.output("while ps -o comm,stat | grep -qE '^sleep| Z'; do sleep 0.02; done")
    first = (await pod.shell("ps -o pid,comm")).lines[1].split()
    assert first == ["1", "hyperstart"]


async def test_the_pods_init_cannot_be_killed_from_inside(pod: Pod) -> None:
    await pod.shell("kill -9 1; kill -TERM 1; kill -INT 1; kill -STOP 1; kill -CHLD 1", privileged=True)
    assert await pod.output("ps -o pid,comm | grep -c hyperstart") == "1\n"
