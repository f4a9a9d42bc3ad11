"""Installed from the wheel, away from the checkout: hyper runs with no build."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.hyper import new_root
from tests.support.images import busybox_archive

CHECKOUT = Path(__file__).parents[2]


def test_the_wheel_runs_a_pod_without_the_checkout(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, CHECKOUT], check=True
    )
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "install",
        wheel,
    ]
    subprocess.run(install, check=True)
    root = new_root()
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path), "HYPER_ROOT": str(root)}
    archive = busybox_archive(tmp_path / "busybox.tar")

    def hyper(*words: str) -> str:
        command = [str(tmp_path / "venv/bin/hyper"), *words]
        done = subprocess.run(command, env=environment, cwd="/", check=True, capture_output=True, timeout=90)
        return done.stdout.decode()

    try:
        hyper("load", "-q", "-i", str(archive))
        assert (
            hyper("run", "--rm", "--network", "none", "busybox", "echo", "from the wheel")
            == "from the wheel\n"
        )
    finally:
        _stop(root)


def _stop(root: Path) -> None:
    pid = int((root / "run/hyperd.lock").read_text())
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    shutil.rmtree(root)
