"""What hyper says of a lane's host is the truth: doctor, info, and the driver that it takes by itself.

These run in a lane (``make lanes``), where each must pass.
"""

from __future__ import annotations

import json

import pytest

from hypercontainer.guest import boot
from hypercontainer.hypervisors.base import load
from tests.e2e.hyper import Hyper
from tests.hypervisors.machines import LANE

ONLY = "not on this host: for the lane"
EACH = [
    pytest.param(lane, marks=pytest.mark.skipif(lane != LANE, reason=f"{ONLY} {lane}"))
    for lane in ("kvm", "xen")
]

pytestmark = [
    pytest.mark.needs_machine,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("lane", EACH),
]


def test_doctor_finds_that_the_lanes_driver_boots_and_takes_it(automatic: Hyper, lane: str) -> None:
    """Quickly: to measure is to boot tcg as well, emulation in emulation, which takes minutes."""
    report = json.loads(automatic.ok("doctor", "--quick", "--format", "json"))
    drivers = {driver["name"]: driver for driver in report["drivers"]}
    assert [name for name, driver in drivers.items() if driver["chosen"]] == [lane]
    assert drivers[lane]["works"]
    assert drivers[lane]["isolation"] == "hardware"


def test_info_says_the_lanes_driver_and_hardware(automatic: Hyper, lane: str) -> None:
    info = json.loads(automatic.ok("info", "--format", "json"))
    assert (info["hypervisor"], info["isolation"]) == (lane, "hardware")
    assert info["kernel"] == boot.find_kernel(load(lane).capabilities.kernel).version
