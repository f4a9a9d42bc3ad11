"""Docker as a peer: Debian's engine in a directory and a network namespace of its own, stopped again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def docker(directory: Path, image: Path) -> Iterator[tuple[str, ...] | None]:
    """The ``docker`` command of a running engine that has ``image``; None when there is no engine here."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        yield None
        return
    socket = directory / "docker.sock"
    log = (directory / "dockerd.log").open("wb")
    engine = subprocess.Popen(
        ["unshare", "--net", "dockerd", "--host", f"unix://{socket}", "--data-root", str(directory / "data"),
         "--exec-root", str(directory / "exec"), "--pidfile", str(directory / "dockerd.pid")],
        stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    command = ("docker", "--host", f"unix://{socket}")
    try:
        if not _answers(command, engine):
            print("dockerd does not start here:", (directory / "dockerd.log").read_text()[-400:])
            yield None
            return
        subprocess.run([*command, "load", "--quiet", "--input", image], check=True, stdout=subprocess.DEVNULL)
        yield command
    finally:
        engine.terminate()
        engine.wait()
        log.close()


def _answers(command: tuple[str, ...], engine: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and engine.poll() is None:
        if subprocess.run([*command, "info"], capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(0.2)
    return False
