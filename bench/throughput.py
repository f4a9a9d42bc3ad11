"""What work costs in a container: disk, network, system calls, processes, a build, a test suite."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.images import TAG, debian_archive, write_programs
from bench.measure import Failure, median, progress, table
from bench.native import NATIVE, native, native_root
from bench.peers import GVISOR
from bench.runtimes import HyperRuntime, Runtime, output
from bench.site import ROOT, Site

PORT = 7000
MEMORY_MIB = 512
_START_S = 60
_FAILED = "failed"
# nginx as it is installed, and the server of work.c, in a container of its own or below a chroot.
_SERVE = f"cp -r /programs /bench; nginx; exec /bench/work serve {PORT}"
_SUITE = ("python3", "-m", "test", "-q", "test_json", "test_shelve", "test_tempfile")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    unit: str
    work: Callable[[Runtime], float]
    more_is_better: bool = False


def _inside(*words: str) -> Callable[[Runtime], float]:
    return lambda runtime: float(runtime.execute(_name(runtime), "/bench/work", *words))


def _reading(what: str) -> Callable[[Runtime], float]:
    """A machine forgets what is in its own cache: then all read what is in the host's."""

    def work(runtime: Runtime) -> float:
        forget = "forget" if runtime.has_own_kernel else "keep"
        return float(runtime.execute(_name(runtime), "/bench/work", what, "/file", forget))

    return work


def _network(what: str) -> Callable[[Runtime], float]:
    def work(runtime: Runtime) -> float:
        client = [sys.executable, "-m", "bench.client", what, runtime.address(_name(runtime)), str(PORT)]
        return float(_output([*runtime.enter, *client]))

    return work


def _requests(runtime: Runtime) -> float:
    """Of nginx's own page, eight clients at a time, each with a new connection."""
    words = ["ab", "-q", "-s", "10", "-n", "1000", "-c", "8", f"http://{runtime.address(_name(runtime))}/"]
    found = re.search(r"Requests per second:\s+([\d.]+)", _output([*runtime.enter, *words]))
    if found is None:
        raise Failure("ab says nothing of requests per second")
    return float(found[1])


def _make(runtime: Runtime) -> float:
    runtime.execute(_name(runtime), "make", "-s", "-C", "/bench/project", "clean")
    return float(runtime.execute(_name(runtime), "/bench/work", "run", "make", "-C", "/bench/project"))


ROWS: dict[str, Row] = {
    "disk: write 96 MiB, and flush": Row(unit="MB/s", work=_inside("write", "/file"), more_is_better=True),
    "disk: read them": Row(unit="MB/s", work=_reading("read"), more_is_better=True),
    "disk: read 4 KiB anywhere": Row(unit="1/s", work=_reading("read-blocks"), more_is_better=True),
    "disk: write 4 KiB anywhere, 4096 times, and flush": Row(
        unit="1/s", work=_inside("write-blocks", "/file"), more_is_better=True
    ),
    "disk: append 4 KiB and flush": Row(unit="1/s", work=_inside("flush", "/log"), more_is_better=True),
    "network: into the container": Row(unit="MB/s", work=_network("drink"), more_is_better=True),
    "network: out of it": Row(unit="MB/s", work=_network("pour"), more_is_better=True),
    "network: a byte there and back": Row(unit="µs", work=_network("echo")),
    "nginx": Row(unit="1/s", work=_requests, more_is_better=True),
    "a system call": Row(unit="ns", work=_inside("calls")),
    "fork, exit, wait": Row(unit="µs", work=_inside("forks")),
    "fork, execute, wait": Row(unit="µs", work=_inside("executes")),
    "make of 17 C files": Row(unit="ms", work=_make),
    "3 of Python's test suites": Row(unit="ms", work=_inside("run", *_SUITE)),
}


def measure(site: Site, rounds: int) -> dict[str, Any]:
    """By row and runtime; each round does a row in every container before the next row."""
    with _containers(site) as runtimes:
        found: dict[str, dict[str, list[float]]] = {
            row: {runtime.name: [] for runtime in runtimes} for row in ROWS
        }
        for number in range(max(rounds // 10, 1)):
            for name, row in ROWS.items():
                for runtime in runtimes:
                    progress(f"round {number + 1}: {name}: {runtime.name}")
                    found[name][runtime.name] += _tried(row, name, runtime)
        progress("")
    return found


def _tried(row: Row, name: str, runtime: Runtime) -> list[float]:
    """Nothing when it failed: the table says so, and the other rows are not lost."""
    try:
        return [row.work(runtime)]
    except Failure as failure:
        print(f"{name}: {runtime.name}: {failure}", file=sys.stderr)
        return []


@contextmanager
def _containers(site: Site) -> Iterator[list[Runtime]]:
    """One of each runtime that serves, and waits for work."""
    archive, programs = debian_archive(), site.directory / "programs"
    write_programs(programs)
    site.load(archive)
    with ExitStack() as held:
        root = held.enter_context(native_root(site.directory, archive))
        shutil.copytree(programs, root / "programs")
        runtimes: list[Runtime] = [held.enter_context(native(root, "sh", "-c", _SERVE))]
        for runtime in site.runtimes:
            size = ("-m", f"{MEMORY_MIB}m") if isinstance(runtime, HyperRuntime) else ()
            held.callback(runtime.remove, _name(runtime))
            runtime.start(_name(runtime), *size, "-v", f"{programs}:/programs:ro", TAG, "sh", "-c", _SERVE)
            runtimes.append(runtime)
        for runtime in runtimes:
            _wait_for(runtime)
        yield runtimes


def _name(runtime: Runtime) -> str:
    """hyper's drivers share one hyperd, and Docker's runtimes one Docker."""
    return runtime.name.replace(" ", "-")


def _wait_for(runtime: Runtime) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            _network("echo")(runtime)
            return
        except Failure:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _output(command: list[str]) -> str:
    """Of a client, which is started in this tree."""
    return output(["env", "-C", str(ROOT), *command])


def report(figures: Mapping[str, Any]) -> str:
    names = list(next(iter(figures.values())))
    measured = {name: found for name, found in figures.items() if name in ROWS}
    return "\n\n".join(
        (
            f"Work in a running container (machines of {MEMORY_MIB} MiB), medians:",
            table(("", *names), [_values(name, found, names) for name, found in measured.items()]),
            "How many times longer it takes than natively; in bold what takes longer than with gVisor:",
            table(("", *names[1:]), [_ratios(name, found, names[1:]) for name, found in measured.items()]),
        )
    )


def _values(row: str, found: Mapping[str, list[float]], names: list[str]) -> tuple[str, ...]:
    cells = (_figure(median(found[name])) if found[name] else _FAILED for name in names)
    return (f"{row}, {ROWS[row].unit}", *cells)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _ratios(row: str, found: Mapping[str, list[float]], names: list[str]) -> tuple[str, ...]:
    times = {name: _times(ROWS[row], found[name], found[NATIVE]) for name in names}
    return (row, *(_marked(name, times[name], times.get(GVISOR)) for name in names))


def _times(row: Row, values: list[float], native: list[float]) -> float | None:
    """How many times longer; None where one of them failed."""
    if not values or not native:
        return None
    times = median(values) / median(native)
    return 1 / times if row.more_is_better else times


def _marked(name: str, times: float | None, limit: float | None) -> str:
    if times is None:
        return _FAILED
    is_worse = name.startswith("hyper") and limit is not None and times > limit
    return f"**{times:.2f}**" if is_worse else f"{times:.2f}"
