"""What hyperstart tells of the pod: statistics, the process table; and commands outside of the pod."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest.protocol import (
    GetProcesses,
    GetStatistics,
    ProcessEntry,
    Processes,
    Statistics,
)
from tests.guest.laboratory import Pod, finish, read_until
from tests.support.waiting import PATIENCE_S


async def statistics_of(pod: Pod) -> Statistics:
    statistics = await pod.agent.request(GetStatistics())
    assert isinstance(statistics, Statistics)
    return statistics


async def table_of(pod: Pod, container: str = "") -> dict[str, ProcessEntry]:
    """By command line."""
    table = await pod.agent.request(GetProcesses(container))
    assert isinstance(table, Processes)
    return {entry.command: entry for entry in table.processes}


async def table_with(
    pod: Pod, command: str, condition: Callable[[ProcessEntry], bool], container: str = ""
) -> dict[str, ProcessEntry]:
    """The table once it has ``command`` so: a process gets there by and by."""
    async with asyncio.timeout(PATIENCE_S):
        table = await table_of(pod, container)
        while command not in table or not condition(table[command]):
            await asyncio.sleep(0.02)
            table = await table_of(pod, container)
    return table


# --- Statistics ---


async def test_the_machine_has_cpus_and_its_cpu_time_grows(pod: Pod) -> None:
    before = await statistics_of(pod)
    await pod.output("i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done")
    after = await statistics_of(pod)
    assert after.cpus >= 1
    assert after.cpu_ns > before.cpu_ns
    assert after.uptime_ns > before.uptime_ns


async def test_a_mounted_disk_tells_its_space(pod: Pod) -> None:
    await pod.output("echo x >/x")
    disks = {disk.slot: disk for disk in (await statistics_of(pod)).disks}
    assert set(disks) == {0, 1}
    assert 0 < disks[0].used_bytes <= disks[0].capacity_bytes


async def test_the_loopback_is_no_nic(pod: Pod) -> None:
    assert (await statistics_of(pod)).nics == ()


# --- The process table ---


async def test_the_table_has_who_runs_where_and_as_whom(pod: Pod) -> None:
    await pod.create("c2")
    sleeper = await pod.start("sleep", "1111", user="joe")
    await table_with(pod, "sleep 1111", lambda entry: entry.state == "S")
    await pod.start("sh", "-c", "sleep 2222 & wait", container="c2")
    table = await table_with(pod, "sleep 2222", lambda entry: entry.container == "c2")
    own = table["sleep 1111"]
    assert (own.container, own.user, own.state, own.terminal, own.parent) == ("c1", 1000, "S", "", 0)
    assert own.memory_bytes > 0
    assert table["sleep 2222"].parent == table["sh -c sleep 2222 & wait"].pid
    assert table["sleep 2222"].container == "c2"
    assert table["hyperstart"].pid == 1
    seen = await pod.output("ps -o pid,args | grep 'sleep 111[1]'")
    assert int(seen.split()[0]) == own.pid
    assert set(await table_of(pod, "c2")) == {"sleep 2222", "sh -c sleep 2222 & wait"}
    assert sleeper.number


async def test_times_and_terminals_are_those_that_ps_shows(pod: Pod) -> None:
    before = (await statistics_of(pod)).uptime_ns
    shell = await pod.start("sh", "-c", "tty; while :; do :; done", terminal=True)
    await read_until(shell, b"/dev/pts/0")
    command = "sh -c tty; while :; do :; done"
    entry = (await table_with(pod, command, lambda entry: entry.cpu_ns >= 100_000_000, "c1"))[command]
    assert (entry.terminal, entry.state) == ("pts/0", "R")
    assert before - 1e9 <= entry.started_ns <= (await statistics_of(pod)).uptime_ns


async def test_hostile_command_lines_are_cut_and_do_no_harm(pod: Pod) -> None:
    long = "x" * 100_000
    await pod.start("sh", "-c", "read x </dev/zero", "\x1b[2J\n) R 1 1 1", long)
    await asyncio.sleep(0.2)
    table = await pod.agent.request(GetProcesses("c1"))
    assert isinstance(table, Processes)
    (entry,) = table.processes
    assert entry.command.startswith("sh -c read x </dev/zero \x1b[2J\n) R 1 1 1 xxx")
    assert len(entry.command) < 5000


async def test_a_name_that_looks_like_the_rest_of_its_line_is_a_name(pod: Pod) -> None:
    await pod.output("cp /bin/busybox '/tmp/busybox) Z 99 9'")
    await pod.start("/tmp/busybox) Z 99 9", "sleep", "1000")
    await asyncio.sleep(0.2)
    (entry,) = (await table_of(pod, "c1")).values()
    assert entry.state in {"S", "R"}
    assert entry.parent == 0


async def test_a_thousand_processes_fit_and_no_more_are_told(pod: Pod) -> None:
    crowd = await pod.start("sh", "-c", "for i in $(seq 1100); do sleep 1000 & done; echo all; wait")
    await read_until(crowd, b"all\n")
    table = await pod.agent.request(GetProcesses(""))
    assert isinstance(table, Processes)
    assert len(table.processes) == 1000


async def test_a_table_of_no_container_is_refused(pod: Pod) -> None:
    with pytest.raises(GuestError, match="find container nothere"):
        await pod.agent.request(GetProcesses("nothere"))


# --- Outside of the pod ---


async def test_a_command_in_the_machine_sees_hyperstart_as_the_first_process(pod: Pod) -> None:
    main = await pod.start("sleep", "1234")
    result = await pod.run("ps", "-o", "pid,args", in_machine=True)
    assert result.status == 0, result
    assert any(line.split() == ["1", "hyperstart"] for line in result.lines)
    assert any(line.endswith("sleep 1234") for line in result.lines)
    assert main.number


async def test_a_command_in_the_machine_has_the_containers_files_and_the_machines_own(pod: Pod) -> None:
    await pod.output("echo mine >/mine; mkdir -p /run; echo hidden >/run/hidden")
    result = await pod.shell("cat /mine; ls /run; mount; pwd", in_machine=True)
    assert result.status == 0, result
    assert result.lines[0] == "mine"
    assert "hyper" in result.lines
    assert "hidden" not in result.lines
    targets = [line.split()[2] for line in result.lines if " on " in line]
    assert targets.count("/proc") == 1
    assert targets.count("/dev") == 1


async def test_a_command_in_the_machine_is_in_none_of_the_pods_namespaces(pod: Pod) -> None:
    spaces = "for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done"
    inside = (await pod.shell(spaces)).lines
    outside = (await pod.shell(spaces, in_machine=True)).lines
    assert len(outside) == 5
    assert not set(inside) & set(outside)
    own = [await pod.shell(f"readlink /proc/1/ns/{n}", in_machine=True) for n in ("pid", "net", "ipc", "uts")]
    assert [line for result in own for line in result.lines] == outside[:4]


async def test_a_command_in_the_machine_has_every_capability(pod: Pod) -> None:
    bits = "grep CapEff /proc/self/status"
    everything = (await pod.shell(bits, privileged=True)).lines
    assert (await pod.shell(bits, in_machine=True)).lines == everything


async def test_what_a_command_in_the_machine_mounts_others_do_not_see(pod: Pod) -> None:
    result = await pod.shell("mount -t tmpfs none /tmp && echo x >/tmp/x && ls /tmp", in_machine=True)
    assert result.lines == ["x"]
    assert await pod.output("ls /tmp") == ""


async def test_a_terminal_in_the_machine_is_of_the_machines_own(pod: Pod) -> None:
    result = await pod.run("tty", terminal=True, in_machine=True)
    assert result.status == 0, result
    assert result.output.startswith(b"/dev/pts/")


async def test_a_command_in_the_machine_ends_with_its_container(pod: Pod) -> None:
    main = await pod.start("cat", is_main=True, stdin=True)
    other = await pod.start("sh", "-c", "sleep 1000 & wait", in_machine=True)
    await main.write_end()
    assert (await finish(main)).status == 0
    assert (await finish(other)).status == 137
