"""The lane ``xen`` is what it claims: dom0 of the real hypervisor.

These run in the lane (``make lane-xen``), where each must pass.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from hypercontainer.hypervisors import _xl
from tests.e2e.hyper import Hyper
from tests.hypervisors.machines import LANE, Place, load_driver, make_initramfs, processes_of
from tests.support import xen
from tests.support.waiting import until

pytestmark = [
    pytest.mark.needs_machine,
    pytest.mark.timeout(300),
    pytest.mark.skipif(LANE != "xen", reason="not on this host: for the lane xen"),
]

SMALL = ("--network", "none", "-m", "64m")


def test_the_host_is_dom0_of_a_xen_that_answers() -> None:
    assert Path("/sys/hypervisor/type").read_text() == "xen\n"
    assert "control_d" in Path("/proc/xen/capabilities").read_text()
    said = subprocess.run(["xl", "info"], check=True, capture_output=True, text=True).stdout
    assert "xen_major              : 4" in said


def test_a_pod_that_requires_hardware_is_a_pvh_domain(automatic: Hyper) -> None:
    flags = (*SMALL, "--require-isolation", "hardware", "--name", "hard")
    automatic.ok("run", "-d", *flags, "busybox", "sleep", "1000")
    (machine,) = automatic.json("list", "vm")
    assert (machine["hypervisor"], machine["isolation"]) == ("xen", "hardware")
    assert xen.kind_of(*xen.domains()) == "pvh"
    automatic.ok("rm", "-f", "hard")
    assert xen.nothing_is_left()


async def test_without_the_cpus_virtualization_a_machine_is_a_pv_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def has_none() -> bool:
        return False

    monkeypatch.setattr(_xl, "has_hardware", has_none)
    place = Place(hypervisor=load_driver("xen"), root=tmp_path, initramfs=make_initramfs(tmp_path))
    async with place.booted() as booted:
        assert xen.kind_of(str(_xl.find(booted.machine.run_dir))) == "pv"
        assert await booted.shell("echo alive") == b"alive\n"
    assert xen.nothing_is_left()


def test_a_domain_whose_keeper_died_with_hyperd_is_ended_by_the_next(automatic: Hyper) -> None:
    automatic.ok("run", "-d", *SMALL, "--name", "orphan", "busybox", "sleep", "1000")
    (machine,) = automatic.json("list", "vm")
    assert automatic.daemon is not None
    automatic.daemon.kill()
    automatic.daemon.wait()
    os.kill(int(machine["pid"]), signal.SIGKILL)
    assert xen.domains()
    (automatic.root / "run/hyper.sock").unlink()
    automatic.start_daemon()
    until(lambda: not xen.domains())
    assert processes_of(automatic.root / "run/machines" / machine["id"]) == []
    automatic.ok("rm", "-f", "orphan")
    assert xen.nothing_is_left()
