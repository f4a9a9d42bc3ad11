"""What every driver promises (docs/drivers.md): disks in their slots, shared, refused, swapped."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import pytest

from hypercontainer.errors import HypervisorError, Unsupported
from hypercontainer.model.machine import Disk, DiskFormat
from tests.hypervisors.machines import (
    MIB,
    Place,
    a_disk,
    has_disks,
    needs,
    needs_disks,
    processes_of,
)
from tests.support.pages import is_dirty

pytestmark = pytest.mark.needs_machine


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


async def test_a_writable_disk_is_put_where_it_is_already(place: Place, tmp_path: Path) -> None:
    """As when hyperd died after it had done so, and the next one does it again."""
    needs(place.hypervisor.capabilities.swap_disks, "disk to swap")
    disk = a_disk(tmp_path / "disk", b"kept")
    async with place.booted() as booted:
        for _ in range(2):
            await booted.machine.swap_disk(1, disk)
            assert await booted.shell("head -c 4 $(slot 1); forget 1") == b"kept"


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
