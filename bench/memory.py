"""What idle containers cost the host in memory, seen from outside, and a machine from inside."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bench.fleet import MEMORY_MIB, fleet
from bench.measure import available_memory, median, table
from bench.runtimes import HyperRuntime, Runtime
from bench.site import Site
from hypercontainer.engine.memory import of_process

COUNT = 100
_SETTLED_S = 5
_STEADY = 8 << 20  # bytes that may come and go in a second when nothing happens
_STEADY_TRIES = 60
_INSIDE = ("memory_used", "vmm_rss", "vmm_pss", "vmm_private")


def measure(site: Site, rounds: int) -> dict[str, Any]:
    """Bytes, by runtime; of fewer containers when fewer rounds are asked."""
    count = min(COUNT, max(rounds * 10 // 3, 3))
    before = of_process(site.daemon)
    for runtime in site.hypers:
        runtime.warm(memory_mib=MEMORY_MIB, network="none")
    return {
        "count": count,
        "runtimes": {runtime.name: _cost(site, runtime, count) for runtime in site.runtimes},
        "daemon": {"before": before.rss, "after": of_process(site.daemon).rss},
    }


def _cost(site: Site, runtime: Runtime, count: int) -> dict[str, float]:
    """Of one container: the fall of MemAvailable is all that it costs, whoever holds the pages."""
    before = _steady_memory()
    with fleet(runtime, count) as names:
        time.sleep(_SETTLED_S)
        cost = {"fall": (before - _steady_memory()) / count}
        if isinstance(runtime, HyperRuntime):
            cost |= _inside(runtime, names)
            cost["daemon"] = of_process(site.daemon).rss
    return cost


def _steady_memory() -> int:
    """Bytes available, once what ended before has given back its own."""
    last = available_memory()
    for _ in range(_STEADY_TRIES):
        time.sleep(1)
        now = available_memory()
        if abs(now - last) < _STEADY:
            return now
        last = now
    return last


def _inside(runtime: HyperRuntime, names: list[str]) -> dict[str, float]:
    """Medians of some: PSS is a share of what all map."""
    some = [runtime.client.pods.statistics(name) for name in names[:: max(len(names) // 10, 1)]]
    return {key: median([float(each[key]) for each in some]) for key in _INSIDE}


def report(figures: Mapping[str, Any]) -> str:
    rows = [
        (name, *(_mb(cost.get(key)) for key in ("fall", *_INSIDE, "daemon")))
        for name, cost in figures["runtimes"].items()
    ]
    return "\n\n".join(
        (
            f"{figures['count']} idle busybox containers (machines of {MEMORY_MIB} MiB), MB for each; what"
            " the host lost is the fall of MemAvailable. The original: 28 MB of guest, 49 of QEMU:",
            table(
                ("", "host lost", "used in the guest", "VMM RSS", "VMM PSS", "VMM private", "hyperd RSS"),
                rows,
            ),
        )
    )


def _mb(size: float | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f}"


def bars(figures: Mapping[str, Any]) -> dict[str, float]:
    """What the picture shows."""
    return {name: cost["fall"] / 1e6 for name, cost in figures["runtimes"].items()}
