"""What we change in the kernel's tree: our drivers go in, and two lines of others' go out.

Each edit says what it replaces and fails when that is not there, so that no new kernel version loses one
silently.
"""

from __future__ import annotations

import shutil
from pathlib import Path

DRIVERS = Path(__file__).parent / "drivers"


class EditError(Exception):
    """The tree is not as an edit expects it; the message says where."""


def apply(tree: Path) -> None:
    """Make all edits in a freshly unpacked tree."""
    add_drivers(tree)
    allow_static_link(tree / "arch/um/drivers/Kconfig")
    pack_entry_code(tree / "arch/x86/kernel/vmlinux.lds.S")
    stop_at_failed_fork(tree / "arch/um/kernel/tlb.c")


def add_drivers(tree: Path) -> None:
    """Put our drivers into the tree as ``drivers/hyper``, and into what make and Kconfig read."""
    shutil.copytree(DRIVERS, tree / "drivers/hyper")
    append(tree / "drivers/Makefile", "obj-y += hyper/\n")
    append(tree / "drivers/Kconfig", 'source "drivers/hyper/Kconfig"\n')


def allow_static_link(kconfig: Path) -> None:
    """Let the vector network driver into a static User-Mode Linux.

    Only its transports gre and l2tpv3 look up host names, which a static glibc cannot do everywhere; we use
    taps and sockets.
    """
    start = "config UML_NET_VECTOR\n"
    head, vector, tail = kconfig.read_text().partition(start)
    kconfig.write_text(head + vector + removed(tail, "\tselect MAY_HAVE_RUNTIME_DEPS\n", kconfig))


def pack_entry_code(linker_script: Path) -> None:
    """Save 3 MB of each guest: the padding around 5 KB of entry code.

    The kernel gives that code large pages of its own for page table isolation, a mitigation of Meltdown that
    we build without.
    """
    text = linker_script.read_text()
    for name in ("ALIGN_ENTRY_TEXT_BEGIN", "ALIGN_ENTRY_TEXT_END"):
        asked = f"#define {name}\t. = ALIGN(PMD_SIZE);"
        text = removed(text, asked, linker_script, put=f"#define {name}\t. = ALIGN(PAGE_SIZE);")
    linker_script.write_text(text)


def stop_at_failed_fork(tlb: Path) -> None:
    """Keep a fork that fails half-way, for want of memory or by a signal, from crashing User-Mode Linux.

    dup_mmap() marks where it stopped with XA_ZERO_ENTRY; exit_mmap() then flushes, and only um walks the
    areas to do so: it took the mark for one ("Kernel mode fault at addr 0x40e" in flush_tlb_mm).
    """
    loop = "\tfor_each_vma(vmi, vma)\n"
    call = "\t\tum_tlb_mark_sync(mm, vma->vm_start, vma->vm_end);\n"
    careful = f"\tfor_each_vma(vmi, vma) {{\n\t\tif (xa_is_zero(vma))\n\t\t\tbreak;\n{call}\t}}\n"
    tlb.write_text(removed(tlb.read_text(), loop + call, tlb, put=careful))


def append(path: Path, addition: str) -> None:
    path.write_text(f"{path.read_text()}\n{addition}")


def removed(text: str, asked: str, path: Path, *, put: str = "") -> str:
    """``text`` with the first ``asked`` replaced; ``path`` is for the error."""
    if asked not in text:
        raise EditError(f"{path}: expected '{asked.strip()}'")
    return text.replace(asked, put, 1)
