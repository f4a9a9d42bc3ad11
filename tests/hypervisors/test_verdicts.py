"""Why a driver cannot run here: a /dev/kvm is believed when it has booted a guest, and not before."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from hypercontainer.guest import boot
from hypercontainer.hypervisors import _kvm, _probe, _processes, _verdict, _xl, uml
from hypercontainer.hypervisors.base import load
from hypercontainer.model.machine import MachineConfig
from tests.hypervisors.machines import a_disk

ALL_THERE = Path("/dev/null")  # a device that may be read and written


async def verdict(config: MachineConfig, cache: Path) -> str | None:
    """As of kvm, but with the accelerator that runs everywhere."""
    program = Path("/bin/true")
    return await _verdict.boot_missing(load("tcg"), config, subject="It", program=program, cache=cache)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineConfig:
    monkeypatch.setattr(_verdict, "DEADLINE", 30.0)  # emulation on a busy host is no hardware
    return _probe.machine_config(load("tcg"), cache=tmp_path)


def test_a_missing_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kvm, "DEVICE", Path("/dev/no-kvm"))
    assert "there is no /dev/kvm" in str(_kvm.device_missing())


def test_a_device_without_a_capable_cpu_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kvm, "DEVICE", ALL_THERE)
    monkeypatch.setattr(_kvm, "_cpu_flags", lambda: {"fpu", "sse2", "hypervisor"})
    assert "neither svm nor vmx" in str(_kvm.device_missing())
    for flag in ("svm", "vmx"):
        monkeypatch.setattr(_kvm, "_cpu_flags", lambda flag=flag: {"fpu", flag})
        assert _kvm.device_missing() is None


@pytest.mark.parametrize(
    ("has", "says"),
    [
        ({"type": "none"}, "does not run on Xen"),
        ({"type": "xen"}, "mount -t xenfs"),
        ({"type": "xen", "capabilities": ""}, "a Xen guest and not dom0"),
    ],
)
def test_what_a_host_lacks_for_xen_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has: dict[str, str], says: str
) -> None:
    for name, text in has.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(_xl, "HYPERVISOR", tmp_path)
    monkeypatch.setattr(_xl, "CAPABILITIES", tmp_path / "capabilities")
    assert says in str(_xl.host_missing())


def test_a_dom0_without_what_xens_tools_need_is_told_what_to_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "type").write_text("xen\n")
    (tmp_path / "capabilities").write_text("control_d\n")
    monkeypatch.setattr(_xl, "HYPERVISOR", tmp_path)
    monkeypatch.setattr(_xl, "CAPABILITIES", tmp_path / "capabilities")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "modprobe xen-evtchn" in str(_xl.host_missing())
    monkeypatch.setattr(_xl, "DEVICES", {})
    monkeypatch.setattr(_xl, "find_program", lambda name, package: name)
    assert "xenstored does not answer" in str(_xl.host_missing())


@pytest.mark.needs_machine
async def test_the_verdict_here_takes_under_five_seconds_and_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvm = load("kvm")
    began = time.monotonic()
    first = await kvm.missing(cache=tmp_path)
    assert time.monotonic() - began < 5
    monkeypatch.setattr(_verdict, "DEADLINE", 0.0)  # for another boot
    assert await kvm.missing(cache=tmp_path) == first


@pytest.mark.needs_machine
async def test_a_boot_that_works_is_remembered(
    config: MachineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await verdict(config, tmp_path / "cache") is None
    monkeypatch.setattr(_verdict, "DEADLINE", 0.0)  # for another boot
    assert await verdict(config, tmp_path / "cache") is None
    assert "did not come up" in str(await verdict(config, tmp_path / "another cache"))


@pytest.mark.needs_machine
async def test_a_guest_that_panics_is_no_working_kvm(config: MachineConfig, tmp_path: Path) -> None:
    empty = a_disk(tmp_path / "empty", b"").path
    reason = await verdict(dataclasses.replace(config, initramfs=empty), tmp_path / "cache")
    assert "did not start" in str(reason)


@pytest.mark.needs_machine
async def test_a_guest_that_hangs_meets_the_deadline_and_leaves_nothing(
    config: MachineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_verdict, "DEADLINE", 1.0)
    slow = dataclasses.replace(config, kernel_arguments=("init=/nowhere", "rdinit=/dev/null", "panic=0"))
    began = time.monotonic()
    assert "did not come up" in str(await verdict(slow, tmp_path / "cache"))
    assert time.monotonic() - began < 15
    assert _processes.find_orphans(tmp_path) == []
    assert [path.name[:4] for path in (tmp_path / "cache").iterdir()] == ["tcg-"]


@pytest.mark.needs_machine
async def test_another_kernel_gets_a_verdict_of_its_own(config: MachineConfig, tmp_path: Path) -> None:
    bad = tmp_path / "kernel"
    bad.write_bytes(b"no kernel\n" * 1000)
    assert await verdict(dataclasses.replace(config, kernel=bad), tmp_path / "cache") is not None
    assert await verdict(config, tmp_path / "cache") is None


@pytest.mark.needs_machine
async def test_what_a_daemon_left_in_a_probe_is_ended_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "probes" / "left"
    left.mkdir(parents=True)
    child = _processes.spawn(
        ["/bin/sleep", "100"], output=left / "out", environment={"HYPER_MACHINE": str(left)}
    )
    assert await load("uml").measure(cache=tmp_path) > 0
    assert not child.process.is_alive()
    assert not left.exists()


def test_without_a_kernel_every_driver_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(boot, "DATA", tmp_path)
    for name in ("uml", "tcg"):
        assert "make kernel" in str(_probe.kernel_missing(load(name), cache=tmp_path))


async def test_without_qemu_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("tcg", "kvm"):
        assert "qemu-system-x86" in str(await load(name).missing(cache=tmp_path))


async def test_uml_wants_a_tmpfs_that_allows_execution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(uml, "_is_memory", lambda directory: False)
    assert "noexec" in str(await load("uml").missing(cache=tmp_path))
