"""What can be seen of KVM without a boot."""

from __future__ import annotations

import os
from pathlib import Path

DEVICE = Path("/dev/kvm")


def device_missing() -> str | None:
    """What can be seen without a boot."""
    if not DEVICE.exists():
        return "there is no /dev/kvm: hardware virtualization is off, or the kvm modules are not loaded"
    if not {"svm", "vmx"} & _cpu_flags():
        return "there is a /dev/kvm, but the CPU offers neither svm nor vmx"
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return "/dev/kvm is not readable and writable for this user: add it to the group kvm"
    return None


def _cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split())
    return set()
