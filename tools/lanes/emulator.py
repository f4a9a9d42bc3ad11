"""The lanes' emulator: Debian's QEMU, with what would stop a lane mended (``edits``).

Built from the source of the ``qemu-system-x86`` that is installed, for one machine with a few devices.  Only
the outer guest runs on it: hyper's own machines run on the QEMU that Debian built.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import BinaryIO

from guest.kernel.build import memory_directory
from tools.lanes import edits
from tools.lanes.cache import find_or_make
from tools.lanes.packages import PackageError

HERE = Path(__file__).parent
RECIPE = ("edits.py", "emulator.py")
PROGRAM = "qemu-system-x86_64"
FIRMWARE = ("/usr/share/seabios", "/usr/share/qemu")  # as Debian's own build finds it
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEVICES = ("Q35", "VIRTIO_PCI", "VIRTIO_BLK")
OPTIONS = (
    *("--target-list=x86_64-softmmu", "--with-devices-x86_64=lane", "--without-default-devices"),
    *("--without-default-features", "--enable-system", "--enable-tcg", "--enable-fdt=system"),
    *("--audio-drv-list=", "--with-git-submodules=ignore", "--disable-werror"),
    "-Doptimization=3",  # a lane takes 0.86 of the time
)


class EmulatorError(Exception):
    """It cannot be built; the message says where to look."""


def find_or_build() -> tuple[Path, bool]:
    """The emulator's program, and whether it had to be built."""
    place, is_new = find_or_make(f"emulator-{_key()}", _build)
    return place / PROGRAM, is_new


def _key() -> str:
    """Of the source's version, the recipe and the compiler."""
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(f"{_version()}\n{compiler}".encode())
    for name in RECIPE:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:32]


@cache
def _version() -> str:
    """Of the source of Debian's QEMU, as installed here."""
    command = ["dpkg-query", "-W", "-f", "${source:Version}", "qemu-system-x86"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        raise PackageError("qemu-system-x86 is missing: apt-get install qemu-system-x86")
    return asked.stdout


def _build(work: Path, output: Path) -> None:
    log = work.parent / "emulator.log"
    print(f"lane: building QEMU {_version()}, some minutes, see {log}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="qemu-", dir=memory_directory()) as directory,
        log.open("wb") as told,
    ):
        tree = _source(Path(directory), told)
        edits.apply(tree)
        chosen = "".join(f"CONFIG_{name}=y\n" for name in DEVICES)
        (tree / "configs/devices/x86_64-softmmu/lane.mak").write_text(chosen)
        objects = Path(directory) / "objects"
        objects.mkdir()
        _run([str(tree / "configure"), *OPTIONS], objects, told)
        _run(["ninja", PROGRAM], objects, told)
        shutil.copy2(objects / PROGRAM, output / PROGRAM)
    log.unlink()


def _source(directory: Path, log: BinaryIO) -> Path:
    """The tree of the source package, unpacked, with Debian's patches in.

    Hosts seldom list sources.  They are read from where their packages come from, by lists of our own: the
    host's stay as they are.
    """
    lists = directory / "lists"
    (lists / "partial").mkdir(parents=True)
    (directory / "sources.list").write_text("".join(f"{line}\n" for line in _sources()))
    options = {
        "Dir::Etc::SourceList": directory / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": lists,
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    _run([*apt, "update"], directory, log)
    _run([*apt, "source", f"qemu={_version()}"], directory, log)
    (tree,) = (path for path in directory.glob("qemu-*") if path.is_dir())
    return tree


def _sources() -> list[str]:
    """The lines of a sources.list for the source packages of what this host takes from Debian."""
    form = "deb-src [signed-by=" + KEYRING + "] $(REPO_URI) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(set(listed.splitlines()))


def _run(command: list[str], directory: Path, log: BinaryIO) -> None:
    done = subprocess.run(command, cwd=directory, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise EmulatorError(f"QEMU cannot be built: {command[0]} failed: see {log.name}")
