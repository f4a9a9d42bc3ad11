"""Times and memory, measured side by side: one round runs every contender once, so noise hits all alike."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class Failure(SystemExit):
    """What is measured did not work: the benchmark ends, and leaves nothing behind."""


def side_by_side(contenders: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """What every contender gives, ``rounds`` times in turns, after one unmeasured turn of each."""
    for work in contenders.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, work in contenders.items():
            progress(f"round {number + 1} of {rounds}: {name}")
            found[name].append(work())
    progress("")
    return found


def progress(text: str) -> None:
    """Show what is at work, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:<78}", end="" if text else "\r", file=sys.stderr, flush=True)


def timed(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Callable[[], float]:
    """A contender that runs a program, shell to shell, in milliseconds; a failure ends the benchmark."""

    def work() -> float:
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        took = (time.perf_counter() - began) * 1e3
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[-500:]
            raise Failure(f"{' '.join(command)} ended with {done.returncode}: {said}")
        return took

    return work


def available_memory() -> int:
    """MemAvailable of the host, in bytes (proc_meminfo(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; figures stand on the right."""
    marks = ["---", *("--:" for _ in header[1:])]
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(marks)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def spread(values: Sequence[float], form: str = ".0f") -> tuple[str, str, str]:
    """Least, median and most, for a table."""
    return format(min(values), form), format(median(values), form), format(max(values), form)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(values: Sequence[float], peer: Sequence[float] | None) -> str:
    """Of medians; nothing where there is no peer."""
    return f"{median(values) / median(peer):.2f}" if peer else ""
