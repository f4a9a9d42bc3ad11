"""Debian's side of a lane: which packages its image is made of, and the files of the installed ones.

The programs of the image are those of this host, as ``tools/setup`` installs them, each with the libraries
that it is linked with.  The outer kernel isn't installed but unpacked: a host has a kernel already.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

KERNEL = "linux-image-cloud-amd64"  # 6.1 in Debian 12; QEMU 7.2 emulates a CPU on which 6.12 crashes at times
PROGRAMS = {
    "bash": ("bash",),
    "bsdextrautils": (),
    "busybox-static": ("busybox",),
    "coreutils": ("env", "false", "stat", "true"),
    "cpio": ("cpio",),
    "dash": ("dash",),
    "e2fsprogs": ("mke2fs", "mkfs.ext4", "e2fsck", "resize2fs"),
    "iproute2": ("ip", "ss"),
    "kmod": ("kmod", "modprobe"),
    "mount": ("mount", "umount"),
    "nftables": ("nft",),
    "procps": ("ps",),
    "python3.11-minimal": ("python3.11", "python3"),
    "qemu-system-x86": ("qemu-system-x86_64",),
    "qemu-utils": ("qemu-img",),
    "squashfs-tools": ("mksquashfs", "sqfstar", "unsquashfs"),
    "util-linux": ("unshare", "nsenter", "setsid"),
    "zstd": ("zstd",),
}
FIRMWARE = ("qboot.rom", "bios-microvm.bin", "pvh.bin", "linuxboot_dma.bin", "kvmvapic.bin")


class PackageError(Exception):
    """A package, or what it should hold, isn't there; the message says what to do."""


def programs() -> list[Path]:
    """Every program of the image on this host."""
    return [_program(name, package) for package, names in PROGRAMS.items() for name in names]


def _program(name: str, package: str) -> Path:
    path = shutil.which(name, path="/usr/bin:/usr/sbin")  # the distribution's, whatever else is installed
    if path is None:
        raise PackageError(f"{name} is missing: apt-get install {package}")
    return Path(path)


def libraries(files: Iterable[Path]) -> set[Path]:
    """The shared libraries that ``files`` are linked with, and the loader; scripts have none."""
    done = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False)
    if missing := re.findall(r"(\S+) => not found", done.stdout):
        raise PackageError(f"libraries are missing: {', '.join(missing)}")
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)}


@cache
def kernel_package() -> str:
    """The package with the kernel that ``KERNEL`` stands for now, as ``name=version``."""
    done = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", KERNEL], capture_output=True, text=True, check=False
    )
    name = re.search(r"^Depends: (linux-image-\S+)", done.stdout, re.MULTILINE)
    version = re.search(r"^Version: (\S+)", done.stdout, re.MULTILINE)
    if name is None or version is None:
        raise PackageError(f"apt knows no package {KERNEL}: apt-get update")
    return f"{name[1]}={version[1]}"


def versions() -> str:
    """Name and version of every installed package that a file of the image can come from."""
    form = "${Package}\t${Version}\t${Pre-Depends}, ${Depends}\n"
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True
    ).stdout
    installed = {name: rest for name, *rest in (line.split("\t") for line in listed.splitlines())}
    found, wanted = set[str](), list(PROGRAMS)
    while wanted:
        name = wanted.pop()
        if name in installed and name not in found:
            found.add(name)
            wanted += re.findall(r"(?:^|[,|] *)([a-z0-9][a-z0-9.+-]+)", installed[name][1])
    return "".join(f"{name} {installed[name][0]}\n" for name in sorted(found))


def unpack_kernel(directory: Path) -> Path:
    """Download the kernel's package and unpack it; returns the root of its files."""
    root = directory / "kernel"
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    subprocess.run(["apt-get", "-q", *sandbox, "download", kernel_package()], cwd=directory, check=True)
    (package,) = directory.glob("linux-image-*.deb")
    subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    return root
