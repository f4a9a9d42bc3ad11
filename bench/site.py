"""Where it is measured: a hyperd and a Docker of the benchmark's own, of which nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers import docker
from bench.runtimes import HyperRuntime, Runtime, output
from hypercontainer.client import Client
from hypercontainer.config import Paths
from hypercontainer.hypervisors import base

ROOT = Path(__file__).parents[1]
HYPER = Path(sys.executable).parent / "hyper"
END_S = 30


@dataclass(frozen=True, kw_only=True)
class Site:
    """``hypers`` and ``peers`` are in the order of tables."""

    directory: Path
    hypers: tuple[HyperRuntime, ...]
    peers: tuple[Runtime, ...]

    @property
    def runtimes(self) -> tuple[Runtime, ...]:
        return (*self.hypers, *self.peers)

    @property
    def image(self) -> Path:
        """An archive of busybox."""
        return self.directory / "busybox.tar"

    @property
    def daemon(self) -> int:
        """The pid of hyperd."""
        return int((self.directory / "hyper/run/hyperd.lock").read_text())

    def load(self, image: Path) -> None:
        """Give ``image`` to hyperd and Docker; all drivers of one share it."""
        for program in {runtime.program: runtime for runtime in self.runtimes}.values():
            program.call("load", "--quiet", "--input", str(image))


@contextlib.contextmanager
def site(*, peers: bool = True) -> Iterator[Site]:
    """A site with an image of busybox."""
    with tempfile.TemporaryDirectory(prefix="hyper-bench-") as name, contextlib.ExitStack() as held:
        directory = Path(name)
        hypers = held.enter_context(hyper(directory / "hyper"))
        found = held.enter_context(docker(directory / "docker")) if peers else ()
        place = Site(directory=directory, hypers=hypers, peers=found)
        make_image(place.image)
        place.load(place.image)
        yield place


def make_image(path: Path) -> None:
    """An archive of busybox."""
    subprocess.run([sys.executable, ROOT / "tools/make_image.py", "busybox", path], check=True)


@contextlib.contextmanager
def hyper(
    root: Path, *, program: Path = HYPER, number: int = 0, settings: str = ""
) -> Iterator[tuple[HyperRuntime, ...]]:
    """hyper with each driver that works here, and a hyperd on ``root``; several need different numbers."""
    bridge = f"hyperbench{number}"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hyperd.toml").write_text(f'bridge = "{bridge}"\nsubnet = "10.21{number}.0.0/22"\n{settings}')
    environment = {**os.environ, "HYPER_ROOT": str(root)}
    output([str(program), "list"], environment)  # starts hyperd
    try:
        yield tuple(_drivers(root, program, environment))
    finally:
        _remove(root, program, environment)
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)


def _drivers(root: Path, program: Path, environment: dict[str, str]) -> Iterator[HyperRuntime]:
    socket = Paths(state=root / "lib", run=root / "run", config=root / "etc").socket
    for driver in Client(socket).system.doctor().drivers:
        if driver.works:
            yield HyperRuntime(
                name=f"hyper {driver.name}",
                program=(str(program),),
                flags=("--hypervisor", driver.name),
                environment=environment,
                has_own_kernel=True,
                driver=driver.name,
                socket=socket,
                has_templates=base.load(driver.name).capabilities.templates,
            )


def _remove(root: Path, program: Path, environment: dict[str, str]) -> None:
    """All pods, then hyperd."""
    command = [str(program), "list", "-q"]
    names = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
    for name in names.split():
        subprocess.run([str(program), "rm", "-f", name], env=environment, capture_output=True, check=False)
    try:
        pid = int((root / "run/hyperd.lock").read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + END_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
