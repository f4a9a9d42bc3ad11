"""The outer guest: an emulated machine whose CPU has virtualization."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.lanes import hang, watch
from tools.lanes.emulator import FIRMWARE
from tools.lanes.image import Image
from tools.lanes.lane import Lane

# AMD's SVM is what TCG emulates.  Without the rest, each of which has stopped a guest: SMAP faults on a
# user-mode iretq, RDTSCP is reported as another instruction, PKU makes XSAVE's size inconsistent.  Without
# AVX, a hypervisor has less to save at each switch, and to get wrong.  Without ERMS, kernels clear and copy
# memory by words: TCG runs each byte of a string instruction as an instruction of its own.
CPU = "max,-smap,-rdtscp,-pku,-xsave,-avx,-avx2,-fma,-f16c,-erms"
MACHINE = "q35,hpet=off"
# The guest's time is the instructions that it has run, 2 ns each: on a busy host a lane takes longer, and
# no deadline of what is tested there runs out sooner.  It needs one CPU.
CLOCK = ("-accel", "tcg,thread=single", "-icount", "shift=1", "-smp", "1")
DISK = 3 << 30  # bytes, sparse
RESULTS = 64 << 20
# Xen and its dom0 are nobody's boundary here, and what guards them costs an emulated CPU most.
KERNEL_UNGUARDED = "mitigations=off"
XEN_UNGUARDED = "spec-ctrl=no"
MONITOR = "monitor.sock"
SYSRQ = "sysrq_always_enabled"  # a guest that hangs is asked by it


def run(
    emulator: Path, lane: Lane, image: Image, work: Path, results: Path, deadlines: watch.Deadlines
) -> None:
    """Boot, show the console while the tests run, and unpack what they left into ``results``."""
    disks = {"results.raw": RESULTS, "work.raw": DISK}
    for name, size in disks.items():
        (work / name).unlink(missing_ok=True)
        (work / name).touch()
        os.truncate(work / name, size)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", work / "work.raw"], check=True)
    drives = [work / name for name in disks]
    command = [str(emulator), *_machine(lane, image, drives), *_monitored(work / MONITOR)]
    with _started(command) as vmm:
        assert vmm.stdin
        assert vmm.stdout
        keyboard = vmm.stdin.fileno()
        explain = partial(hang.explain, work / MONITOR, keyboard, on_xen=bool(lane.hypervisor))
        watch.follow(vmm.stdout, results, deadlines, explain)
    with tarfile.open(work / "results.raw", "r:") as archive:
        archive.extractall(results, filter="data")


def _machine(lane: Lane, image: Image, disks: list[Path]) -> list[str]:
    drives = [word for disk in disks for word in ("-drive", f"if=virtio,format=raw,file={disk}")]
    return [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *(word for directory in FIRMWARE for word in ("-L", directory)),
        *("-machine", MACHINE, "-cpu", CPU, *CLOCK),
        *("-m", f"{lane.memory_mib}M", "-serial", "stdio", *drives),
        *_booted(lane, image),
    ]


def _monitored(socket: Path) -> list[str]:
    """For who asks why it hangs."""
    return ["-qmp", f"unix:{socket},server=on,wait=off"]


def _booted(lane: Lane, image: Image) -> list[str]:
    """The kernel, or a hypervisor with the kernel of its first domain as a multiboot module."""
    if image.hypervisor is None:
        arguments = f"console=ttyS0 lane={lane.name} {SYSRQ} quiet no_timer_check reboot=t panic=-1"
        return ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", arguments]
    first = lane.memory_mib * 2 // 3
    memory = f"dom0_mem={first}M,max:{first}M"
    arguments = f"console=com1 com1=115200,8n1 loglvl=warning {memory} {XEN_UNGUARDED} noreboot"
    # Its own measure of the time stamp counter goes wrong by a factor of four.
    clock = "clocksource=xen"
    kernel = f"console=hvc0 lane={lane.name} {SYSRQ} {KERNEL_UNGUARDED} {clock} quiet panic=-1"
    modules = f"{image.kernel} {kernel},{image.initrd}"
    return ["-kernel", str(image.hypervisor), "-append", arguments, "-initrd", modules]


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as vmm:
        try:
            yield vmm
        finally:
            vmm.kill()
