"""What we change in the kernel's tree: our drivers go in, and a few lines of others' are changed.

Each edit says what it replaces and fails when that is not there, so that no new kernel version loses one
silently.  One tree is for all targets; which modules decide what comes out for one, its ``edits`` say.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from guest.kernel.edits import traps, um, x86_64, xen
from guest.kernel.edits.text import EditError, append

__all__ = ["DRIVERS", "EditError", "add_drivers", "apply"]

DRIVERS = Path(__file__).parent.parent / "drivers"


def apply(tree: Path) -> None:
    """Make all edits in a freshly unpacked tree."""
    add_drivers(tree)
    um.apply(tree)
    traps.apply(tree)
    x86_64.apply(tree)
    xen.apply(tree)


def add_drivers(tree: Path) -> None:
    """Put our drivers into the tree as ``drivers/hyper``, and into what make and Kconfig read."""
    shutil.copytree(DRIVERS, tree / "drivers/hyper")
    append(tree / "drivers/Makefile", "obj-y += hyper/\n")
    append(tree / "drivers/Kconfig", 'source "drivers/hyper/Kconfig"\n')
