"""What every driver promises (docs/drivers.md): NICs of every kind that a driver has."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypercontainer.errors import HypervisorError
from hypercontainer.model.machine import Nic, NicKind
from tests.hypervisors import peer
from tests.hypervisors.machines import (
    Place,
    needs,
    processes_of,
    set_up,
)

pytestmark = pytest.mark.needs_machine

MAC = "02:42:c0:a8:7b:02"


@pytest.fixture
def tap() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("making a tap needs root")
    name = f"hyt{secrets.token_hex(4)}"
    subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"], check=True)
    subprocess.run(["ip", "addr", "add", "198.18.213.2/30", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


# Finds the NIC by its address, as hyperstart does when there is a pod, and reaches a host through it.
REACH = f"""
for nic in /sys/class/net/*; do
    [ "$(cat $nic/address)" = {MAC} ] && name=${{nic##*/}}
done
ip addr add 198.18.213.1/30 dev $name && ip link set $name up
ping -q -c 3 -i 0.1 -w 10 198.18.213.2 >/dev/null
"""


async def test_a_nic_on_a_tap_reaches_the_host_under_its_mac_address(place: Place, tap: str) -> None:
    needs(NicKind.TAP in place.hypervisor.capabilities.nics, "tap")
    nic = Nic(mac=MAC, kind=NicKind.TAP, backend=tap)
    async with place.booted(place.config(nics=(nic,))) as booted:
        await booted.agent.request(set_up("m"))
        await booted.shell(REACH)
    assert Path("/sys/class/net", tap).exists()  # it is not the VMM's


@pytest.mark.parametrize("kind", [NicKind.STREAM, NicKind.PACKET])
async def test_a_nic_on_a_socket_reaches_the_host_under_its_mac_address(
    place: Place, tmp_path: Path, kind: NicKind
) -> None:
    needs(kind in place.hypervisor.capabilities.nics, f"NIC of kind {kind}")
    nic = Nic(mac=MAC, kind=kind, backend=str(tmp_path / "nic.sock"))
    async with contextlib.AsyncExitStack() as stack:
        async with peer.answering(tmp_path / "nic.sock", kind):
            booted = await stack.enter_async_context(place.booted(place.config(nics=(nic,))))
            await booted.agent.request(set_up("m"))
            await booted.shell(REACH)
        assert await booted.shell("echo alive") == b"alive\n"  # a network that dies takes no guest along


@pytest.mark.however_started
async def test_a_nic_without_its_backend_is_refused(place: Place, tmp_path: Path) -> None:
    for kind in place.hypervisor.capabilities.nics - {NicKind.NONE}:
        run_dir = place.run_dir()
        nic = Nic(mac=MAC, kind=kind, backend="hyt-missing" if kind is NicKind.TAP else str(tmp_path / "no"))
        with pytest.raises(HypervisorError, match=r"hyt-missing|no"):
            await place.launch(place.config(nics=(nic,)), run_dir)
        assert processes_of(run_dir) == []
    assert not Path("/sys/class/net/hyt-missing").exists()
