"""Xen: what costs each PVH domain's start."""

from __future__ import annotations

from pathlib import Path

from guest.kernel.edits.text import change


def apply(tree: Path) -> None:
    ask_no_timer_that_is_not_there(tree / "arch/x86/xen/time.c")


def ask_no_timer_that_is_not_there(time: Path) -> None:
    """Save 100,000 exits to Xen of each start, two thirds of it under emulation.

    The kernel takes the TSC's rate from Xen, but measures the CPU's by the PIT all the same.  A PVH domain
    has none, and reads 255 there: what the measure waits for to change, 50,000 times with two reads each.
    On KVM, one rate is both (kvmclock.c).
    """
    asked = "\tx86_platform.calibrate_tsc = xen_tsc_khz;\n"
    change(time, {asked: f"{asked}\tx86_platform.calibrate_cpu = xen_tsc_khz;\n"})
