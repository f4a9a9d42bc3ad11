"""What every driver promises, on every driver that can run here.  See docs/drivers.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hypercontainer.errors import HyperError, HypervisorError, InvalidRequest, Unsupported
from hypercontainer.guest.protocol import Ping, ShutDown, Stream
from hypercontainer.hypervisors import _vmm
from hypercontainer.hypervisors.base import Machine, end_orphans
from hypercontainer.model.machine import Disk, DiskFormat, MachineConfig, Nic, NicKind
from hypercontainer.process import ProcessId
from tests.hypervisors import peer
from tests.hypervisors.machines import (
    MIB,
    Booted,
    Place,
    a_disk,
    a_shell,
    connected,
    needs,
    processes_of,
    set_up,
)
from tests.support.pages import is_dirty

pytestmark = pytest.mark.needs_machine

MAC = "02:42:c0:a8:7b:02"


def has_disks(place: Place) -> bool:
    """Without a kernel there are no block devices: slots are mounted directories and images."""
    return bool(place.hypervisor.capabilities.kernel and place.hypervisor.capabilities.disk_slots)


def needs_disks(place: Place) -> None:
    needs(has_disks(place), "disk")


# --- Life ---


async def test_a_machine_boots_and_hyperstart_answers(place: Place) -> None:
    async with place.booted() as booted:
        assert booted.agent.welcome.kernel_release
        assert not booted.agent.welcome.has_pod


async def test_the_least_memory_is_enough_to_boot_and_run_a_process(place: Place) -> None:
    least = place.hypervisor.capabilities.min_memory_mib
    async with place.booted(place.config(memory_mib=least)) as booted:
        assert await booted.shell("echo alive") == b"alive\n"


async def test_two_machines_run_at_once_and_stay_apart(place: Place) -> None:
    async with place.booted() as one, place.booted() as two:
        await one.shell("echo one > /mark")
        status, _, _ = await two.shell_status("cat /mark")
        assert status != 0
        await one.machine.kill()
        assert await two.shell("echo still here") == b"still here\n"


async def test_as_many_cpus_as_asked(place: Place) -> None:
    needs(place.hypervisor.capabilities.max_vcpus > 1, "second CPU")
    async with place.booted(place.config(vcpus=2)) as booted:
        assert await booted.shell("nproc") == b"2\n"


async def test_a_guest_that_shuts_down_ends_its_machine(place: Place) -> None:
    async with place.booted() as booted:
        with contextlib.suppress(HyperError):
            await booted.agent.request(ShutDown())
        async with asyncio.timeout(10):
            await booted.machine.wait()
        assert processes_of(booted.machine.run_dir) == []


async def test_kill_leaves_no_process_and_no_file_elsewhere(place: Place) -> None:
    before = outside_files()
    machine = await place.launch(place.config())
    async with await connected(machine):
        assert processes_of(machine.run_dir)
    await machine.kill()
    assert processes_of(machine.run_dir) == []
    assert outside_files() <= before
    await machine.kill()  # one that has ended is no error


async def test_wait_returns_when_the_machine_is_killed(place: Place) -> None:
    machine = await place.launch(place.config())
    waiting = asyncio.ensure_future(machine.wait())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await machine.kill()
    async with asyncio.timeout(5):
        await waiting


@pytest.mark.however_started
async def test_a_vmm_killed_from_outside_ends_the_wait_and_leaves_no_helper(place: Place) -> None:
    async with place.booted() as booted:
        os.kill(booted.machine.process.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            await booted.machine.wait()
        assert processes_of(booted.machine.run_dir) == []


@pytest.mark.however_started
async def test_no_zombie_stays_with_the_launcher(place: Place) -> None:
    machine = await place.launch(place.config())
    await machine.kill()
    async with asyncio.timeout(5):
        while Path(f"/proc/{machine.process.pid}").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_launch_that_is_cancelled_leaves_nothing(place: Place) -> None:
    if place.templates:
        await place.template(place.config())
    for delay in (0.0, 0.002, 0.01, 0.05):
        run_dir = place.run_dir()
        launch = asyncio.ensure_future(place.launch(place.config(), run_dir))
        await asyncio.sleep(delay)
        launch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await launch).kill()  # it was faster
        assert processes_of(run_dir) == []


async def test_a_guest_has_a_good_clock(place: Place) -> None:
    async with place.booted() as booted:
        first = await uptime(booted)
        await asyncio.sleep(2)
        last = await uptime(booted)
        least, most = last.asked - first.answered, last.answered - first.asked
        assert least - 0.1 <= last.seconds - first.seconds <= most + 0.1
        sources = await booted.shell("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")
        assert b"jiffies" not in sources  # a clock that steps by 10 ms


class Uptime(NamedTuple):
    """Of a guest, and when it was asked by the host's clock: a slow host takes long to be answered."""

    asked: float
    seconds: float
    answered: float


async def uptime(booted: Booted) -> Uptime:
    asked = time.monotonic()
    seconds = float((await booted.shell("cat /proc/uptime")).split()[0])
    return Uptime(asked, seconds, time.monotonic())


# --- Channel ---


async def test_reconnecting_twenty_times_finds_the_same_guest(place: Place) -> None:
    machine = await place.launch(place.config())
    starts = set()
    for _ in range(20):
        async with await connected(machine) as agent:
            starts.add(agent.welcome.started_ns)
            await agent.request(Ping())
    assert len(starts) == 1


@pytest.mark.however_started
async def test_a_guest_that_prints_all_the_time_is_found_again_two_hundred_times(place: Place) -> None:
    async with place.booted() as booted:
        printer = await booted.agent.start_process(a_shell("while :; do echo line; done"))
        agent, offset = booted.agent, 0
        for _ in range(200):
            await agent.close()
            agent = await connected(booted.machine, resume={printer.number: {Stream.STDOUT: offset}})
            async with asyncio.timeout(10):
                output = await agent.process(printer.number).read()
                await agent.request(Ping())
            assert output is not None
            assert output.offset == offset
            offset += len(output.data)
        await agent.close()


@pytest.mark.however_started
async def test_connections_cut_off_at_once_do_no_harm(place: Place) -> None:
    machine = await place.launch(place.config())
    async with await connected(machine):
        pass
    for garbage in (b"", b"\xc0", b"\xc0\x01\x00", secrets.token_bytes(1000)):
        channel = await machine.connect()
        channel.writer.write(garbage)
        channel.writer.transport.abort()
    async with await connected(machine) as agent:
        await agent.request(Ping())


@pytest.mark.however_started
async def test_megabytes_come_back_unharmed(place: Place) -> None:
    data = secrets.token_bytes(4 * MIB)
    async with place.booted() as booted:
        assert await booted.shell("exec cat", stdin=data) == data


@pytest.mark.however_started
async def test_nobody_else_may_connect(place: Place) -> None:
    machine = await place.launch(place.config())
    sockets = list(machine.run_dir.rglob("*.sock"))
    assert sockets
    assert all(path.stat().st_mode & 0o077 == 0 for path in sockets)


# --- Disks ---


async def test_each_disk_is_at_its_slot(place: Place, tmp_path: Path) -> None:
    needs_disks(place)
    count = min(place.hypervisor.capabilities.disk_slots, 12)
    disks = tuple(a_disk(tmp_path / f"d{n}", b"disk %02d\n" % n) for n in range(count))
    async with place.booted(place.config(disks=disks)) as booted:
        script = f"for n in $(seq 0 {count - 1}); do head -c 8 $(slot $n); done".replace(
            f"$(seq 0 {count - 1})", " ".join(map(str, range(count)))
        )
        assert await booted.shell(script) == b"".join(b"disk %02d\n" % n for n in range(count))


async def test_what_the_guest_writes_survives_it(place: Place, tmp_path: Path) -> None:
    needs_disks(place)
    disk = a_disk(tmp_path / "disk", b"", size=4 * MIB)
    data = secrets.token_bytes(2 * MIB)
    async with place.booted(place.config(disks=(disk,))) as booted:
        await booted.shell("cat > $(slot 0); sync", stdin=data)
        assert disk.path.read_bytes()[: len(data)] == data  # after sync, not only after the end
    assert disk.path.stat().st_size == 4 * MIB


@pytest.mark.however_started
async def test_what_the_guest_has_flushed_survives_the_host(place: Place, tmp_path: Path) -> None:
    needs_disks(place)
    if os.geteuid() != 0:
        pytest.skip("to see what is in the host's memory only needs root")
    disk = a_disk(tmp_path / "disk", bytes(MIB))
    assert is_dirty(disk.path)
    async with place.booted(place.config(disks=(disk,))) as booted:
        await booted.shell("echo kept | dd of=$(slot 0) bs=512 conv=sync,fsync 2>/dev/null")
        assert not is_dirty(disk.path)


async def test_a_read_only_disk_refuses_writes(place: Place, tmp_path: Path) -> None:
    needs_disks(place)
    writable = a_disk(tmp_path / "writable", b"")
    image = a_disk(tmp_path / "image", b"image", read_only=True)
    async with place.booted(place.config(disks=(writable, image))) as booted:
        status, _, _ = await booted.shell_status("echo broken > $(slot 1) && sync")
        assert await booted.shell("head -c 5 $(slot 1)") == b"image"
    assert status != 0
    assert image.path.read_bytes().startswith(b"image")


@pytest.mark.however_started
async def test_two_machines_share_a_read_only_disk(place: Place, tmp_path: Path) -> None:
    needs_disks(place)
    image = a_disk(tmp_path / "image", b"image", read_only=True)
    async with (
        place.booted(place.config(disks=(image,))) as one,
        place.booted(place.config(disks=(image,))) as two,
    ):
        assert await one.shell("head -c 5 $(slot 0)") == await two.shell("head -c 5 $(slot 0)") == b"image"


async def test_a_disk_that_a_machine_writes_to_is_refused_to_every_other(
    place: Place, tmp_path: Path
) -> None:
    needs_disks(place)
    disk = a_disk(tmp_path / "disk", b"")
    async with place.booted(place.config(disks=(disk,))), place.booted() as other:
        run_dir = place.run_dir()
        with pytest.raises(HypervisorError, match="another machine writes to the disk"):
            await place.launch(place.config(disks=(disk,)), run_dir)
        assert processes_of(run_dir) == []
        with pytest.raises(HypervisorError, match="another machine writes to the disk"):
            await other.machine.swap_disk(0, disk)
    async with place.booted(place.config(disks=(disk,))):
        pass


async def test_odd_paths_of_files_are_taken_as_they_are(place: Place, tmp_path: Path) -> None:
    needs_disks(place)
    odd = tmp_path / "a,b:c d=e%s\\f\"g'h"
    odd.mkdir()
    disk = a_disk(odd / "disk,read-only=on", b"odd")
    async with place.booted(place.config(disks=(disk,))) as booted:
        assert await booted.shell("head -c 3 $(slot 0); echo new > $(slot 0); sync") == b"odd"
    assert disk.path.read_bytes().startswith(b"new\n")


async def test_swapping_a_disk_under_a_running_guest(place: Place, tmp_path: Path) -> None:
    needs(place.hypervisor.capabilities.swap_disks, "disk to swap")
    writable = a_disk(tmp_path / "writable", b"")
    images = [a_disk(tmp_path / f"image{n}", b"image %d" % n, read_only=True) for n in range(4)]
    async with place.booted(place.config(disks=(writable, images[0]))) as booted:
        for n in (0, 1, 2, 3, 1):
            if n:
                await booted.machine.swap_disk(1, images[n])
            read = await booted.shell(
                "forget 1; dd if=$(slot 1) bs=512 count=1 iflag=direct 2>/dev/null | head -c 7"
            )
            assert read == b"image %d" % n


@pytest.mark.however_started
async def test_a_swapped_disk_that_is_larger_can_be_read_to_its_end(place: Place, tmp_path: Path) -> None:
    needs(place.hypervisor.capabilities.swap_disks, "disk to swap")
    small = a_disk(tmp_path / "small", b"small", read_only=True)
    large = a_disk(tmp_path / "large", bytes(3 * MIB - 5) + b"large", size=3 * MIB, read_only=True)
    async with place.booted(place.config(disks=(small,))) as booted:
        await booted.shell("head -c 5 $(slot 0)")
        await booted.machine.swap_disk(0, large)
        assert (
            await booted.shell("forget 0; dd if=$(slot 0) bs=1 skip=$((3 * 1048576 - 5)) 2>/dev/null")
            == b"large"
        )


async def test_the_last_slot_takes_a_disk_while_the_guest_runs_and_gives_it_back(
    place: Place, tmp_path: Path
) -> None:
    needs(place.hypervisor.capabilities.swap_disks, "disk to swap")
    last = place.hypervisor.capabilities.disk_slots - 1
    disk = a_disk(tmp_path / "disk", b"", size=3 * MIB)
    async with place.booted() as booted:
        assert (await booted.shell_status(f"slot {last}"))[0] != 0
        for _ in range(2):
            await booted.machine.swap_disk(last, disk)
            await booted.shell(
                f"echo full | dd of=$(slot {last}) bs=512 seek=6143 conv=sync 2>/dev/null; sync"
            )
            await booted.shell(f"forget {last}")
            await booted.machine.swap_disk(last, None)
            assert (await booted.shell_status(f"slot {last}"))[0] != 0
        await booted.machine.swap_disk(last, None)  # one that is empty is no error
        with pytest.raises(Unsupported):
            await booted.machine.swap_disk(last + 1, disk)
    assert disk.path.read_bytes()[-512:].startswith(b"full")


async def test_a_slot_of_an_image_takes_a_writable_disk_and_an_image_again(
    place: Place, tmp_path: Path
) -> None:
    needs(place.hypervisor.capabilities.swap_disks, "disk to swap")
    image = a_disk(tmp_path / "image", b"image", read_only=True)
    disk = a_disk(tmp_path / "disk", b"")
    async with place.booted(place.config(disks=(image,))) as booted:
        await booted.machine.swap_disk(0, disk)
        await booted.shell("forget 0; echo written > $(slot 0); sync")
        await booted.machine.swap_disk(0, image)
        status, _, _ = await booted.shell_status("forget 0; echo broken > $(slot 0) && sync")
        assert status != 0
    assert disk.path.read_bytes().startswith(b"written")
    assert image.path.read_bytes().startswith(b"image")


@pytest.mark.however_started
async def test_a_qcow2_disk_has_the_size_and_the_content_that_it_says(place: Place, tmp_path: Path) -> None:
    disk = Disk(path=tmp_path / "d.qcow2", read_only=False, format=DiskFormat.QCOW2)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk.path, "64M"], check=True)
    if DiskFormat.QCOW2 not in place.hypervisor.capabilities.disk_formats:
        needs(has_disks(place), "disk")
        with pytest.raises(Unsupported, match=r"d\.qcow2"):
            await place.launch(place.config(disks=(disk,)))
        return
    async with place.booted(place.config(disks=(disk,))) as booted:
        await booted.shell("echo end | dd of=$(slot 0) bs=512 seek=131071 conv=sync,fsync 2>/dev/null")
    assert disk.path.stat().st_size < 2 * MIB
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk.path, raw], check=True)
    assert raw.read_bytes()[-512:].startswith(b"end")


@pytest.mark.however_started
async def test_a_swap_to_a_missing_file_fails_and_keeps_the_machine(place: Place, tmp_path: Path) -> None:
    needs(place.hypervisor.capabilities.swap_disks, "disk to swap")
    image = a_disk(tmp_path / "image", b"image", read_only=True)
    missing = a_disk(tmp_path / "missing", b"", read_only=True)
    missing.path.unlink()
    async with place.booted(place.config(disks=(image,))) as booted:
        with pytest.raises(HypervisorError):
            await booted.machine.swap_disk(0, missing)
        await booted.machine.swap_disk(0, image)
        assert await booted.shell("head -c 5 $(slot 0)") == b"image"


# --- NICs ---


@pytest.fixture
def tap() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("making a tap needs root")
    name = f"hyt{secrets.token_hex(4)}"
    subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"], check=True)
    subprocess.run(["ip", "addr", "add", "198.18.213.2/30", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


# Finds the NIC by its address, as hyperstart does when there is a pod, and reaches a host through it.
REACH = f"""
for nic in /sys/class/net/*; do
    [ "$(cat $nic/address)" = {MAC} ] && name=${{nic##*/}}
done
ip addr add 198.18.213.1/30 dev $name && ip link set $name up
ping -q -c 3 -i 0.1 -w 10 198.18.213.2 >/dev/null
"""


async def test_a_nic_on_a_tap_reaches_the_host_under_its_mac_address(place: Place, tap: str) -> None:
    needs(NicKind.TAP in place.hypervisor.capabilities.nics, "tap")
    nic = Nic(mac=MAC, kind=NicKind.TAP, backend=tap)
    async with place.booted(place.config(nics=(nic,))) as booted:
        await booted.agent.request(set_up("m"))
        await booted.shell(REACH)
    assert Path("/sys/class/net", tap).exists()  # it is not the VMM's


@pytest.mark.parametrize("kind", [NicKind.STREAM, NicKind.PACKET])
async def test_a_nic_on_a_socket_reaches_the_host_under_its_mac_address(
    place: Place, tmp_path: Path, kind: NicKind
) -> None:
    needs(kind in place.hypervisor.capabilities.nics, f"NIC of kind {kind}")
    nic = Nic(mac=MAC, kind=kind, backend=str(tmp_path / "nic.sock"))
    async with contextlib.AsyncExitStack() as stack:
        async with peer.answering(tmp_path / "nic.sock", kind):
            booted = await stack.enter_async_context(place.booted(place.config(nics=(nic,))))
            await booted.agent.request(set_up("m"))
            await booted.shell(REACH)
        assert await booted.shell("echo alive") == b"alive\n"  # a network that dies takes no guest along


@pytest.mark.however_started
async def test_a_nic_without_its_backend_is_refused(place: Place, tmp_path: Path) -> None:
    for kind in place.hypervisor.capabilities.nics - {NicKind.NONE}:
        run_dir = place.run_dir()
        nic = Nic(mac=MAC, kind=kind, backend="hyt-missing" if kind is NicKind.TAP else str(tmp_path / "no"))
        with pytest.raises(HypervisorError, match=r"hyt-missing|no"):
            await place.launch(place.config(nics=(nic,)), run_dir)
        assert processes_of(run_dir) == []
    assert not Path("/sys/class/net/hyt-missing").exists()


# --- Pause ---


async def test_a_paused_guest_stands_still_and_goes_on(place: Place) -> None:
    needs(place.hypervisor.capabilities.pause, "pause")
    async with place.booted() as booted:
        await booted.machine.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await booted.agent.request(Ping())
        assert cpu_seconds(booted.machine, 0.5) < 0.1
        await booted.machine.resume()
        async with asyncio.timeout(10):
            await booted.agent.request(Ping())


async def test_a_paused_machine_can_be_killed(place: Place) -> None:
    needs(place.hypervisor.capabilities.pause, "pause")
    async with place.booted() as booted:
        await booted.machine.pause()
        await booted.machine.kill()
        assert processes_of(booted.machine.run_dir) == []


def cpu_seconds(machine: Machine, seconds: float) -> float:
    """CPU time that the machine's processes take in the next ``seconds``."""

    def used() -> int:
        total = 0
        for pid in processes_of(machine.run_dir):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    before = used()
    time.sleep(seconds)
    return (used() - before) / os.sysconf("SC_CLK_TCK")


async def test_an_idle_guest_takes_little_cpu(place: Place) -> None:
    async with place.booted() as booted:
        await asyncio.sleep(0.5)
        assert cpu_seconds(booted.machine, 2) < 0.5


# --- The daemon dies and comes back ---


async def test_another_daemon_reattaches(place: Place) -> None:
    config = place.config()
    machine = await place.launch(config)
    async with await connected(machine) as agent:
        started = agent.welcome.started_ns
    again = await place.hypervisor.reattach(config, machine.run_dir)
    assert again is not None
    async with await connected(again) as agent:
        assert agent.welcome.started_ns == started
    waiting = asyncio.ensure_future(again.wait())
    await again.kill()
    await waiting
    assert await place.hypervisor.reattach(config, machine.run_dir) is None


@pytest.mark.however_started
async def test_a_pid_that_another_process_has_now_is_not_the_machine(place: Place) -> None:
    config, run_dir = place.config(), place.run_dir()
    stranger = ProcessId.of(os.getpid())
    assert stranger is not None
    (run_dir / "machine.json").write_text(json.dumps({"pid": stranger.pid, "start_time": 1}))
    assert await place.hypervisor.reattach(config, run_dir) is None
    for nonsense in (b"", b"{", b"[]", b'{"pid": "x"}', b'{"pid": -1, "start_time": 0}'):
        (run_dir / "machine.json").write_bytes(nonsense)
        assert await place.hypervisor.reattach(config, run_dir) is None


LAUNCHER = """
import asyncio, os, sys
from pathlib import Path
from typing import NamedTuple
from hypercontainer.hypervisors.base import load
from hypercontainer.model.machine import MachineConfig
from tests.hypervisors import peer
from tests.hypervisors.machines import driver_names

async def main(name, kernel, initramfs, run_dir):
    driver_names()
    config = MachineConfig(
        id="m", vcpus=1, memory_mib=64, kernel=Path(kernel), initramfs=Path(initramfs))
    await load(name).launch(config, Path(run_dir))
    print("launched", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def launched_elsewhere(place: Place, config: MachineConfig, run_dir: Path) -> AsyncIterator[None]:
    """A machine whose launcher is a process of its own, and is killed."""
    name = place.hypervisor.name
    launcher = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LAUNCHER, name, config.kernel, config.initramfs, run_dir),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert launcher.stdout
    assert await launcher.stdout.readline() == b"launched\n"
    os.killpg(launcher.pid, signal.SIGKILL)
    await launcher.wait()
    yield


@pytest.mark.however_started
async def test_the_machine_survives_a_launcher_that_is_killed_with_its_group(place: Place) -> None:
    config, run_dir = place.config(), place.run_dir()
    async with launched_elsewhere(place, config, run_dir):
        machine = await place.hypervisor.reattach(config, run_dir)
        assert machine is not None
        place.machines.append(machine)
        async with await connected(machine) as agent:
            await agent.request(Ping())
        await machine.kill()
        assert processes_of(run_dir) == []


@pytest.mark.however_started
async def test_a_machine_without_a_record_is_found_and_ended(place: Place) -> None:
    config, run_dir = place.config(), place.run_dir()
    known = await place.launch(place.config())
    async with launched_elsewhere(place, config, run_dir):
        (run_dir / "machine.json").unlink()
        assert await end_orphans(run_dir.parent, [known.run_dir]) == [run_dir]
    assert processes_of(run_dir) == []
    assert known.process.is_alive()


# --- What goes wrong ---


@pytest.mark.however_started
@pytest.mark.parametrize("kernel", ["text", "program", "empty", "missing"])
async def test_a_wrong_kernel_is_an_error_with_the_reason_and_leaves_nothing(
    place: Place, tmp_path: Path, kernel: str
) -> None:
    needs(place.hypervisor.capabilities.kernel, "kernel")
    path = tmp_path / "kernel"
    if kernel != "missing":
        content = {"text": b"no kernel\n" * 9999, "program": Path("/bin/false").read_bytes(), "empty": b""}
        path.write_bytes(content[kernel])
        path.chmod(0o755)
    config, run_dir = replaced(place.config(), kernel=path), place.run_dir()
    began = time.monotonic()
    with pytest.raises(HypervisorError) as caught:
        await place.launch(config, run_dir)
    assert time.monotonic() - began < 3
    assert len(caught.value.message) > 20
    assert processes_of(run_dir) == []


async def test_a_missing_disk_is_an_error_that_names_it(place: Place, tmp_path: Path) -> None:
    needs_disks(place)
    disk = a_disk(tmp_path / "gone", b"")
    disk.path.unlink()
    run_dir = place.run_dir()
    with pytest.raises(HypervisorError, match="gone"):
        await place.launch(place.config(disks=(disk,)), run_dir)
    assert processes_of(run_dir) == []


@pytest.mark.however_started
async def test_more_than_the_driver_can_is_refused(place: Place, tmp_path: Path) -> None:
    can = place.hypervisor.capabilities
    needs(can.kernel, "limits")
    with pytest.raises(InvalidRequest):
        await place.launch(place.config(memory_mib=can.min_memory_mib - 1))
    with pytest.raises(Unsupported):
        await place.launch(place.config(vcpus=can.max_vcpus + 1))
    disk = a_disk(tmp_path / "disk", b"", read_only=True)
    with pytest.raises(Unsupported):
        await place.launch(place.config(disks=(disk,) * (can.disk_slots + 1)))


@pytest.mark.however_started
async def test_more_memory_than_the_host_has_is_an_error(place: Place) -> None:
    needs(place.hypervisor.capabilities.kernel, "memory of its own")
    run_dir = place.run_dir()
    with pytest.raises(HypervisorError):
        await place.launch(place.config(memory_mib=1 << 26), run_dir)
    assert processes_of(run_dir) == []


@pytest.mark.however_started
async def test_a_run_directory_with_a_long_odd_path_is_fine(place: Place) -> None:
    config, run_dir = place.config(), place.run_dir("x" * 120 + "/a,b c:d=e%/" + "y" * 120)
    machine = await place.launch(config, run_dir)
    async with await connected(machine) as agent:
        await agent.request(Ping())
    if place.hypervisor.capabilities.pause:
        await machine.pause()
        await machine.resume()
    again = await place.hypervisor.reattach(config, run_dir)
    assert again is not None
    await again.kill()


@pytest.mark.however_started
async def test_the_console_says_why_a_guest_died(place: Place) -> None:
    needs(place.hypervisor.capabilities.kernel, "console")
    async with place.booted() as booted:
        with contextlib.suppress(HyperError, TimeoutError):
            async with asyncio.timeout(10):
                await booted.shell("echo c > /proc/sysrq-trigger")
        async with asyncio.timeout(10):
            await booted.machine.wait()
        assert "sysrq" in booted.machine.console().lower()


@pytest.mark.however_started
async def test_a_vmm_that_was_killed_is_told_from_one_that_ended(place: Place) -> None:
    async with place.booted() as booted:
        os.kill(booted.machine.process.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            await booted.machine.wait()
            while "was killed by signal 9" not in booted.machine.console():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_healthy_boot_says_nothing_on_the_console(place: Place, tmp_path: Path) -> None:
    disks = (a_disk(tmp_path / "disk", b""),) if has_disks(place) else ()
    async with place.booted(place.config(disks=disks)) as booted:
        assert booted.machine.console() == ""


@pytest.mark.however_started
async def test_a_guest_that_floods_its_console_does_not_fill_the_host(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(place.hypervisor.capabilities.kernel, "console")
    monkeypatch.setattr(_vmm, "CONSOLE_INTERVAL", 0.05)
    monkeypatch.setattr(_vmm, "CONSOLE_SIZE", 10_000)
    monkeypatch.setattr(_vmm, "CONSOLE_KEPT", 5_000)
    async with place.booted() as booted:
        waiting = asyncio.ensure_future(booted.machine.wait())
        console = booted.machine.run_dir / "console.log"
        await booted.shell("head -c 15000 /dev/zero > /dev/console; sleep 0.3; echo the end > /dev/console")
        await asyncio.sleep(0.3)
        assert console.stat().st_size <= 10_000
        assert booted.machine.console().endswith("the end")
        await booted.machine.kill()
        await waiting


# --- Small things ---


def replaced(config: MachineConfig, *, kernel: Path) -> MachineConfig:
    import dataclasses

    return dataclasses.replace(config, kernel=kernel)


def outside_files() -> set[str]:
    """What UML or QEMU might leave outside the run directory."""
    patterns = ("/dev/shm/*", "/tmp/vm_file*", "/tmp/qemu*", "/var/tmp/vl.*", str(Path.home() / ".uml*"))
    return {str(path) for pattern in patterns for path in Path("/").glob(pattern.lstrip("/"))}
