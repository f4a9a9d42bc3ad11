"""Containers: what their processes see, and what outlives them."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest.protocol import NO_SLOT, GetStatistics, RemoveContainer, Source, Statistics
from tests.guest.laboratory import IMAGE_SLOT, POD_SLOT, Pod, a_bind, a_file, a_tmpfs, as_root, finish


async def test_what_is_written_goes_to_the_writable_directory_and_not_to_the_image(
    pod: Pod, image: Path
) -> None:
    await pod.output("echo changed >/etc/passwd; echo new >/new; rm /etc/group")
    upper = pod.writable / "c1/upper"
    assert (upper / "new").read_text() == "new\n"
    assert (upper / "etc/passwd").read_text() == "changed\n"
    assert "root:x:0:0" in (image / "etc/passwd").read_text()
    assert not (image / "new").exists()
    assert (image / "etc/group").exists()


async def test_what_was_written_is_there_in_the_next_container_of_the_directory(pod: Pod) -> None:
    await pod.output("echo kept >/kept; rm /etc/group")
    await pod.agent.request(RemoveContainer("c1", erase=False))
    await pod.create("c1")
    assert await pod.output("cat /kept; ls /etc/group 2>&1 | grep -c No") == "kept\n1\n"
    await pod.agent.request(RemoveContainer("c1", erase=True))
    assert not (pod.writable / "c1").exists()


async def test_a_container_without_a_writable_directory_keeps_its_changes_in_memory(bare: Pod) -> None:
    await bare.create(writable=Source(NO_SLOT, ""))
    assert await bare.output("echo x >/x; cat /x") == "x\n"
    assert list(bare.writable.iterdir()) == []
    await bare.agent.request(RemoveContainer("c1", erase=True))


async def test_a_read_only_root_is_read_only_and_its_mounts_are_not(bare: Pod) -> None:
    await bare.create(
        read_only=True,
        mounts=(a_tmpfs("/scratch", "size=1m,mode=1777"), a_bind(Source(POD_SLOT, "volumes/v1"), "/volume")),
        files=(a_file("/etc/hosts", b"hosts\n"),),
    )
    assert (await bare.shell("echo x >/x")).status != 0
    assert await bare.output(
        "echo x >/scratch/x; echo y >/volume/y; cat /scratch/x /volume/y /etc/hosts"
    ) == ("x\ny\nhosts\n")
    assert (bare.writable / "volumes/v1/y").read_text() == "y\n"


@as_root
async def test_files_are_laid_over_the_root(bare: Pod) -> None:
    files = (
        a_file("/etc/hosts", b"127.0.0.1 localhost\n"),
        a_file("/etc/passwd", b"over\n", mode=0o600, owner="1000:10"),
        a_file("/new/deep/file", b"made\n", mode=0o755),
        a_file("/empty", b""),
    )
    await bare.create(files=files)
    assert (
        await bare.output("cat /etc/hosts /etc/passwd /new/deep/file /empty")
        == "127.0.0.1 localhost\nover\nmade\n"
    )
    assert (await bare.output("stat -c '%a %u %g' /etc/passwd /new/deep/file")).splitlines() == [
        "600 1000 10",
        "755 0 0",
    ]
    assert await bare.output("echo more >>/etc/hosts; tail -n 1 /etc/hosts") == "more\n"


async def test_binds_are_of_directories_and_files_and_may_be_read_only(bare: Pod) -> None:
    (bare.writable / "file").write_text("file\n")
    mounts = (
        a_bind(Source(POD_SLOT, "made/when/absent"), "/data"),
        a_bind(Source(POD_SLOT, "file"), "/one/file", "ro"),
        a_bind(Source(IMAGE_SLOT, "etc"), "/image-etc", "ro,nosuid,nodev"),
        a_bind(Source(POD_SLOT, "made"), "/again", "rbind,rprivate,rw"),
    )
    await bare.create(mounts=mounts)
    assert await bare.output("echo x >/data/x; cat /one/file /again/when/absent/x; ls /image-etc") == (
        "file\nx\ngroup\npasswd\n"
    )
    for script in ("echo x >/one/file", "touch /image-etc/x"):
        assert (await bare.shell(script)).status != 0
    assert "nosuid,nodev" in await bare.output("grep image-etc /proc/mounts")


async def test_a_volume_is_shared_by_containers(bare: Pod) -> None:
    volume = a_bind(Source(POD_SLOT, "shared"), "/shared")
    await bare.create("c1", mounts=(volume,))
    await bare.create("c2", mounts=(volume,))
    await bare.output("echo one >/shared/x")
    assert await bare.output("cat /shared/x", container="c2") == "one\n"


@pytest.mark.parametrize(
    "mount",
    [
        a_tmpfs("/x", "no-such-option=1"),
        a_tmpfs("/etc/passwd/x"),
        a_tmpfs("/x", "size=1m," * 40),
        a_bind(Source(9, ""), "/x"),
        a_bind(Source(POD_SLOT, "../../../etc"), "/etc/passwd"),
    ],
)
async def test_a_mount_that_cannot_be_made_is_told_and_undone(bare: Pod, mount: object) -> None:
    with pytest.raises(GuestError):
        await bare.create(mounts=(mount,))  # type: ignore[arg-type]
    await bare.create()
    assert await bare.output("echo fine") == "fine\n"


async def test_a_source_cannot_lead_out_of_its_slot(bare: Pod) -> None:
    (bare.writable / "link").symlink_to("/etc")
    await bare.create(
        mounts=(a_bind(Source(POD_SLOT, "../../../escape"), "/x"), a_bind(Source(POD_SLOT, "link"), "/y"))
    )
    assert (bare.writable / "escape").is_dir()
    assert (bare.writable / "etc").is_dir()  # inside the slot
    assert await bare.output("ls /x /y | wc -w") == "2\n"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "hyperstart", "cgroup.procs", "x" * 129, "a b", "ü"]
)
async def test_names_that_are_no_names_are_refused(bare: Pod, name: str) -> None:
    with pytest.raises(GuestError) as caught:
        await bare.create(name, writable=Source(POD_SLOT, "w"))
    assert caught.value.errno == errno.EINVAL


async def test_a_container_is_created_once_and_removed_once(pod: Pod) -> None:
    with pytest.raises(GuestError) as caught:
        await pod.create("c1")
    assert caught.value.errno == errno.EEXIST
    await pod.agent.request(RemoveContainer("c1", erase=True))
    with pytest.raises(GuestError) as caught:
        await pod.agent.request(RemoveContainer("c1", erase=True))
    assert caught.value.errno == errno.ENOENT


@as_root
async def test_removing_a_container_ends_what_runs_in_it(pod: Pod) -> None:
    process = await pod.start("sh", "-c", "trap '' TERM; sleep 60 & sleep 60")
    await pod.agent.request(RemoveContainer("c1", erase=True))
    while await process.read() is not None:
        pass
    assert (await process.exited()).status == 137
    await pod.create("c2")
    await pod.output(
        "while ps -o comm | grep -q sleep; do :; done", container="c2"
    )  # killed, and to be reaped


async def test_an_image_that_is_missing_is_told(bare: Pod) -> None:
    with pytest.raises(GuestError) as caught:
        await bare.create(image=Source(7, ""))
    assert caught.value.errno == errno.ENODEV


# --- What they see ---


@as_root
async def test_dev_has_what_docker_gives(pod: Pod) -> None:
    names = (await pod.output("ls -1 /dev")).split()
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue"} <= set(names)
    assert {"fd", "stdin", "stdout", "stderr"} <= set(names)
    assert (
        await pod.output("head -c 4 /dev/zero | wc -c; echo x >/dev/null; head -c 4 /dev/urandom | wc -c")
        == "4\n4\n"
    )
    assert (await pod.shell("echo x >/dev/full")).status != 0
    assert await pod.output("echo x >/dev/null", user="joe") == ""


async def test_proc_is_the_pods_and_tells_little(pod: Pod) -> None:
    assert (await pod.output("cat /proc/1/comm")) == "hyperstart\n"
    for script in ("echo 1 >/proc/sys/kernel/printk", "mkdir /sys/x", "echo b >/proc/sysrq-trigger"):
        assert (await pod.shell(script)).status != 0, script
    assert await pod.output("cat /proc/keys /proc/timer_list /proc/interrupts") == ""
    assert "/run/hyper" not in await pod.output("cat /proc/mounts; cat /proc/self/mountinfo")


async def test_hyperstarts_own_root_is_not_reached(pod: Pod) -> None:
    for script in ("ls /proc/1/root/", "cat /proc/1/environ", "readlink /proc/1/fd/0", "ls /proc/1/cwd/"):
        assert (await pod.shell(script)).status != 0, script
    assert await pod.output("ls -d /../../disks /../init 2>&1 | grep -c 'No such'") == "2\n"


async def test_containers_share_what_a_pod_shares_and_not_their_mounts(pod: Pod) -> None:
    await pod.create("c2")
    await pod.output("echo x >/dev/shm/x; mkdir /only-here")
    assert await pod.output("cat /dev/shm/x; ls -d /only-here 2>&1 | grep -c No", container="c2") == "x\n1\n"
    spaces = "for n in pid net ipc uts user; do readlink /proc/self/ns/$n; done"
    assert await pod.output(spaces) == await pod.output(spaces, container="c2")
    assert await pod.output("readlink /proc/self/ns/mnt") != await pod.output(
        "readlink /proc/self/ns/mnt", container="c2"
    )
    await pod.start("sleep", "1234")
    assert "sleep 1234" in await pod.output("ps", container="c2")


async def test_statistics_name_each_container(pod: Pod) -> None:
    await pod.create("c2")
    await pod.output("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    statistics = await pod.agent.request(GetStatistics())
    assert isinstance(statistics, Statistics)
    usage = {each.container: each for each in statistics.containers}
    assert set(usage) == {"c1", "c2"}
    assert usage["c1"].cpu_ns >= usage["c2"].cpu_ns
    assert 0 < statistics.memory_used_bytes < statistics.memory_total_bytes
    assert 0 < statistics.memory_available_bytes <= statistics.memory_total_bytes


async def test_containers_are_made_side_by_side_and_what_follows_waits_for_them(bare: Pod) -> None:
    names = [f"n{number}" for number in range(20)]
    volume = a_bind(Source(POD_SLOT, "volumes/v"), "/etc", populate=True)
    making = [asyncio.ensure_future(bare.create(name, mounts=(volume,))) for name in names]
    failing = asyncio.ensure_future(bare.create("n3"))
    started = [asyncio.ensure_future(bare.start("ls", "/etc", container=name)) for name in names]
    assert await asyncio.gather(*making) == names
    with pytest.raises(GuestError) as caught:
        await failing
    assert caught.value.errno == errno.EEXIST
    for process in await asyncio.gather(*started):
        assert (await finish(process)).output == b"group\npasswd\n"
    for name in names:
        await bare.agent.request(RemoveContainer(name, erase=True))
