"""Times and memory, measured side by side: one round runs every contender once, so noise hits all alike."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one contender."""

    each: tuple[float, ...]

    @property
    def min(self) -> float:
        return min(self.each)

    @property
    def median(self) -> float:
        return statistics.median(self.each)

    @property
    def max(self) -> float:
        return max(self.each)


def side_by_side(contenders: Mapping[str, Callable[[], None]], *, rounds: int) -> dict[str, Times]:
    """Run every contender ``rounds`` times, in turns, after one unmeasured run of each."""
    for work in contenders.values():
        work()
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, work in contenders.items():
            began = time.perf_counter()
            work()
            spent[name].append((time.perf_counter() - began) * 1e3)
        print(f"\rround {number + 1} of {rounds}", end="", flush=True)
    print()
    return {name: Times(tuple(each)) for name, each in spent.items()}


def command(*words: str, environment: Mapping[str, str] | None = None) -> Callable[[], None]:
    """A contender that runs a program, shell to shell; a failure ends the benchmark."""

    def work() -> None:
        done = subprocess.run(words, env=environment, capture_output=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.decode()[-500:]}")

    return work


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join('---' for _ in header)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
