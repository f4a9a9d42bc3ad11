"""The lanes: what makes each host another one than this."""

from __future__ import annotations

from dataclasses import dataclass

TESTS = (
    *("tests/lanes", "tests/e2e/test_life.py", "tests/hypervisors/promises"),
    "tests/hypervisors/test_templates.py",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A host to make.  Its name is that of the driver that it is made for."""

    name: str
    target: str  # the hyperkernel that its machines boot
    kernel: str  # Debian's package; 6.1: QEMU 7.2 emulates a CPU on which 6.12 crashes at times
    modules: tuple[str, ...]
    memory_mib: int
    hypervisor: str = ""  # the file that is booted instead of the kernel, below /boot
    packages: tuple[str, ...] = ()  # unpacked into the image beside the programs of this host
    tools: tuple[str, ...] = ()  # programs of those packages, for the libraries that they need

    def pytest(self) -> tuple[str, ...]:
        return ("-v", "--color=no", "--tb=short", "-k", self.name, *TESTS)


COMMON = ("virtio_pci", "virtio_blk", "tun", "bridge", "nf_tables")
TOOLS = "usr/lib/xen-4.17/bin"

LANES = {
    lane.name: lane
    for lane in (
        Lane(
            name="kvm",
            target="x86_64",
            kernel="linux-image-cloud-amd64",
            modules=(*COMMON, "kvm_amd"),
            memory_mib=2048,
        ),
        Lane(
            name="xen",
            target="xen",
            kernel="linux-image-amd64",  # the cloud kernel can be no dom0
            modules=(
                "crc32c_generic",  # ext4 and nf_tables look for it by the name of what it does
                *COMMON,
                *("xen_evtchn", "xen_gntdev", "xen_privcmd", "xenfs", "xen_blkback", "xen_netback"),
                *("loop", "sch_ingress", "cls_matchall", "act_mirred", "ipv6", "ext4"),
            ),
            memory_mib=3072,
            hypervisor="xen-4.17-amd64.gz",
            packages=(
                *("xen-hypervisor-4.17-amd64", "xen-utils-4.17", "xen-utils-common", "xenstore-utils"),
                *("libxenmisc4.17", "libxencall1", "libxendevicemodel1", "libxenevtchn1"),
                *("libxenforeignmemory1", "libxengnttab1", "libxenhypfs1", "libxenstore4"),
                *("libxentoolcore1", "libxentoollog1", "libyajl2"),
            ),
            tools=(
                *(f"{TOOLS}/xl", f"{TOOLS}/xenstored", f"{TOOLS}/xenconsoled", f"{TOOLS}/xen-init-dom0"),
                *(f"{TOOLS}/libxl-save-helper", "usr/bin/xenstore"),
            ),
        ),
    )
}
