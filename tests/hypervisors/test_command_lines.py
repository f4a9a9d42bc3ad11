"""The VMMs' command lines, as they were last looked at: ``UPDATE_SNAPSHOTS=1`` accepts new ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hypercontainer.hypervisors.base import load
from hypercontainer.hypervisors.xen import HOTPLUG
from hypercontainer.model.machine import Disk, MachineConfig, Nic, NicKind

SNAPSHOTS = Path(__file__).parent / "snapshots"
RUN_DIR = Path("/run/hyper/machines/0123")


TEMPLATE = Path("/templates/a, b")


def a_config(*nics: Nic, disks: int = 2, vcpus: int = 1) -> MachineConfig:
    return MachineConfig(
        id="0123",
        vcpus=vcpus,
        memory_mib=128,
        kernel=Path("/data/kernel"),
        initramfs=Path("/data/initramfs"),
        disks=tuple(Disk(path=Path(f"/images/{n},a b"), read_only=n > 0) for n in range(disks)),
        nics=nics,
    )


TAP = Nic(mac="02:00:00:00:00:01", kind=NicKind.TAP, backend="hyper0.1")
STREAM = Nic(mac="02:00:00:00:00:02", kind=NicKind.STREAM, backend="/run/passt.sock")
NONE = Nic(mac="02:00:00:00:00:04", kind=NicKind.NONE, backend="")
PACKET = Nic(mac="02:00:00:00:00:03", kind=NicKind.PACKET, backend="/run/frames.sock")

CASES = {
    "kvm-small": ("kvm", a_config()),
    "kvm-large": ("kvm", a_config(TAP, STREAM, disks=4, vcpus=4)),
    "tcg-small": ("tcg", a_config()),
    "tcg-large": ("tcg", a_config(TAP, STREAM, disks=4, vcpus=4)),
    "tcg-template": ("tcg", replace(a_config(NONE, disks=0), save_in=TEMPLATE)),
    "tcg-copy": ("tcg", replace(a_config(TAP), template=TEMPLATE)),
    "uml-small": ("uml", a_config()),
    "uml-large": ("uml", a_config(TAP, PACKET, disks=12)),
    "xen-small": ("xen", a_config()),
    "xen-large": ("xen", a_config(TAP, disks=12, vcpus=4)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_command_line_is_the_one_that_was_looked_at(case: str) -> None:
    name, config = CASES[case]
    command = "\n".join(load(name).command(config, RUN_DIR)) + "\n"
    command = command.replace(str(HOTPLUG.parent), "/hypervisors")
    snapshot = SNAPSHOTS / f"{case}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.write_text(command)
    assert command == snapshot.read_text()


@pytest.mark.parametrize("name", ["kvm", "tcg", "uml", "xen"])
def test_a_command_line_depends_on_nothing_but_its_arguments(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(name).command(a_config(TAP), RUN_DIR)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert load(name).command(a_config(TAP), RUN_DIR) == before
