"""Containers that want out, or want all for themselves."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest.protocol import Ping, RemoveContainer, SignalProcess, Source
from tests.guest.laboratory import POD_SLOT, Pod, a_bind, a_file, a_tmpfs, as_root, finish
from tests.support.waiting import PATIENCE_S


async def test_links_in_the_root_do_not_lead_mounts_and_files_out(pod: Pod, tmp_path: Path) -> None:
    """What the last container left in the writable directory is where the next one is built."""
    outside = tmp_path / "outside"
    outside.mkdir()
    await pod.output(
        f"ln -s {outside} /data; ln -s ../../../../../../{outside} /up; ln -s /proc/1/root{outside} /through;"
        "rm -rf /etc; ln -s /proc/self/root/tmp /etc"
    )
    await pod.agent.request(RemoveContainer("c1", erase=False))
    for target in ("/data/file", "/up/file", "/data"):
        await pod.create(
            "c1",
            files=(a_file(target, b"mine\n"),) if target != "/data" else (),
            mounts=(a_tmpfs("/up/mount"),),
        )
        assert list(outside.iterdir()) == []
        assert (await pod.shell("true")).status == 0
        await pod.agent.request(RemoveContainer("c1", erase=False))
    for target in ("/through/file", "/etc/hosts"):  # no magic link of /proc is followed at all
        with pytest.raises(GuestError):
            await pod.create("c1", files=(a_file(target, b"mine\n"),))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("where", ["/proc", "/dev", "/sys"])
async def test_mount_points_that_are_links_are_resolved_inside(pod: Pod, where: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    await pod.agent.request(RemoveContainer("c1", erase=False))
    upper = pod.writable / "c1/upper"
    point = upper / where[1:]
    if point.exists():
        point.rmdir()
    point.symlink_to(outside)
    await pod.create("c1")
    assert list(outside.iterdir()) == []
    assert await pod.output("echo inside") == "inside\n"


@as_root
@pytest.mark.parametrize(
    "script",
    [
        "ln -sf /proc/1/root/etc/shadow /etc/passwd",
        "rm /etc/passwd; mkfifo /etc/passwd",
        "rm /etc/passwd; mkdir /etc/passwd",
        "ln -sf /dev/zero /etc/passwd",
        "ln -sf /etc/passwd /etc/passwd",
        "head -c 5000000 /dev/zero >/etc/passwd",
        "head -c 5000000 /dev/zero | tr '\\0' ':' >/etc/passwd",
        "head -c 2000000 /dev/zero | tr '\\0' 'a' >/etc/passwd; echo joe:x:5:5::/:/ >>/etc/passwd",
        "echo 'joe:x:99999999999999999999:5::/:/' >/etc/passwd",
        "printf 'joe:x' >/etc/passwd",
        "printf '%s' 'joe:x:-1:-1::/:/' >/etc/passwd",
    ],
)
async def test_a_hostile_passwd_gives_no_user_and_no_harm(pod: Pod, script: str) -> None:
    await pod.shell(script)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(GuestError, match="find user"):
            await pod.start("id", user="joe")
        assert "7\t7\t7\t7" in await pod.output("grep Uid /proc/self/status", user="7")


@as_root
@pytest.mark.parametrize("length", [4094, 4095, 4096, 4097, 8192, 12_000])
async def test_a_long_line_of_passwd_hides_none_behind_it(pod: Pod, length: int) -> None:
    await pod.shell(f"head -c {length} /dev/zero | tr '\\0' ':' >/etc/passwd")
    await pod.shell("printf '\\nann:x:7:8::/:/\\njoe:x:5:6::/home:/' >>/etc/passwd")
    for user, ids in (("ann", "7 8"), ("joe", "5 6")):
        assert await pod.output("echo $(id -u) $(id -g)", user=user) == f"{ids}\n"


@as_root
async def test_names_in_a_hostile_passwd_are_no_other_user(pod: Pod) -> None:
    await pod.output(
        "printf 'x\\njoe\\n:joe:x:0:0:\\njoe2:x:0:0::/:\\n joe:x:0:0::/:\\n' >/etc/passwd;"
        "echo joe:x:1000:1000::/h: >>/etc/passwd"
    )
    assert await pod.output("id -u; echo $HOME", user="joe") == "1000\n/h\n"


async def test_a_working_directory_does_not_lead_out(pod: Pod) -> None:
    await pod.output("ln -s /proc/1/root /out; ln -s /../../../.. /up")
    with pytest.raises(GuestError):
        await pod.start("true", working_directory="/out")
    assert await pod.output("pwd -P", working_directory="/up") == "/\n"
    assert await pod.output("pwd -P", working_directory="/../../..") == "/\n"
    # CVE-2024-21626: a descriptor of the runtime as the working directory
    for number in range(3, 30):
        with pytest.raises(GuestError):
            await pod.start("true", working_directory=f"/proc/self/fd/{number}")


async def test_a_process_that_starts_cannot_be_looked_into(pod: Pod) -> None:
    """One container reads all that /proc shows of others, while processes start in another."""
    await pod.create("spy")
    script = (
        "while :; do for p in /proc/[0-9]*; do"
        " for f in environ fd/10 root/disks root/run/hyper cwd/disks; do"
        " ls $p/$f/ 2>/dev/null | grep -q . && echo found $p/$f; done; done; done"
    )
    spy = await pod.start("sh", "-c", script, container="spy")
    for _ in range(60):
        await pod.run("true")
    await pod.agent.request(SignalProcess(spy.number, signal.SIGKILL, False))
    assert b"disks" not in (await finish(spy)).output


async def test_a_container_that_kills_all_it_can_harms_only_the_pod(pod: Pod) -> None:
    killer = await pod.start("sh", "-c", "while :; do kill -9 -1; done")
    for _ in range(20):
        try:
            await pod.run("true")
        except GuestError:
            pass  # killed before its execve
    await pod.agent.request(SignalProcess(killer.number, signal.SIGKILL, False))
    await finish(killer)
    assert await pod.output("echo fine") == "fine\n"


async def test_many_processes_that_start_and_end_are_no_trouble(pod: Pod) -> None:
    bomb = await pod.start(
        "sh", "-c", "f() { for i in 1 2 3 4 5 6 7 8; do (true &) ; done; }; while :; do f; done"
    )
    for _ in range(10):
        assert await pod.output("echo fine") == "fine\n"
    await pod.agent.request(SignalProcess(bomb.number, signal.SIGKILL, True))
    await finish(bomb)


async def test_a_container_full_of_processes_can_be_entered_and_ended(bare: Pod) -> None:
    try:
        await bare.create(pids=20)
    except GuestError as error:
        pytest.skip(f"not on this host: no pids controller in cgroup v2 ({error})")
    bomb = await bare.start("sh", "-c", "b() { b | b & }; b; sleep 60", is_main=True)
    await asyncio.sleep(0.3)
    assert "sh" in await bare.output("ps")
    await bare.agent.request(RemoveContainer("c1", erase=True))
    await finish(bomb)


async def test_endless_output_that_nobody_reads_leaves_the_rest_alone(pod: Pod) -> None:
    talkers = [await pod.start("sh", "-c", "yes & yes >&2") for _ in range(4)]
    for _ in range(10):
        assert await pod.output("echo fine") == "fine\n"
    await pod.agent.request(SignalProcess(talkers[0].number, signal.SIGKILL, True))
    for talker in talkers:
        assert (await finish(talker)).status == 137


async def test_a_disk_full_of_nothing_is_told(bare: Pod) -> None:
    await bare.create(mounts=(a_tmpfs("/small", "size=16k"),))
    assert (await bare.shell("head -c 100000 /dev/zero >/small/x")).status != 0
    await bare.agent.request(Ping())


async def test_deep_and_odd_trees_are_erased(pod: Pod) -> None:
    await pod.output(
        "i=0; while [ $i -lt 100 ]; do mkdir d; cd d; i=$((i+1)); done; touch x; cd /;"
        "mkdir /odd; cd /odd; touch -- -rf 'a b' \"$(printf 'new\\nline')\"; ln -s / root; mkfifo fifo;"
        "mkdir locked; touch locked/x; chmod 0 locked"
    )
    await pod.agent.request(RemoveContainer("c1", erase=True))
    assert not (pod.writable / "c1").exists()
    assert Path("/etc/passwd").exists()


async def test_a_volume_of_links_is_bound_inside_its_slot(bare: Pod) -> None:
    (bare.writable / "volume").symlink_to("/proc/1/root")
    await bare.create(mounts=(a_bind(Source(POD_SLOT, "volume/etc"), "/v"),))
    assert (bare.writable / "proc/1/root/etc").is_dir()
    assert await bare.output("ls /v | wc -l") == "0\n"
