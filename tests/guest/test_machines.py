"""hyperstart in real machines: what namespaces cannot show.  Disks, limits, memory, power."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest import boot
from hypercontainer.guest.protocol import (
    GetStatistics,
    RemoveContainer,
    Setting,
    ShutDown,
    SignalProcess,
    Source,
    Statistics,
    TearDownPod,
)
from hypercontainer.hypervisors.base import load
from hypercontainer.model.machine import Disk, MachineConfig
from tests.guest.laboratory import POD_SLOT, Pod, a_bind, build, connect, finish, make_initramfs, read_until
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.needs_machine
MIB = 1 << 20


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_initramfs(build("hyperstart"), tmp_path_factory.mktemp("initramfs"))


@pytest.fixture(scope="session")
def squashfs(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disk") / "image.squashfs"
    command = ["mksquashfs", str(image), str(path), "-quiet", "-no-progress", "-comp", "zstd", "-all-root"]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disk") / "pod.ext4"
    path.touch()
    os.truncate(path, 64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", str(path)], check=True)
    return path


@pytest.fixture(params=["uml", "tcg"])
async def vm(
    request: pytest.FixtureRequest, archive: Path, squashfs: Path, ext4: Path, tmp_path: Path
) -> AsyncIterator[Pod]:
    """A machine with a pod's disk and an image's, as the engine makes it."""
    driver = load(request.param)
    if reason := await driver.missing(cache=tmp_path):
        pytest.skip(reason)
    shutil.copy(ext4, tmp_path / "pod.ext4")
    (tmp_path / "run").mkdir()
    disks = (
        Disk(path=tmp_path / "pod.ext4", read_only=False),
        *(Disk(path=squashfs, read_only=True) for _ in range(2)),
    )
    config = MachineConfig(
        id="m1",
        vcpus=1,
        memory_mib=max(64, driver.capabilities.min_memory_mib),
        kernel=boot.find_kernel(driver.capabilities.kernel).path,
        initramfs=archive,
        disks=disks,
    )
    machine = await driver.launch(config, tmp_path / "run")
    try:
        pod = Pod(machine, await connect(machine), tmp_path)
        yield pod
        await pod.agent.close()
    finally:
        await machine.kill()
        print(machine.console())  # shown when the test failed


async def test_a_container_runs_from_its_disks_and_they_are_clean_after(vm: Pod, tmp_path: Path) -> None:
    await vm.set_up(hostname="inside")
    await vm.create()
    script = (
        "hostname; echo kept >/kept; cat /etc/passwd | head -n 1; ls /dev; df / | tail -n 1 | cut -d ' ' -f 1"
    )
    lines = (await vm.output(script)).splitlines()
    assert lines[:2] == ["inside", "root:x:0:0:root:/root:/bin/sh"]
    assert lines[-1] == "overlay"
    assert len({"ubda", "ubdb", "ubdc", "sda", "sdb", "sdc"} & set(lines)) == 3
    await vm.agent.request(ShutDown())
    async with asyncio.timeout(PATIENCE_S):
        await vm.machine.wait()
    check = subprocess.run(["e2fsck", "-fn", str(tmp_path / "pod.ext4")], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    assert "recovering journal" not in check.stdout
    listing = subprocess.run(
        ["debugfs", "-R", "cat /c1/upper/kept", str(tmp_path / "pod.ext4")], capture_output=True, text=True
    )
    assert listing.stdout == "kept\n"


async def test_a_pod_is_replaced_by_another_in_the_same_machine(vm: Pod) -> None:
    for number in range(3):
        await vm.set_up(hostname=f"pod{number}", sysctls=(Setting("vm.overcommit_memory", "1"),))
        await vm.create(f"c{number}", mounts=(a_bind(Source(POD_SLOT, "volume"), "/volume"),))
        assert await vm.output(
            f"hostname; echo {number} >>/volume/log; cat /volume/log", container=f"c{number}"
        ) == (f"pod{number}\n" + "".join(f"{i}\n" for i in range(number + 1)))
        process = await vm.start(
            "sh", "-c", "trap '' TERM; while :; do echo x >/x; done", container=f"c{number}"
        )
        await vm.agent.request(TearDownPod())
        assert (await finish(process)).status == 137


async def test_when_memory_runs_out_the_pods_init_is_spared_and_its_processes_are_not(vm: Pod) -> None:
    await vm.set_up()
    await vm.create()
    assert await vm.output("cat /proc/self/oom_score_adj /proc/1/oom_score_adj") == "0\n-1000\n"


async def test_limits_hold(vm: Pod) -> None:
    await vm.set_up()
    await vm.create("small", memory_bytes=16 * MIB, cpu_millis=500, pids=20)
    bomb = await vm.start(
        "sh", "-c", "b() { b | b & }; b & while :; do :; done", container="small", is_main=True
    )
    await asyncio.sleep(0.5)
    assert int((await vm.output("cat /sys/fs/cgroup/pids.current", container="small")).strip()) <= 21
    statistics = await vm.agent.request(GetStatistics())
    assert isinstance(statistics, Statistics)
    (usage,) = statistics.containers
    assert 1 <= usage.pids <= 21  # a shell that cannot fork ends
    assert usage.cpu_ns > 0
    assert 0 < usage.memory_bytes <= 16 * MIB
    await vm.agent.request(SignalProcess(bomb.number, 9, True))
    assert (await finish(bomb)).status == 137
    limits = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max; cat /proc/self/cgroup"
    assert await vm.output(limits, container="small") == f"{16 * MIB}\n50000 100000\n20\n0::/\n"
    assert (await vm.shell("echo 100 >/sys/fs/cgroup/pids.max", container="small")).status != 0


async def test_statistics_tell_what_a_container_used_of_cpu_memory_and_disks(vm: Pod) -> None:
    await vm.set_up()
    await vm.create("c1", memory_bytes=16 * MIB)
    await vm.output("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    await vm.output("dd if=/dev/zero of=/data bs=1M count=8; sync; cat /bin/busybox >/dev/null")
    statistics = await vm.agent.request(GetStatistics())
    assert isinstance(statistics, Statistics)
    (usage,) = statistics.containers
    assert usage.memory_limit_bytes == 16 * MIB
    assert usage.cpu_ns > 0  # User-Mode Linux counts all of it as the system's
    assert abs(usage.cpu_user_ns + usage.cpu_system_ns - usage.cpu_ns) < 10_000_000
    assert usage.written_bytes >= 8 * MIB
    assert usage.read_bytes > 0
    disks = {disk.slot: disk for disk in statistics.disks}
    assert disks[0].written_bytes >= 8 * MIB
    assert disks[0].writes > 0
    assert disks[0].capacity_bytes > disks[0].used_bytes >= 8 * MIB
    assert disks[0].files > 0
    assert disks[1].read_bytes > 0
    assert statistics.cpus == 1
    assert statistics.cpu_ns >= usage.cpu_ns // 2


async def test_a_command_in_the_machine_reads_the_kernels_log(vm: Pod) -> None:
    await vm.set_up()
    await vm.create("c1")
    result = await vm.shell("dmesg | head -3; ps -o pid,args", in_machine=True)
    assert result.status == 0, result
    assert "Linux version" in result.output.decode()
    assert any(line.split() == ["1", "hyperstart"] for line in result.lines)
    assert any("[kthreadd]" in line for line in result.lines)


async def test_out_of_memory_is_told_and_the_rest_lives(vm: Pod) -> None:
    await vm.set_up()
    await vm.create("small", memory_bytes=8 * MIB)
    await vm.create("other")
    other = await vm.start("cat", container="other", stdin=True)
    # all at once: a program that comes near to its limit by and by has its own text thrown out and read
    # again, for a minute, before the kernel says that there is no memory
    result = await vm.run("dd", "if=/dev/zero", "of=/dev/null", "bs=32M", container="small", is_main=True)
    assert (result.status, result.exited.out_of_memory) == (137, True)
    result = await vm.shell("kill -9 $$", container="other")
    assert (result.status, result.exited.out_of_memory) == (137, False)
    await other.write(b"alive")
    await other.write_end()
    assert (await finish(other)).output == b"alive"


async def test_a_new_connection_finds_everything(vm: Pod) -> None:
    await vm.set_up()
    await vm.create()
    process = await vm.start("sh", "-c", "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo line $i; done")
    number = process.number
    seen = await read_until(process, b"line 100\n")
    for _ in range(5):
        await vm.reconnect(resume={number: {1: len(seen), 2: 0}})
        output = await vm.agent.process(number).read()
        if output is not None:
            assert output.offset == len(seen)
            seen += output.data
    process = vm.agent.process(number)
    while (output := await process.read()) is not None:
        assert output.offset == len(seen)
        seen += output.data
    assert seen == "".join(f"line {i}\n" for i in range(1, 5001)).encode()


async def test_a_terminal_works(vm: Pod) -> None:
    await vm.set_up()
    await vm.create()
    process = await vm.start("sh", "-i", is_main=True, terminal=True, rows=24, columns=80, stdin=True)
    await process.write(b"stty size; tty; ls /dev/console; echo $((6 * 7))\n")
    seen = await read_until(process, b"42\r\n")
    assert b"24 80\r\n/dev/pts/0\r\n/dev/console\r\n" in seen
    await process.write(b"exit 5\n")
    while await process.read() is not None:
        pass
    assert (await process.exited()).status == 5


async def test_a_slot_is_free_once_its_container_is_removed(vm: Pod) -> None:
    await vm.set_up()
    await vm.create("c1", image=Source(1, ""))
    await vm.create("c2", image=Source(2, ""))
    await vm.agent.request(RemoveContainer("c2", erase=True))
    await vm.create("c2", image=Source(2, ""))
    assert await vm.output("echo fine", container="c2") == "fine\n"
    with pytest.raises(GuestError):
        await vm.create("c3", image=Source(5, ""))


async def test_binary_data_passes_the_channel(vm: Pod) -> None:
    await vm.set_up()
    await vm.create()
    data = os.urandom(2 * MIB) + bytes([0xC0, 0xDB] * 10_000)
    assert (await vm.run("cat", stdin=data)).output == data
