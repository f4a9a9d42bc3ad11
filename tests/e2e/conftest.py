"""A hyperd for each driver that runs here, with an image of busybox; every test leaves it without pods.

A test runs under uml, the fastest; with the mark ``every_driver`` under each driver.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.guest import boot
from hypercontainer.hypervisors import base
from tests.e2e import nfs
from tests.e2e.hyper import Hyper
from tests.hypervisors.machines import LANE
from tests.support.images import busybox_archive
from tests.support.processes import new_root

DRIVERS = ("uml", "tcg", "kvm", "xen")
MUST_RUN = {LANE} if LANE else {"uml", "tcg"}  # wherever hyper is tested


def _why_not(driver: str, cache: Path) -> str | None:
    if not boot.DATA.joinpath("hyperstart").exists():
        return "hyperstart is not built: make guest"
    return asyncio.run(base.load(driver).missing(cache=cache))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "daemon" in metafunc.fixturenames:
        everywhere = metafunc.definition.get_closest_marker("every_driver")
        metafunc.parametrize("daemon", DRIVERS if everywhere else DRIVERS[:1], indirect=True, scope="session")


@pytest.fixture(scope="session")
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hyper]:
    """A hyperd whose pods run under one driver."""
    driver = str(request.param)
    if reason := _why_not(driver, tmp_path_factory.mktemp("cache")):
        if driver in MUST_RUN and os.environ.get("HYPER_STRICT") == "1":
            pytest.fail(f"{driver} must run here: {reason}")
        pytest.skip(f"not on this host: {driver}: {reason}")
    hyper = Hyper(root=new_root(), driver=driver)
    try:
        hyper.start_daemon()
        if LANE:  # its CPU is emulated; tests/lanes starts the program itself
            hyper.preload()
        archive = busybox_archive(hyper.root / "busybox.tar")
        hyper.ok("load", "-q", "-i", str(archive))
        yield hyper
        hyper.remove_all()
    finally:
        if hyper.preloaded:
            hyper.preloaded.close()
        hyper.stop_daemon()
        shutil.rmtree(hyper.root, ignore_errors=True)


@pytest.fixture
def hyper(daemon: Hyper) -> Iterator[Hyper]:
    """The daemon, without pods before and after."""
    yield daemon
    daemon.remove_all()


@pytest.fixture
def nfs_server(hyper: Hyper) -> Iterator[str]:
    """The address of a pod that exports /export."""
    yield nfs.start_server(hyper)
    hyper.remove_all()
    hyper.ok("rmi", nfs.IMAGE)
