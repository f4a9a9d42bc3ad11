"""Five hundred idle pods: how long each takes to start, and whether all answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.fleet import MEMORY_MIB, remove, start_one
from bench.measure import Failure, available_memory, median, progress, table
from bench.runtimes import HyperRuntime
from bench.site import Site
from hypercontainer.engine.memory import of_process

COUNT = 500
_NEIGHBOURS = 10  # of the tenth and of the last: one start alone says little


def measure(site: Site, rounds: int) -> dict[str, Any]:
    """Of the first driver: seconds and bytes."""
    return {runtime.name: _crowd(site, runtime) for runtime in site.hypers[:1]}


def _crowd(site: Site, runtime: HyperRuntime) -> dict[str, Any]:
    runtime.warm(memory_mib=MEMORY_MIB, network="none")
    names = [f"crowd-{number}" for number in range(COUNT)]
    before = available_memory()
    try:
        starts = [_start(runtime, name, number) for number, name in enumerate(names)]
        began = time.perf_counter()
        answers = sum(_is_good(_answer, runtime, name) for name in names)
        return {
            "starts": starts,
            "answers": answers,
            "exec": (time.perf_counter() - began) / COUNT,
            "memory": (before - available_memory()) / COUNT,
            "daemon": of_process(site.daemon).rss,
        }
    finally:
        remove(runtime, names)


def _start(runtime: HyperRuntime, name: str, number: int) -> float:
    progress(f"{runtime.name}: {number + 1} of {COUNT}")
    began = time.perf_counter()
    _is_good(start_one, runtime, name)
    return time.perf_counter() - began


def _answer(runtime: HyperRuntime, name: str) -> None:
    if runtime.execute(name, "echo", name) != f"{name}\n":
        raise Failure(f"{name} answers something else")


def _is_good(work: Callable[[HyperRuntime, str], None], runtime: HyperRuntime, name: str) -> bool:
    """One that does not start is one that does not answer: the others are asked all the same."""
    try:
        work(runtime, name)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return False
    return True


def report(figures: Mapping[str, Any]) -> str:
    rows = [
        (
            name,
            f"{early(crowd['starts']) * 1e3:.0f}",
            f"{late(crowd['starts']) * 1e3:.0f}",
            f"{late(crowd['starts']) / early(crowd['starts']):.2f}",
            f"{crowd['answers']} of {len(crowd['starts'])}",
            f"{crowd['exec'] * 1e3:.0f}",
            f"{crowd['memory'] / 1e6:.1f}",
            f"{crowd['daemon'] / 1e6:.0f}",
        )
        for name, crowd in figures.items()
    ]
    return "\n\n".join(
        (
            f"{COUNT} idle pods of {MEMORY_MIB} MiB, one after the other; the original had 252 on 16 GB."
            f" Starts in milliseconds, shell to shell, are medians of {_NEIGHBOURS} neighbours:",
            table(
                (
                    "",
                    "about the 10th",
                    "the last",
                    "ratio",
                    "answer exec",
                    "exec, ms",
                    "MB each",
                    "hyperd MB",
                ),
                rows,
            ),
        )
    )


def early(starts: list[float]) -> float:
    return median(starts[5 : 5 + _NEIGHBOURS])


def late(starts: list[float]) -> float:
    return median(starts[-_NEIGHBOURS:])
