"""The host itself as a peer: an image's files below a chroot, without any isolation of its processes' work.

A mount, a network and a PID namespace keep it from the host's own files and ports, and end it as a whole.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Failure
from bench.runtimes import Runtime, output

NATIVE = "native"
_PREPARE = """
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
ip link set lo up
exec chroot "$0" "$@"
"""


@dataclass(frozen=True, kw_only=True)
class NativeRuntime(Runtime):
    root: Path

    def execute(self, name: str, *words: str) -> str:
        return output([*self.enter, "--mount", "--pid", "chroot", str(self.root), *words], self.environment)

    def address(self, name: str) -> str:
        return "127.0.0.1"


@contextlib.contextmanager
def native_root(directory: Path, archive: Path) -> Iterator[Path]:
    """The files of the one layer that an image of tools/make_image.py has."""
    root = directory / "native"
    try:
        with tarfile.open(archive) as image:
            name = next(name for name in image.getnames() if name.endswith("layer.tar"))
            layer = image.extractfile(name)
            if layer is None:
                raise Failure(f"{archive} has no layer")
            with tarfile.open(fileobj=layer, mode="r|") as files:
                files.extractall(root, filter="fully_trusted", numeric_owner=True)
        yield root
    finally:
        shutil.rmtree(root)


@contextlib.contextmanager
def native(root: Path, *command: str) -> Iterator[NativeRuntime]:
    """``command`` as it would run in a container of the image in ``root``."""
    words = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-ec", _PREPARE]
    server = subprocess.Popen([*words, str(root), *command], stdout=subprocess.DEVNULL)
    try:
        enter = ("nsenter", "--net", "--target", _first_child(server.pid))
        yield NativeRuntime(name=NATIVE, program=(), root=root, enter=enter)
    finally:
        server.kill()
        server.wait()


def _first_child(pid: int) -> str:
    """unshare stays outside of the PID namespace that it makes."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if found := children.read_text().split():
            return found[0]
        time.sleep(0.01)
    raise Failure("the native peer has not started")
