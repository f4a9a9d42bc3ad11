"""Writable disks: sound file systems, sparse, and nothing left when the host is full."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
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
