"""Docker as a peer, with runc and with gVisor: Debian's, in its own directory and network namespace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.runtimes import Runtime

# What "a container" costs elsewhere, for reports.
RUNC = "docker runc"
GVISOR = "docker gVisor"
# gVisor of 2022 takes a network namespace in which it finds net.core.rmem_default for the host's own, and
# refuses it.  Since Linux 6.11 it finds that everywhere (google/gvisor issue 10704): so the engine and what
# it starts see all of net but core.
_HIDE_CORE = """
mkdir "$0"
mount --bind /proc/sys/net "$0"
mount -t tmpfs none /proc/sys/net
for each in "$0"/*; do
    name="${each##*/}"
    [ "$name" = core ] && continue
    mkdir "/proc/sys/net/$name"
    mount --bind "$each" "/proc/sys/net/$name"
done
exec "$@"
"""


@contextlib.contextmanager
def docker(directory: Path) -> Iterator[tuple[Runtime, ...]]:
    """Docker's runtimes with a running engine of their own; none where there is no engine."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        yield ()
        return
    directory.mkdir()
    socket = directory / "docker.sock"
    with (directory / "dockerd.log").open("wb") as log:
        engine = subprocess.Popen(_engine(directory, socket), stdout=log, stderr=log, start_new_session=True)
    program = ("docker", "--host", f"unix://{socket}")
    try:
        if _answers(program, engine):
            yield tuple(_runtimes(program, engine.pid))
        else:
            print("dockerd does not start here:", (directory / "dockerd.log").read_text()[-400:])
            yield ()
    finally:
        _remove_containers(program)
        engine.terminate()
        engine.wait()
        _end_shims(directory)


def _engine(directory: Path, socket: Path) -> list[str]:
    runsc = shutil.which("runsc")
    return [
        *("unshare", "--net", "--mount", "sh", "-ec", _HIDE_CORE, str(directory / "net"), "dockerd"),
        *("--host", f"unix://{socket}", "--data-root", str(directory / "data")),
        *("--exec-root", str(directory / "exec"), "--pidfile", str(directory / "dockerd.pid")),
        *(["--add-runtime", f"runsc={runsc}"] if runsc else []),
    ]


def _runtimes(program: tuple[str, ...], pid: int) -> Iterator[Runtime]:
    enter = ("nsenter", "--target", str(pid), "--net")
    yield Runtime(name=RUNC, program=program, enter=enter)
    if shutil.which("runsc"):
        yield Runtime(name=GVISOR, program=program, flags=("--runtime", "runsc"), enter=enter)


def _answers(program: tuple[str, ...], engine: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and engine.poll() is None:
        if subprocess.run([*program, "info"], capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(0.2)
    return False


def _remove_containers(program: tuple[str, ...]) -> None:
    listed = subprocess.run([*program, "ps", "-aq"], capture_output=True, text=True, check=False).stdout
    if listed.strip():
        subprocess.run([*program, "rm", "-f", *listed.split()], stdout=subprocess.DEVNULL, check=False)


def _end_shims(directory: Path) -> None:
    """Of containers that did not start: their shims stay, and know the engine by its directory."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if os.fsencode(directory) in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
