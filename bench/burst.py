"""Many containers asked for at once: until all run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from typing import Any

from bench.fleet import MEMORY_MIB, flags, remove
from bench.measure import Failure, median, progress, ratio, spread, table
from bench.peers import RUNC
from bench.runtimes import IMAGE, Runtime
from bench.site import Site

COUNT = 50
_SETTLED_S = 2


def measure(site: Site, rounds: int) -> dict[str, Any]:
    """Seconds by runtime, in turns."""
    for hyper in site.hypers:
        hyper.warm(memory_mib=MEMORY_MIB, network="none")
    found: dict[str, list[float]] = {runtime.name: [] for runtime in site.runtimes}
    for number in range(max(rounds // 10, 1)):
        for runtime in site.runtimes:
            progress(f"burst {number + 1}: {runtime.name}")
            found[runtime.name].append(_burst(runtime))
    progress("")
    return found


def _burst(runtime: Runtime) -> float:
    """A client for each container, all started at once."""
    names = [f"burst-{number}" for number in range(COUNT)]
    began = time.perf_counter()
    clients = [
        subprocess.Popen(
            runtime.run("-d", "--name", name, *flags(runtime), IMAGE, "sleep", "86400"),
            env=runtime.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    try:
        said = [client.communicate()[1] for client in clients]
        took = time.perf_counter() - began
    finally:
        remove(runtime, names)
    if failed := [text for client, text in zip(clients, said, strict=True) if client.returncode != 0]:
        raise Failure(f"{len(failed)} of {COUNT} of {runtime.name} did not start: {failed[0][-500:]}")
    time.sleep(_SETTLED_S)
    return took


def report(figures: Mapping[str, Any]) -> str:
    rows = [(name, *spread(each, ".1f"), ratio(each, figures.get(RUNC))) for name, each in figures.items()]
    return "\n\n".join(
        (
            f"{COUNT} asked for at once by as many clients, seconds until all run:",
            table(("", "min", "median", "max", "of runc's median"), rows),
        )
    )


def bars(figures: Mapping[str, Any]) -> dict[str, float]:
    """What the picture shows."""
    return {name: median(each) for name, each in figures.items()}
