"""The kernels that are built, and what each is made of: all but progress counts is in a target's hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from guest.kernel import edits

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One kernel: which architecture it is built for, of what, and what comes out."""

    name: str
    architecture: str  # make's ARCH
    fragments: tuple[str, ...]
    product: str  # make's goal and the file that it leaves
    drivers: tuple[str, ...]  # how the names of its own begin
    edits: tuple[str, ...]  # the modules that change what it is built from
    compile_steps: int  # roughly, to show progress

    def fragment_paths(self) -> list[Path]:
        return [HERE / "fragments" / f"{name}.config" for name in self.fragments]

    def driver_paths(self) -> list[Path]:
        shared = [edits.DRIVERS / name for name in ("Kconfig", "Makefile")]
        return shared + [path for name in self.drivers for path in sorted(edits.DRIVERS.glob(f"{name}*"))]

    def edit_paths(self) -> list[Path]:
        return [HERE / "edits" / f"{name}.py" for name in self.edits]


COMMON = ("base", "files", "network", "nfs")

TARGETS = {
    target.name: target
    for target in (
        Target(
            name="um",
            architecture="um",
            fragments=(*COMMON, "um"),
            product="linux",
            drivers=(
                "hyper_channel",
                "hyper_disk",
                "hyper_exit",
                "hyper_faults",
                "hyper_start",
                "hyper_traps",
            ),
            edits=("um", "traps"),
            compile_steps=1440,
        ),
        Target(
            name="x86_64",
            architecture="x86_64",
            fragments=(*COMMON, "x86_64", "microvm"),
            product="vmlinux",
            drivers=("hyper_poweroff",),
            edits=("x86_64",),
            compile_steps=1500,
        ),
        # A kernel that is ready for Xen pays for it everywhere: at each page table, and for ACPI in memory.
        Target(
            name="xen",
            architecture="x86_64",
            fragments=(*COMMON, "x86_64", "xen"),
            product="vmlinux",
            drivers=("hyper_xen",),
            edits=("x86_64", "xen"),
            compile_steps=1600,
        ),
    )
}
