"""The outer guest: an emulated machine whose CPU has virtualization, and the deadlines that it must keep."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
# Xen and its dom0 are nobody's boundary here, and what guards them costs an emulated CPU most.  The lane of
# KVM hung once without its guards.
KERNEL_UNGUARDED = "mitigations=off"
XEN_UNGUARDED = "spec-ctrl=no"
UP = "lane: up after"
OVER = "lane: over after"


class BootError(Exception):
    """The outer guest didn't come up: no fault of what is tested, and worth another try."""


class LaneError(Exception):
    """The outer guest came up, but never to its end."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds of the host.  Generous: hosts are busy, and what hangs, hangs for ever."""

    up: float = 300
    over: float = 1800


def run(lane: Lane, image: Image, work: Path, results: Path, deadlines: Deadlines) -> None:
    """Boot, show the console while the tests run, and unpack what they left into ``results``."""
    disks = {"results.raw": RESULTS, "work.raw": DISK}
    for name, size in disks.items():
        (work / name).unlink(missing_ok=True)
        (work / name).touch()
        os.truncate(work / name, size)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", work / "work.raw"], check=True)
    with _started(_command(lane, image, [work / name for name in disks])) as vmm:
        _follow(vmm, results / "console.log", deadlines)
    with tarfile.open(work / "results.raw", "r:") as archive:
        archive.extractall(results, filter="data")


def _command(lane: Lane, image: Image, disks: list[Path]) -> list[str]:
    drives = [word for disk in disks for word in ("-drive", f"if=virtio,format=raw,file={disk}")]
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", MACHINE, "-cpu", CPU, *CLOCK),
        *("-m", f"{lane.memory_mib}M", "-serial", "stdio", *drives),
        *_booted(lane, image),
    ]


def _booted(lane: Lane, image: Image) -> list[str]:
    """The kernel, or a hypervisor with the kernel of its first domain as a multiboot module."""
    if image.hypervisor is None:
        arguments = f"console=ttyS0 lane={lane.name} quiet no_timer_check reboot=t panic=-1"
        return ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", arguments]
    first = lane.memory_mib * 2 // 3
    memory = f"dom0_mem={first}M,max:{first}M"
    arguments = f"console=com1 com1=115200,8n1 loglvl=warning {memory} {XEN_UNGUARDED} noreboot"
    # Its own measure of the time stamp counter goes wrong by a factor of four.
    kernel = f"{image.kernel} console=hvc0 lane={lane.name} {KERNEL_UNGUARDED} clocksource=xen quiet panic=-1"
    modules = f"{kernel},{image.initrd}"
    return ["-kernel", str(image.hypervisor), "-append", arguments, "-initrd", modules]


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT) as vmm:
        try:
            yield vmm
        finally:
            vmm.kill()


def _follow(vmm: subprocess.Popen[bytes], log: Path, deadlines: Deadlines) -> None:
    """Until the guest is off; every line goes to ``log``, and with the seconds since the start to stdout."""
    began, seen = time.monotonic(), [""]
    deadline = _deadline(vmm, deadlines.up)
    assert vmm.stdout is not None
    with log.open("w") as file:
        for raw in vmm.stdout:
            line = raw.decode(errors="replace").strip()
            if UP in line:
                deadline.cancel()
                deadline = _deadline(vmm, deadlines.over)
            print(f"[{time.monotonic() - began:6.1f}] {line}", flush=True)
            print(line, file=file, flush=True)
            seen.append(line)
    deadline.cancel()
    if not any(UP in line for line in seen):
        raise BootError(f"the outer guest did not come up; its last words: {seen[-1]}")
    if not any(OVER in line for line in seen):
        raise LaneError(f"the lane did not come to its end; its last words: {seen[-1]}")


def _deadline(vmm: subprocess.Popen[bytes], seconds: float) -> threading.Timer:
    """Ends the guest when it takes longer."""
    timer = threading.Timer(seconds, vmm.kill)
    timer.daemon = True
    timer.start()
    return timer
