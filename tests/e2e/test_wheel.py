"""Installed from the wheel, away from the checkout: hyper runs with no build, for root and for anybody."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.images import busybox_archive
from tests.support.processes import new_root

CHECKOUT = Path(__file__).parents[2]
NOBODY = 65534
# An interpreter that every user may run; a test run's own may lie in somebody's home.
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin") or sys.executable


@dataclass(frozen=True)
class Installed:
    """hyper in an environment of its own, below a directory that everybody can read."""

    directory: Path

    def hyper(self, *words: str, root: Path, as_nobody: bool = False) -> str:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(root), "HYPER_ROOT": str(root)}
        who = NOBODY if as_nobody else None
        done = subprocess.run(
            [str(self.directory / "venv/bin/hyper"), *words],
            env=environment,
            cwd="/",
            capture_output=True,
            timeout=90,
            check=False,
            user=who,
            group=who,
            extra_groups=[] if as_nobody else None,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    directory = Path(tempfile.mkdtemp(prefix="hyper-wheel-"))
    directory.chmod(0o755)
    try:
        wheels = directory / "wheels"
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, CHECKOUT)
        subprocess.run([*pip, *build], check=True)
        (wheel,) = wheels.glob("*.whl")
        subprocess.run([SYSTEM_PYTHON, "-m", "venv", directory / "venv"], check=True)
        inside: list[str | Path] = [directory / "venv/bin/python", "-m", "pip", "--quiet"]
        subprocess.run([*inside, "--disable-pip-version-check", "install", wheel], check=True)
        busybox_archive(directory / "busybox.tar").chmod(0o644)
        yield Installed(directory)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def root() -> Iterator[Path]:
    path = new_root()
    yield path
    lock = path / "run/hyperd.lock"
    if lock.exists():
        pid = int(lock.read_text())
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)
    shutil.rmtree(path)


def test_the_wheel_runs_a_pod_without_the_checkout(installed: Installed, root: Path) -> None:
    installed.hyper("load", "-q", "-i", str(installed.directory / "busybox.tar"), root=root)
    output = installed.hyper(
        "run", "--rm", "--network", "none", "busybox", "echo", "from the wheel", root=root
    )
    assert output == "from the wheel\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="not on this host: only root becomes another user")
@pytest.mark.parametrize("driver", ["uml", "tcg"])
def test_anybody_may_run_pods_and_they_reach_out(installed: Installed, root: Path, driver: str) -> None:
    os.chown(root, NOBODY, NOBODY)
    archive = str(installed.directory / "busybox.tar")
    installed.hyper("load", "-q", "-i", archive, root=root, as_nobody=True)
    script = "ip -4 -o addr show eth0; grep -c nameserver /etc/resolv.conf"
    words = ("run", "--rm", "--hypervisor", driver, "busybox", "sh", "-c", script)
    output = installed.hyper(*words, root=root, as_nobody=True)
    assert "inet " in output
    assert int(output.splitlines()[-1]) >= 1
