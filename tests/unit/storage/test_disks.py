"""Writable disks: sound file systems, sparse, and nothing left when the host is full."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.files import copy_sparse
from hypercontainer.storage import disks
from hypercontainer.storage.disks import PodDisks


async def test_a_disk_is_a_clean_sparse_ext4(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    await PodDisks(cache=tmp_path / "cache").create(disk, size_mib=1024)
    assert disk.stat().st_size == 1 << 30
    assert disk.stat().st_blocks * 512 < 16 << 20
    subprocess.run(["/usr/sbin/e2fsck", "-fn", disk], check=True, capture_output=True)


async def test_a_second_disk_is_equal_to_the_first(tmp_path: Path) -> None:
    disks = PodDisks(cache=tmp_path / "cache")
    await disks.create(tmp_path / "a", size_mib=64)
    await disks.create(tmp_path / "b", size_mib=64)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


async def test_one_that_is_wanted_no_longer_does_not_come_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def copy_slowly(source: Path, target: Path) -> None:
        begun.set()
        go_on.wait()
        copy_sparse(source, target)

    monkeypatch.setattr(disks, "copy_sparse", copy_slowly)
    path = tmp_path / "disk.img"
    creating = asyncio.create_task(PodDisks(cache=tmp_path / "cache").create(path, size_mib=64))
    await asyncio.to_thread(begun.wait)
    creating.cancel()
    asyncio.get_running_loop().call_later(0.1, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert go_on.is_set()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
async def test_a_full_host_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small], check=True)
    try:
        with pytest.raises(Unavailable, match="full"):
            await PodDisks(cache=tmp_path / "cache").create(small / "disk.img", size_mib=1024)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
