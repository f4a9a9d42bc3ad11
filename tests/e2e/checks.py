"""Programs of the directory ``programs``, which look at a guest from inside."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.hyper import Hyper

PROGRAMS = Path(__file__).parent / "programs"


def built(name: str, directory: Path) -> Path:
    """A static program for a container of any image."""
    program = directory / name
    source = PROGRAMS / f"{name}.c"
    subprocess.run(["musl-gcc", "-static", "-O2", "-Wall", "-o", program, source], check=True)
    return program


def start_pod(hyper: Hyper, program: Path) -> None:
    """The pod p, with ``program`` at its root."""
    hyper.ok("run", "-d", "--name", "p", "busybox", "sleep", "1000")
    hyper.ok("cp", str(program), f"p:/{program.name}")
