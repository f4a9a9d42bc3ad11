"""x86_64: what costs each guest memory."""

from __future__ import annotations

from pathlib import Path

from guest.kernel.edits.text import removed


def apply(tree: Path) -> None:
    pack_entry_code(tree / "arch/x86/kernel/vmlinux.lds.S")
    shorten_queues(tree / "drivers/virtio/virtio_mmio.c")


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


def shorten_queues(mmio: Path) -> None:
    """Save 8 MB of each guest: QEMU offers queues of 1,024, and drivers fill theirs with buffers.

    The console's driver puts 4 KB under each entry of its queues to the guest, which are the even ones.
    128 is what QEMU offers elsewhere.
    """
    asked = "\tnum = readl(vm_dev->base + VIRTIO_MMIO_QUEUE_NUM_MAX);\n"
    less = "\tnum = min(num, vdev->id.device == VIRTIO_ID_CONSOLE && index % 2 == 0 ? 16u : 128u);\n"
    text = removed(mmio.read_text(), asked, mmio, put=asked + less)
    include = "#include <uapi/linux/virtio_mmio.h>\n"
    mmio.write_text(removed(text, include, mmio, put=f"#include <uapi/linux/virtio_ids.h>\n{include}"))
