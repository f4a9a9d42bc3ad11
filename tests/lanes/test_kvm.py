"""The lane ``kvm`` is what it claims: the kernel's KVM.

These run in the lane (``make lane-kvm``), where each must pass.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hypercontainer.hypervisors._qmp import open_qmp
from tests.e2e.hyper import Hyper
from tests.hypervisors.machines import LANE

pytestmark = [
    pytest.mark.needs_machine,
    pytest.mark.timeout(300),
    pytest.mark.skipif(LANE != "kvm", reason="not on this host: for the lane kvm"),
]


def test_the_host_has_the_kernels_own_kvm() -> None:
    assert Path("/dev/kvm").is_char_device()
    assert Path("/sys/module/kvm_amd").is_dir()
    assert "svm" in Path("/proc/cpuinfo").read_text().split()


def test_a_pod_that_requires_hardware_gets_it(automatic: Hyper) -> None:
    flags = ("--network", "none", "-m", "64m", "--require-isolation", "hardware", "--name", "hard")
    automatic.ok("run", "-d", *flags, "busybox", "sleep", "1000")
    (machine,) = automatic.json("list", "vm")
    assert (machine["hypervisor"], machine["isolation"]) == ("kvm", "hardware")
    control = automatic.root / "run/machines" / machine["id"] / "qmp.sock"
    assert asyncio.run(_kvm_state(control)) == {"enabled": True, "present": True}
    automatic.ok("rm", "-f", "hard")


async def _kvm_state(control: Path) -> dict[str, bool]:
    async with open_qmp(control) as qmp:
        state: dict[str, bool] = await qmp.execute("query-kvm")
    return state


def test_the_guest_itself_sees_kvm(automatic: Hyper) -> None:
    """Its clock is KVM's, which QEMU's emulation hasn't."""
    source = "/sys/devices/system/clocksource/clocksource0/available_clocksource"
    assert "kvm-clock" in automatic.run("busybox", "cat", source).out.split()
