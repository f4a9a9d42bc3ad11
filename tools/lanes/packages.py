"""Debian's side of a lane: which packages its image is made of, and the files of the installed ones.

The programs of the image are those of this host, as ``tools/setup`` installs them, each with the libraries
that it is linked with.  The outer kernel and hypervisor aren't installed but unpacked: a host has a kernel
already.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PROGRAMS = {
    "bash": ("bash",),
    "bsdextrautils": (),
    "busybox-static": ("busybox",),
    "coreutils": ("env", "false", "stat", "true"),
    "cpio": ("cpio",),
    "dash": ("dash",),
    "e2fsprogs": ("mke2fs", "mkfs.ext4", "e2fsck", "resize2fs"),
    "iproute2": ("ip", "ss", "tc"),
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


def libraries(files: Iterable[Path], *, root: Path = Path("/nowhere")) -> set[Path]:
    """The shared libraries of this host that ``files`` are linked with, and the loader; scripts have none.

    Those of an unpacked ``root`` are found, and left out.
    """
    environment = {**os.environ, "LD_LIBRARY_PATH": str(root / "usr/lib/x86_64-linux-gnu")}
    done = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False, env=environment)
    if missing := re.findall(r"(\S+) => not found", done.stdout):
        raise PackageError(f"libraries are missing: {', '.join(missing)}")
    found = {Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)}
    return {path for path in found if not path.is_relative_to(root)}


@cache
def pins(names: tuple[str, ...]) -> list[str]:
    """The packages as ``name=version``, a kernel's by the package that it stands for now."""
    done = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *names], capture_output=True, text=True, check=False
    )
    known = dict(_pin(paragraph) for paragraph in done.stdout.strip().split("\n\n") if paragraph)
    if missing := [name for name in names if name not in known]:
        raise PackageError(f"apt knows no package {', '.join(missing)}: apt-get update")
    return [known[name] for name in names]


def _pin(paragraph: str) -> tuple[str, str]:
    fields = dict(re.findall(r"^(Package|Version|Depends): (\S+)", paragraph, re.MULTILINE))
    depends = fields.get("Depends", "")
    name = depends if depends.startswith("linux-image-") else fields["Package"]
    return fields["Package"], f"{name}={fields['Version']}"


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


def unpack(names: tuple[str, ...], directory: Path) -> Path:
    """Download packages that are not installed, and unpack them; returns the root of their files."""
    root = directory / "unpacked"
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    subprocess.run(["apt-get", "-q", *sandbox, "download", *pins(names)], cwd=directory, check=True)
    for package in directory.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    return root
