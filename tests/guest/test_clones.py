"""A machine that is to be copied, and what a copy does before its pod: here they are one machine."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from hypercontainer.errors import GuestError
from hypercontainer.guest.protocol import BecomeTemplate, GetTimeline, Timeline
from tests.guest.laboratory import Pod

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n"


async def test_containers_of_a_copy_see_a_boot_id_of_its_own(machine: Pod) -> None:
    await machine.agent.request(BecomeTemplate())
    await machine.reconnect()
    await machine.set_up()
    await machine.create("c1")
    await machine.create("c2")
    one, two = [await machine.output(BOOT_ID, container=name) for name in ("c1", "c2")]
    assert one == two
    assert re.fullmatch(UUID, one)
    assert one != Path("/proc/sys/kernel/random/boot_id").read_text()
    assert await machine.output(f"echo no > {BOOT_ID.split()[1]} 2>/dev/null || echo refused") == "refused\n"


async def test_containers_of_other_machines_see_the_kernels(machine: Pod) -> None:
    await machine.set_up()
    await machine.create()
    assert await machine.output(BOOT_ID) == Path("/proc/sys/kernel/random/boot_id").read_text()


async def test_a_machine_that_has_a_pod_becomes_no_template(machine: Pod) -> None:
    await machine.set_up()
    with pytest.raises(GuestError) as caught:
        await machine.agent.request(BecomeTemplate())
    assert caught.value.errno == errno.EBUSY


async def test_what_was_before_a_copys_time_is_not_told(machine: Pod) -> None:
    before = machine.agent.welcome.now_ns
    await machine.agent.request(BecomeTemplate())
    await machine.reconnect()
    timeline = await machine.agent.request(GetTimeline())
    assert isinstance(timeline, Timeline)
    assert machine.agent.welcome.started_ns > before
    assert all(mark.at_ns > before for mark in timeline.marks)
