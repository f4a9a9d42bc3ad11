"""How long a container takes to start: shell to shell, and from the request to its first instruction."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

from bench.measure import Failure, median, progress, ratio, side_by_side, spread, table, timed
from bench.peers import RUNC
from bench.runtimes import IMAGE, HyperRuntime, Runtime
from bench.site import Site

NETWORKS = {"no network": ("--network", "none"), "default network": ()}
_FIRST_INSTRUCTION = "the first instruction"
_COLD = "without a template"


def measure(site: Site, rounds: int) -> dict[str, Any]:
    """Milliseconds: ``run --rm`` by network and runtime, and what hyper's own timeline says."""
    for runtime in site.hypers:
        runtime.warm(network="none")
        runtime.warm()
    return {
        "shell": {
            network: side_by_side(
                {each.name: timed(_command(each, *flags), each.environment) for each in site.runtimes},
                rounds=rounds,
            )
            for network, flags in NETWORKS.items()
        },
        "inside": {runtime.name: _inside(runtime, rounds) for runtime in site.hypers},
    }


def _command(runtime: Runtime, *flags: str) -> list[str]:
    return runtime.run("--rm", *flags, IMAGE, "true")


def _inside(runtime: HyperRuntime, rounds: int) -> dict[str, list[float]]:
    """From the request to the container's first instruction: as ever, and on a machine that boots."""
    found = {_FIRST_INSTRUCTION: [_first_instruction(runtime) for _ in range(rounds)]}
    if runtime.has_templates:
        found[_COLD] = [_cold(runtime, number) for number in range(max(rounds // 3, 1))]
    return found


def _cold(runtime: HyperRuntime, number: int) -> float:
    """The first start of a size; waits for the template that follows, which would disturb the next."""
    progress(f"cold start {number + 1} of {runtime.name}")
    runtime.call("template", "prune")
    took = _first_instruction(runtime)
    runtime.warm(network="none")
    return took


def _first_instruction(runtime: Runtime) -> float:
    words = runtime.run("--rm", "--network", "none", "--timeline", IMAGE, "true")
    done = subprocess.run(words, env=runtime.environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
    lines = done.stderr.splitlines()
    return moment(lines, "guest   process ") - moment(lines, "hyper   command line read")


def moment(lines: list[str], what: str) -> float:
    """When a mark of a timeline was, in milliseconds."""
    return next(float(line.split()[0]) for line in lines if what in line)


def report(figures: Mapping[str, Any]) -> str:
    parts = []
    for network, times in figures["shell"].items():
        rows = [(name, *spread(each), ratio(each, times.get(RUNC))) for name, each in times.items()]
        parts += [
            f"`run --rm busybox true`, {network}, shell to shell, milliseconds:",
            table(("", "min", "median", "max", "of runc's median"), rows),
        ]
    inside = [
        (f"{name}, {what}", *spread(each))
        for name, found in figures["inside"].items()
        for what, each in found.items()
    ]
    parts += [
        "No network, from the request to the container's first instruction, milliseconds; the original's"
        " pod took 336 with KVM:",
        table(("", "min", "median", "max"), inside),
    ]
    return "\n\n".join(parts)


def bars(figures: Mapping[str, Any]) -> dict[str, float]:
    """What the picture shows."""
    return {name: median(each) for name, each in figures["shell"]["no network"].items()}
