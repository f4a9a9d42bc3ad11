"""The real ``hyper`` against a hyperd of its own: how tests type commands and read what comes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypercontainer.client import is_listening
from hypercontainer.client.start import RUNS_ALREADY
from hypercontainer.config import Paths
from hypercontainer.process import ProcessId
from tests.support.commands import Result
from tests.support.preloaded import Preloaded
from tests.support.processes import SESSION, hyperds
from tests.support.waiting import PATIENCE_S

PROGRAM = [sys.executable, "-m", "hypercontainer"]
DAEMON = [sys.executable, "-m", "hypercontainer.daemon"]
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(kw_only=True)
class Hyper:
    """A root of its own, with a daemon; commands run as they would in a shell."""

    root: Path
    driver: str
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, int] = field(default_factory=dict)  # of hyperd.toml, beside those that tests need
    daemon: subprocess.Popen[bytes] | None = None
    preloaded: Preloaded | None = None  # runs the commands that end; else each is a start of Python

    def start_daemon(self) -> None:
        (self.root / "etc").mkdir(parents=True, exist_ok=True)
        (self.root / "etc/hyperd.toml").write_text(self._settings())
        log = self.root / "hyperd.log"
        with log.open("ab") as file:
            self.daemon = subprocess.Popen(
                DAEMON, env=self.variables(), stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd="/"
            )
        deadline = time.monotonic() + 30
        while not is_listening(self.paths):
            assert self.daemon.poll() in {None, RUNS_ALREADY}, log.read_text()  # a command may start one, too
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)

    def _settings(self) -> str:
        number = os.getpid() % 200
        low = {"uml": 0, "tcg": 1, "kvm": 2, "xen": 3}.get(self.driver, 4)
        network = f'bridge = "hyt{low}{number}"\nsubnet = "10.{90 + low}.{number}.0/24"\n'
        more = "".join(f"{name} = {value}\n" for name, value in self.settings.items())
        return f'hypervisor = "{self.driver}"\n{network}{more}'

    @property
    def paths(self) -> Paths:
        return Paths(state=self.root / "lib", run=self.root / "run", config=self.root / "etc")

    def preload(self) -> None:
        """From now on, a command is forked from a process that has imported ``hyper``."""
        self.preloaded = Preloaded(self.variables())

    def stop_daemon(self) -> None:
        self._end_daemons(signal.SIGTERM)

    def kill_daemon(self) -> None:
        self._end_daemons(signal.SIGKILL)

    def _end_daemons(self, number: signal.Signals) -> None:
        """Whether a test or a command started it, and be it still on its way up."""
        deadline = time.monotonic() + 30
        told = set[ProcessId]()
        while runs := {*hyperds(self.root)}:
            for each in runs - told:
                each.kill(number)
            told |= runs
            assert time.monotonic() < deadline, f"{runs} do not end"
            if self.daemon is not None:
                self.daemon.poll()
            time.sleep(0.01)
        if self.daemon is not None:
            status = self.daemon.wait(timeout=30)
            self.daemon = None
            assert status <= 0 or status == RUNS_ALREADY, (self.root / "hyperd.log").read_text()

    def variables(self) -> dict[str, str]:
        keep = {
            name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", SESSION) if name in os.environ
        }
        return keep | {"HYPER_ROOT": str(self.root), "TERM": "xterm", "COLUMNS": "200"} | self.environment

    def __call__(self, *words: str, stdin: bytes | None = None, timeout: float = 90) -> Result:
        """Run ``hyper WORDS`` to its end."""
        if self.preloaded:
            return self.preloaded.run(words, self.variables(), stdin=stdin, timeout=timeout)
        done = subprocess.run(
            [*PROGRAM, *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.variables(),
            timeout=timeout,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, stdin: bytes | None = None, timeout: float = 90) -> str:
        """What a command prints that must go well; without the newline at its end."""
        result = self(*words, stdin=stdin, timeout=timeout)
        assert result.status == 0, f"hyper {' '.join(words)}: {result.status}: {result.err}\n{result.out}"
        return result.out.rstrip("\n")

    def run(self, *words: str, stdin: bytes | None = None, timeout: float = 90) -> Result:
        """A run that leaves nothing, and needs no network."""
        return self("run", "--rm", "--network", "none", *words, stdin=stdin, timeout=timeout)

    def json(self, *words: str) -> list[dict[str, Any]]:
        """A listing as objects."""
        return [json.loads(line) for line in self.ok(*words, "--format", "json").splitlines()]

    def state(self, name: str) -> str:
        found: str = json.loads(self.ok("inspect", "--type", "pod", name))[0]["pod"]["state"]
        return found

    def eventually(self, pattern: str, *words: str) -> str:
        """What ``hyper WORDS`` prints, once the pattern is found in it."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, seen := self(*words).out):
            assert time.monotonic() < deadline, f"{pattern!r} is not in {seen!r}"
            time.sleep(0.2)
        return seen

    def spawn(self, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Run ``hyper WORDS`` beside the test."""
        return subprocess.Popen(
            [*PROGRAM, *words],
            bufsize=0,  # communicate() knows nothing of what a readline() took beside its line
            env=self.variables(),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @contextlib.contextmanager
    def terminal(self, *words: str, rows: int = 24, columns: int = 80) -> Iterator[Screen]:
        """Run ``hyper WORDS`` on a terminal of its own."""
        screen = Screen.open([*PROGRAM, *words], self.variables(), rows=rows, columns=columns)
        try:
            yield screen
        finally:
            screen.close()

    def remove_all(self) -> None:
        if names := self.ok("list", "-q").split():
            self("rm", "-f", *names)


class Screen:
    """A program on a pseudo terminal, and who sits before it."""

    def __init__(self, child: subprocess.Popen[bytes], outer: int) -> None:
        self._child = child
        self._outer = outer
        self.seen = b""

    @classmethod
    def open(cls, command: list[str], environment: dict[str, str], *, rows: int, columns: int) -> Screen:
        outer, inner = pty.openpty()
        _resize(outer, rows, columns)
        setsid = shutil.which("setsid")
        assert setsid, "setsid (util-linux) gives a test's terminal to hyper"
        child = subprocess.Popen(  # --ctty, so that a resize and Ctrl-C reach it as in a real terminal
            [setsid, "--ctty", "--wait", *command], stdin=inner, stdout=inner, stderr=inner, env=environment
        )
        os.close(inner)
        return cls(child, outer)

    def type(self, keys: str | bytes) -> None:
        os.write(self._outer, keys.encode() if isinstance(keys, str) else keys)

    def resize(self, rows: int, columns: int) -> None:
        _resize(self._outer, rows, columns)

    def wait_for(self, text: str, *, timeout: float = 30) -> str:
        """All that was shown up to ``text``, which must come; what comes after it is kept."""
        wanted, deadline = text.encode(), time.monotonic() + timeout
        while wanted not in _ESCAPES.sub(b"", self.seen):
            left = deadline - time.monotonic()
            ready = left > 0 and bool(select.select([self._outer], [], [], left)[0])
            data = self._read() if ready else b""
            assert data, f"{text!r} never came: {self.seen!r}"
            self.seen += data
        before, _, self.seen = _ESCAPES.sub(b"", self.seen).partition(wanted)
        return before.decode(errors="replace")

    def _read(self) -> bytes:
        try:
            return os.read(self._outer, 65536)
        except OSError:  # EIO: everybody has closed the inner side
            return b""

    def wait(self, *, timeout: float = 30) -> int:
        """The exit status, once the program has ended."""
        deadline = time.monotonic() + timeout
        while self._child.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self.seen!r}"
            if select.select([self._outer], [], [], 0.05)[0]:
                self.seen += self._read()
        return self._child.returncode

    def close(self) -> None:
        os.close(self._outer)  # hangs up
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _resize(descriptor: int, rows: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
