"""What a start costs where machines wait for pods: with a hyperd of its own, and its pool full."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.measure import Failure, ratio, side_by_side, spread, table, timed
from bench.peers import RUNC
from bench.runtimes import IMAGE, HyperRuntime
from bench.site import Site, hyper
from bench.start import NETWORKS

_FULL_S = 60
_SIZE_MIB = 128  # of a pod that asks for nothing


def measure(site: Site, rounds: int) -> dict[str, Any]:
    """Milliseconds, shell to shell, by network and runtime; with a peer in the same turns."""
    sizes = len(site.hypers) * len(NETWORKS)
    settings = f"pool_memory_mib = {sizes * _SIZE_MIB}\n"
    with hyper(site.directory / "pooled", number=1, settings=settings) as runtimes:
        runtimes[0].call("load", "--quiet", "--input", str(site.image))
        contenders = {
            f"{network}, {runtime.name}": _when_full(runtime, sizes, *flags)
            for network, flags in NETWORKS.items()
            for runtime in runtimes
        }
        for network, flags in NETWORKS.items():
            for peer in site.peers[:1]:
                contenders[f"{network}, {peer.name}"] = timed(peer.run("--rm", *flags, IMAGE, "true"))
        return side_by_side(contenders, rounds=rounds)


def _when_full(runtime: HyperRuntime, machines: int, *flags: str) -> Callable[[], float]:
    """The wait is not measured; the pool knows after the first turn of all what is asked for."""
    run = timed(runtime.run("--rm", *flags, IMAGE, "true"), runtime.environment)

    def work() -> float:
        deadline = time.monotonic() + _FULL_S
        while runtime.client.system.info().pool_machines < machines:
            if time.monotonic() > deadline:
                raise Failure(f"the pool did not become full in {_FULL_S} s")
            time.sleep(0.2)
        return run()

    return work


def report(figures: Mapping[str, Any]) -> str:
    rows = [
        (name, *spread(each), ratio(each, figures.get(f"{name.partition(',')[0]}, {RUNC}")))
        for name, each in figures.items()
    ]
    return "\n\n".join(
        (
            "`run --rm busybox true`, shell to shell, milliseconds, while a machine waits in the pool:",
            table(("", "min", "median", "max", "of runc's median"), rows),
        )
    )
