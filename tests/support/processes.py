"""The daemons and machines that tests started, found by what their environments say."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypercontainer.process import ProcessId, stat_fields

SESSION = "HYPER_TEST_SESSION"  # in the environment of all that one run of the tests starts, but machines


def new_root() -> Path:
    """A directory of this run of the tests with a short path: unix sockets live below it."""
    return Path(tempfile.mkdtemp(prefix=_prefix()))


def _prefix() -> str:
    return f"hyper-e2e-{os.environ[SESSION]}-"


@dataclass(frozen=True)
class Seen:
    """A process as /proc shows it."""

    process: ProcessId
    command: str
    environment: dict[str, str]

    @property
    def is_hyperd(self) -> bool:
        return "hypercontainer.daemon" in self.command

    @property
    def machine(self) -> str:
        """The run directory of the machine that it is of."""
        return self.environment.get("HYPER_MACHINE", "")

    def __str__(self) -> str:
        place = self.machine or self.environment.get("HYPER_ROOT", "")
        return f"{self.process.pid} of {place}: {self.command[:200]}"


def hyperds(root: Path) -> list[ProcessId]:
    """Every hyperd of one root, whoever started it and however far it is up.

    A child of one that is about to become a program, such as ip, still looks like it: it is none.
    """
    found = [each for each in seen() if each.is_hyperd and each.environment.get("HYPER_ROOT") == str(root)]
    pids = {each.process.pid for each in found}
    return [each.process for each in found if _parent(each.process.pid) not in pids]


def _parent(pid: int) -> int:
    """0 for a process that is gone."""
    with contextlib.suppress(OSError):
        return int(stat_fields(pid)[1])
    return 0


def left_by_session(directory: Path) -> list[Seen]:
    """Every hyperd and VMM of this run of the tests that lives; ``directory`` is where pytest's are."""
    machines = (f"{tempfile.gettempdir()}/{_prefix()}", f"{directory}/")
    return [each for each in seen() if _is_ours(each) or each.machine.startswith(machines)]


def _is_ours(each: Seen) -> bool:
    return each.is_hyperd and each.environment.get(SESSION) == os.environ[SESSION]


def see(pid: int) -> Seen | None:
    """The process that has ``pid`` now, or None when there is none or it is a zombie."""
    with contextlib.suppress(OSError):
        process = ProcessId.of(pid)
        if process is not None:
            return Seen(process, _words(pid, "cmdline", " "), _environment(pid))
    return None


def seen() -> Iterator[Seen]:
    """Every process of the host, zombies apart, unless it ends meanwhile."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return filter(None, map(see, pids))


def _words(pid: int, file: str, separator: str) -> str:
    return (
        Path(f"/proc/{pid}/{file}").read_bytes().replace(b"\0", separator.encode()).decode(errors="replace")
    )


def _environment(pid: int) -> dict[str, str]:
    pairs = (word.partition("=") for word in _words(pid, "environ", "\0").split("\0"))
    return {name: value for name, _, value in pairs}
