"""A root for each driver, where hyperd may die: see ``site``.

HYPER_CRASH=all makes the tests of this ring long: every step of every verb, as ``make crash`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.guest import boot
from hypercontainer.hypervisors import base
from tests.crash.site import Site, cgroups, owned_processes, remove_cgroups
from tests.e2e.hyper import Hyper
from tests.support.images import busybox_archive
from tests.support.processes import new_root

LONG = os.environ.get("HYPER_CRASH") == "all"


def _make(driver: str, cache: Path, *, lib_mib: int = 0) -> Site:
    if not boot.DATA.joinpath("hyperstart").exists():
        pytest.skip("hyperstart is not built: make guest")
    if os.geteuid() != 0:
        pytest.skip("not on this host: what hyperd leaves is looked for as root")
    if reason := asyncio.run(base.load(driver).missing(cache=cache)):
        pytest.skip(f"{driver}: {reason}")
    site = Site(hyper=Hyper(root=new_root(), driver=driver))
    if lib_mib:
        site.paths.state.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={lib_mib}m", "none", str(site.paths.state)]
        subprocess.run(command, check=True)
    site.start()
    site.hyper.ok("load", "-q", "-i", str(busybox_archive(site.hyper.root / "busybox.tar")))
    return site


@contextlib.contextmanager
def _site(driver: str, cache: Path, *, lib_mib: int = 0) -> Iterator[Site]:
    site = _make(driver, cache, lib_mib=lib_mib)
    try:
        yield site
    finally:
        with contextlib.suppress(Exception):
            site.start()
            site.hyper.remove_all()
        site.stop()
        if site.paths.state.is_mount():
            subprocess.run(["umount", site.paths.state], check=False)
        left = owned_processes(site) + [str(path) for path in cgroups(site)]
        for process in owned_processes(site):
            os.kill(int(process.split()[0]), signal.SIGKILL)
        remove_cgroups(site)
        shutil.rmtree(site.hyper.root, ignore_errors=True)
    assert not left, left


@pytest.fixture(scope="module")
def _namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with _site("namespace", tmp_path_factory.mktemp("cache")) as site:
        yield site


@pytest.fixture(scope="module")
def _uml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with _site("uml", tmp_path_factory.mktemp("cache")) as site:
        yield site


@pytest.fixture
def tcg(tmp_path: Path) -> Iterator[Site]:
    """With emulated machines: for templates."""
    with _site("tcg", tmp_path) as site:
        yield site


@pytest.fixture
def site(_namespace: Site) -> Iterator[Site]:
    """Without machines: a pod takes 30 ms."""
    yield _namespace
    _tidy(_namespace)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Site]:
    """A root of the test's own, whose disk is full soon."""
    with _site("namespace", tmp_path, lib_mib=32) as site:
        yield site


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Site]:
    """A root of the test's own."""
    with _site("namespace", tmp_path) as site:
        yield site


@pytest.fixture
def uml(_uml: Site) -> Iterator[Site]:
    """With User-Mode Linux: for networks and pause."""
    yield _uml
    _tidy(_uml)


def _tidy(site: Site) -> None:
    """Whatever a test that failed left, the next one begins with nothing."""
    site.disarm() if site.fuse.exists() else None
    site.start()
    site.hyper.remove_all()
