"""The lane's image: the outer kernel and one zstd initrd, kept by the hash of what they are made of."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.lanes import cache, packages
from tools.lanes.lane import Lane

HERE = Path(__file__).parent
LOCK = HERE.parent.parent / "requirements.lock"
RECIPE = ("image.py", "lane.py", "packages.py")
NETFILTER = re.compile(r"/(nft_\w+|nf_\w+)\.ko")  # nftables loads these by name as a rule needs them
PYTHON = Path("/usr/lib/python3.11")
UNUSED = ("idlelib", "lib2to3", "ensurepip", "pydoc_data", "turtledemo", "test", "tkinter", "config-*")
TESTS = ("pytest", "pytest-asyncio", "pytest-timeout")
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


@dataclass(frozen=True, slots=True)
class Image:
    """What the outer guest boots."""

    kernel: Path
    initrd: Path
    hypervisor: Path | None  # booted instead, with the kernel as a module


def find_or_build(lane: Lane) -> tuple[Image, bool]:
    """The image of ``lane``, and whether it had to be built."""
    place, is_new = cache.find_or_make(_key(lane), partial(_build, lane))
    hypervisor = place / "hypervisor" if lane.hypervisor else None
    return Image(place / "vmlinuz", place / "initrd.zst", hypervisor), is_new


def _key(lane: Lane) -> str:
    """Of the lane, package versions, Python packages and recipe."""
    pins = packages.pins((lane.kernel, *lane.packages))
    digest = hashlib.sha256(f"{lane.name}\n{pins}\n{packages.versions()}".encode())
    for path in (LOCK, *(HERE / name for name in RECIPE)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _build(lane: Lane, work: Path, output: Path) -> None:
    tree = work / "tree"
    unpacked = packages.unpack((lane.kernel, *lane.packages), work)
    _make_root(tree)
    _copy_programs(tree)
    _copy_python(tree)
    _copy_modules(lane, unpacked, tree)
    _copy_tools(lane, unpacked, tree)
    (image,) = unpacked.glob("boot/vmlinuz-*")
    shutil.copy(image, output / "vmlinuz")
    if lane.hypervisor:  # QEMU's multiboot loader wants plain ELF
        plain = gzip.decompress((unpacked / "boot" / lane.hypervisor).read_bytes())
        (output / "hypervisor").write_bytes(plain)
    archive(tree, output / "initrd")
    subprocess.run(["zstd", "-q", "-3", "-T0", "--rm", output / "initrd"], check=True)


def _make_root(tree: Path) -> None:
    for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "root", "dev", "proc", "sys", "run"):
        (tree / name).mkdir(parents=True)
    for name in ("tmp", "work", "results", "var/lib", "var/log"):
        (tree / name).mkdir(parents=True)
    for name, target in LINKS.items():
        (tree / name).symlink_to(target)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")


def _copy_programs(tree: Path) -> None:
    programs = packages.programs()
    extensions = sorted((PYTHON / "lib-dynload").glob("*.so"))
    for path in {*programs, *packages.libraries([*programs, *extensions])}:
        _copy(path, tree)
    (tree / "usr/bin/sh").symlink_to("dash")
    for name in packages.FIRMWARE:
        _copy(Path("/usr/share/qemu") / name, tree)


def _copy(path: Path, tree: Path) -> None:
    """A file under the name that it is asked for by, the links of its directories resolved."""
    target = tree / path.parent.resolve().relative_to("/") / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(path, target)


def _copy_python(tree: Path) -> None:
    """The standard library, and what the product and its tests import, as installed in this environment."""
    shutil.copytree(PYTHON, tree / "usr/lib/python3.11", ignore=shutil.ignore_patterns(*UNUSED))
    for name in sorted(_distributions("hypercontainer", *TESTS)):
        for file in importlib.metadata.files(name) or ():
            source = Path(str(file.locate()))
            if ".." not in file.parts and file.suffix != ".pth" and source.exists():
                target = tree / "usr/lib/python3/dist-packages" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)


def _distributions(*names: str) -> set[str]:
    """``names`` and all that they require here."""
    from packaging.requirements import Requirement

    found, wanted = set[str](), list(names)
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def _copy_tools(lane: Lane, unpacked: Path, tree: Path) -> None:
    """What the lane's packages install, and the libraries of this host that its tools need."""
    for name in ("etc", "usr/bin", "usr/sbin", "usr/lib") if lane.packages else ():
        shutil.copytree(unpacked / name, tree / name, symlinks=True, dirs_exist_ok=True)
    for path in packages.libraries((unpacked / tool for tool in lane.tools), root=unpacked):
        _copy(path, tree)


def _copy_modules(lane: Lane, kernel: Path, tree: Path) -> None:
    """What the lane loads by name, with what that needs, and the index for modprobe."""
    (release,) = [path.name for path in (kernel / "lib/modules").iterdir()]
    subprocess.run(["/sbin/depmod", "-b", kernel, release], check=True)
    source = kernel / "lib/modules" / release
    needs = _dependencies(source)
    wanted = [path for path in needs if Path(path).stem.replace("-", "_") in lane.modules]
    wanted += [path for path in needs if NETFILTER.search(path)]
    for path in {each for module in wanted for each in (module, *needs[module])}:
        target = tree / "usr/lib/modules" / release / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / path, target)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy2(source / name, tree / "usr/lib/modules" / release / name)
    subprocess.run(["/sbin/depmod", "-b", tree, release], check=True)


def _dependencies(modules: Path) -> dict[str, list[str]]:
    """Each module's file with those it needs, as ``modules.dep`` has them."""
    lines = (modules / "modules.dep").read_text().splitlines()
    return {path: needed.split() for path, _, needed in (line.partition(":") for line in lines)}


def archive(tree: Path, output: Path) -> None:
    """``tree`` as a cpio archive that the kernel unpacks, everything root's."""
    names = "".join(f"{path.relative_to(tree)}\0" for path in sorted(tree.rglob("*")))
    with output.open("wb") as file:
        command = ["cpio", "-o", "-0", "-H", "newc", "--quiet", "-R", "0:0"]
        subprocess.run(command, cwd=tree, input=os.fsencode(names), stdout=file, check=True)
