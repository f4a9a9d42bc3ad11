"""What changes with each run: the product and its tests, appended to the image as a second archive."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tools.lanes.image import Image, archive
from tools.lanes.lane import Lane

CHECKOUT = Path(__file__).parent.parent.parent
PARTS = ("src", "tests", "tools", "guest/kernel", "pyproject.toml")
DATA = CHECKOUT / "src/hypercontainer/data"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "um", ".*_cache")
ENVIRONMENT = {
    "HYPER_STRICT": "1",
    "PYTHONPATH": "/hyper/src:/hyper",
    "TMPDIR": "/tmp",
}
TEST_TIMEOUT = 60  # seconds of the guest, minutes of the host; most take one or two, and long ones say so
ALIGNMENT = 4  # of an archive behind another; the kernel silently ignores one that is not


class PayloadError(Exception):
    """A part of the product isn't built."""


def append(image: Image, lane: Lane, pytest: Sequence[str], work: Path) -> Image:
    """The image of a run of ``pytest`` on ``lane``."""
    tree = work / "payload"
    _copy_product(lane, tree / "hyper")
    shutil.copy(Path(__file__).parent / "init", tree / "init")
    (tree / "hyper/modules").write_text("".join(f"{name}\n" for name in lane.modules))
    (tree / "hyper/lane.sh").write_text(_script(lane, pytest))
    archive(tree, work / "payload.cpio")
    first = image.initrd.read_bytes()
    initrd = work / "initrd"
    initrd.write_bytes(first + bytes(-len(first) % ALIGNMENT) + (work / "payload.cpio").read_bytes())
    return replace(image, initrd=initrd)


def _copy_product(lane: Lane, target: Path) -> None:
    for path in (DATA / "hyperstart", DATA / "kernel" / lane.target / "vmlinux"):
        if not path.exists():
            raise PayloadError(f"{path} is not built: make guest kernel-all")
    for name in PARTS:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=LEFT_OUT, symlinks=True)
        elif source.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    # An emulated CPU would take long over it, for each command again.
    subprocess.run(["/usr/bin/python3.11", "-m", "compileall", "-q", target], check=True)


def _script(lane: Lane, pytest: Sequence[str]) -> str:
    settings = [f"{name}={value}" for name, value in {**ENVIRONMENT, "HYPER_LANE": lane.name}.items()]
    options = ("--junit-xml=/results/junit.xml", f"--timeout={TEST_TIMEOUT}")
    command = ["env", *settings, "python3", "-m", "pytest", *options, *pytest]
    return f"cd /hyper && {shlex.join(command)}\n"
