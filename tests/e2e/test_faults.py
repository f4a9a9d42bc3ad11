"""What operators get wrong and hosts lack: a clear error, the right status, and nothing left."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hyper import DAEMON, Hyper
from tests.support.images import busybox_archive
from tests.support.processes import new_root


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Hyper]:
    """A hyperd of the test's own, under uml; the test starts it."""
    hyper = Hyper(root=new_root(), driver="uml")
    try:
        yield hyper
    finally:
        hyper.stop_daemon()
        subprocess.run(["umount", hyper.root / "lib"], check=False, capture_output=True)
        shutil.rmtree(hyper.root, ignore_errors=True)


def _load(hyper: Hyper) -> None:
    hyper.ok("load", "-q", "-i", str(busybox_archive(hyper.root / "busybox.tar")))


def _is_empty(hyper: Hyper) -> bool:
    return not any((hyper.root / "lib/pods").iterdir()) and not any((hyper.root / "run/machines").iterdir())


def test_a_missing_kernel_is_named(own: Hyper) -> None:
    own.start_daemon()
    own.stop_daemon()
    settings = own.root / "etc/hyperd.toml"
    settings.write_text(settings.read_text() + 'kernel = "/no/such/kernel"\n')
    own.daemon = _start_with_present_settings(own)
    _load(own)
    done = own("run", "--rm", "--network", "none", "busybox", "true")
    assert done.status == 125
    assert "/no/such/kernel" in done.err
    assert _is_empty(own)


def _start_with_present_settings(hyper: Hyper) -> subprocess.Popen[bytes]:
    kept = (hyper.root / "etc/hyperd.toml").read_text()
    original = Hyper._settings
    try:
        Hyper._settings = lambda self: kept  # type: ignore[method-assign]
        hyper.start_daemon()
    finally:
        Hyper._settings = original  # type: ignore[method-assign]
    assert hyper.daemon is not None
    return hyper.daemon


def test_a_missing_qemu_is_named_with_its_package(own: Hyper, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sqfstar", "mksquashfs", "mke2fs", "ip", "nft"):
        if found := shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            (programs / name).symlink_to(found)
    own.environment = {"PATH": str(programs)}
    own.start_daemon()
    _load(own)
    done = own("run", "--rm", "--network", "none", "--hypervisor", "tcg", "busybox", "true")
    assert done.status == 125
    assert "qemu-system-x86" in done.err
    assert _is_empty(own)


@pytest.mark.skipif(os.geteuid() != 0, reason="not on this host: mounting a tmpfs needs root")
def test_a_full_disk_is_said_and_nothing_is_left(own: Hyper) -> None:
    (own.root / "lib").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", own.root / "lib"], check=True)
    own.start_daemon()
    _load(own)
    filler = own.root / "lib/filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    done = own("run", "--rm", "--network", "none", "busybox", "true")
    assert done.status == 125
    assert "full" in done.err or "No space left" in done.err
    assert _is_empty(own)
    filler.unlink()
    assert own("run", "--rm", "--network", "none", "busybox", "echo", "again").out == "again\n"


def test_a_bad_settings_file_is_refused_with_its_key(own: Hyper) -> None:
    (own.root / "etc").mkdir(parents=True)
    (own.root / "etc/hyperd.toml").write_text('hypervizor = "uml"\n')
    done = own("list")
    assert done.status == 1
    assert "hypervizor" in done.err


def test_a_second_hyperd_of_one_root_is_refused(own: Hyper) -> None:
    own.start_daemon()
    second = subprocess.run(DAEMON, env=own.variables(), capture_output=True, timeout=30, check=False)
    assert second.returncode != 0
    assert b"already" in second.stderr or b"another" in second.stderr
