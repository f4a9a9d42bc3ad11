"""Files as block devices: what they hold, who may write to them, and that none is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hypercontainer.errors import HypervisorError
from hypercontainer.hypervisors import _locks, _loops
from hypercontainer.model.machine import Disk
from tests.hypervisors.machines import a_disk
from tests.support.waiting import until

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(not os.access(_loops.CONTROL, os.W_OK), reason="not on this host: loop devices"),
]


def holds(device: Path, disk: Disk) -> bool:
    """A device that is free again may be another's at once."""
    try:
        return Path("/sys/block", device.name, "loop/backing_file").read_text() == f"{disk.path}\n"
    except OSError:
        return False


def test_a_loop_device_has_the_files_content_and_ends_with_its_last_user(tmp_path: Path) -> None:
    disk = a_disk(tmp_path / "a,b c", b"content", read_only=True)
    device, keeper = _loops.attach(disk)
    with device.open("rb") as user:
        os.close(keeper)
        assert holds(device, disk)
        assert user.read(7) == b"content"
    until(lambda: not holds(device, disk))


def test_a_read_only_disk_takes_no_write(tmp_path: Path) -> None:
    device, keeper = _loops.attach(a_disk(tmp_path / "image", b"image", read_only=True))
    try:
        assert Path("/sys/block", device.name, "ro").read_text() == "1\n"
    finally:
        os.close(keeper)


def test_a_writable_disk_is_locked_as_long_as_its_device_is_used(tmp_path: Path) -> None:
    disk = a_disk(tmp_path / "disk", b"")
    device, keeper = _loops.attach(disk)
    try:
        assert _locks.is_held(disk.path)
        with pytest.raises(HypervisorError, match="another machine writes to the disk"):
            _loops.attach(disk)
    finally:
        os.close(keeper)
    until(lambda: not holds(device, disk))
    assert not _locks.is_held(disk.path)


def test_any_number_may_read_a_read_only_disk(tmp_path: Path) -> None:
    disk = a_disk(tmp_path / "image", b"image", read_only=True)
    keepers = [_loops.attach(disk)[1] for _ in range(3)]
    assert len(set(keepers)) == 3
    for keeper in keepers:
        os.close(keeper)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    disk = a_disk(tmp_path / "gone", b"")
    disk.path.unlink()
    with pytest.raises(HypervisorError, match="gone"):
        _loops.attach(disk)
