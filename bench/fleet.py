"""Many idle containers of one runtime."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.measure import progress
from bench.runtimes import IMAGE, HyperRuntime, Runtime

MEMORY_MIB = 32
SIDE_BY_SIDE = 2
_REMOVED_AT_ONCE = 25


def flags(runtime: Runtime, *, memory_mib: int = MEMORY_MIB) -> tuple[str, ...]:
    """Of an idle container: a machine is as small as it can be, and none has a network."""
    size = ("-m", f"{memory_mib}m") if isinstance(runtime, HyperRuntime) else ()
    return (*size, "--network", "none")


def start_one(runtime: Runtime, name: str) -> None:
    runtime.start(name, *flags(runtime), IMAGE, "sleep", "86400")


@contextlib.contextmanager
def fleet(runtime: Runtime, count: int) -> Iterator[list[str]]:
    """The names of ``count`` containers that run, until they are removed."""
    names = [f"idle-{number}" for number in range(count)]
    try:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            for number, _ in enumerate(pool.map(lambda name: start_one(runtime, name), names)):
                progress(f"{runtime.name}: {number + 1} of {count} run")
        progress("")
        yield names
    finally:
        remove(runtime, names)


def remove(runtime: Runtime, names: list[str]) -> None:
    """Remove those of ``names`` that are there."""
    for at in range(0, len(names), _REMOVED_AT_ONCE):
        some = names[at : at + _REMOVED_AT_ONCE]
        subprocess.run(
            [*runtime.program, "rm", "-f", *some], env=runtime.environment, capture_output=True, check=False
        )
