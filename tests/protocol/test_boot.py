"""Finding the kernel and packing the initramfs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hypercontainer.errors import Unavailable
from hypercontainer.guest import boot


@pytest.fixture
def init(tmp_path: Path) -> Path:
    path = tmp_path / "hyperstart"
    path.write_bytes(b"\x7fELF and so on")
    return path


def test_the_initramfs_is_a_cpio_that_other_programs_read(tmp_path: Path, init: Path) -> None:
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed")
    archive = boot.make_initramfs(tmp_path / "cache", hyperstart=init)
    listing = subprocess.run(
        ["cpio", "--list", "--verbose", "--numeric-uid-gid"],
        input=archive.read_bytes(),
        capture_output=True,
        check=True,
    ).stdout.decode()
    lines = {line.split()[-1]: line.split() for line in listing.splitlines()}
    assert {"dev", "proc", "sys", "run", "dev/console", "dev/null", "init"} == set(lines)
    assert lines["init"][0] == "-rwxr-xr-x"
    assert lines["dev/console"][0] == "crw-------"
    assert lines["dev/console"][4:6] == ["5,", "1"]


@pytest.mark.parametrize("size", range(9))
def test_an_initramfs_holds_the_bytes_of_hyperstart_whatever_their_number(size: int) -> None:
    packed = boot.pack(b"x" * size)
    assert len(packed) % 4 == 0
    head = packed.index(b"init\0") - 110
    assert int(packed[head + 54 : head + 62], 16) == size


def test_the_same_hyperstart_is_packed_once_and_another_one_beside_it(tmp_path: Path, init: Path) -> None:
    first = boot.make_initramfs(tmp_path, hyperstart=init)
    stamp = first.stat().st_mtime_ns
    assert boot.make_initramfs(tmp_path, hyperstart=init) == first
    assert first.stat().st_mtime_ns == stamp
    init.write_bytes(b"another")
    assert boot.make_initramfs(tmp_path, hyperstart=init) != first
    assert not list(first.parent.glob("*.tmp"))


def test_one_that_somebody_removed_is_packed_again(tmp_path: Path, init: Path) -> None:
    first = boot.make_initramfs(tmp_path, hyperstart=init)
    packed = first.read_bytes()
    first.unlink()
    assert boot.make_initramfs(tmp_path, hyperstart=init).read_bytes() == packed


def test_what_was_not_built_is_unavailable_and_the_hint_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "DATA", tmp_path)
    with pytest.raises(Unavailable, match="no um kernel") as caught:
        boot.find_kernel("um")
    assert caught.value.hint == "make kernel"
    with pytest.raises(Unavailable, match="no hyperstart") as caught:
        boot.make_initramfs(tmp_path)
    assert caught.value.hint == "make guest"


def test_an_override_is_a_kernel_or_a_directory_of_kernels(tmp_path: Path) -> None:
    kernel = tmp_path / "x86_64" / "vmlinux"
    kernel.parent.mkdir()
    kernel.write_bytes(b"....Linux version 6.12.73-hyper (root@host) #1....")
    assert boot.find_kernel("x86_64", override=kernel).path == kernel
    assert boot.find_kernel("x86_64", override=tmp_path).path == kernel
    with pytest.raises(Unavailable, match="no um kernel"):
        boot.find_kernel("um", override=str(tmp_path))
    with pytest.raises(Unavailable, match="no vax kernel"):
        boot.find_kernel("vax")


def test_the_version_is_the_builds_note_or_found_in_the_image(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"")
    assert boot.Kernel(path).version == "unknown"
    path.write_bytes(b"....Linux version 6.12.73-hyper (root@host) #1....")
    assert boot.Kernel(path).version == "6.12.73-hyper"
    (tmp_path / "kernel.json").write_text(json.dumps({"release": "6.12.74"}))
    assert boot.Kernel(path).version == "6.12.74"
