"""What a start costs by the number of containers, and how fast a pod takes the machine of another."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.measure import Failure, ratio, side_by_side, spread, table
from bench.runtimes import IMAGE, HyperRuntime
from bench.site import Site
from bench.start import moment

COUNTS = (1, 10)
_CONTAINER = {"image": IMAGE, "command": ["sleep", "600"]}
_REPLACE = "replace"


def measure(site: Site, rounds: int) -> dict[str, Any]:
    """Milliseconds by driver and by what was done."""
    return {runtime.name: _Pods(runtime, site.directory).measure(rounds) for runtime in site.hypers}


class _Pods:
    """Pods of one driver, without a network."""

    def __init__(self, runtime: HyperRuntime, directory: Path) -> None:
        self._runtime = runtime
        self._directory = directory

    def measure(self, rounds: int) -> dict[str, list[float]]:
        self._runtime.warm(network="none")
        contenders = {_start_of(count): lambda count=count: self._start(count) for count in COUNTS}
        return side_by_side({**contenders, _REPLACE: self._replace}, rounds=rounds)

    def _start(self, count: int) -> float:
        """Shell to shell; the pod is created before."""
        pod = self._create(count)
        began = time.perf_counter()
        self._runtime.call("start", pod)
        took = (time.perf_counter() - began) * 1e3
        self._runtime.remove(pod)
        return took

    def _replace(self) -> float:
        """From hyperd's taking the request to the first instruction of the new container."""
        old, new = self._create(1), self._create(1)
        self._runtime.call("start", old)
        took = _took(self._runtime, old, new)
        self._runtime.remove(old, new)
        return took

    def _create(self, count: int) -> str:
        pod = {"containers": [_CONTAINER] * count, "hypervisor": self._runtime.driver, "network": "none"}
        file = self._directory / f"pod-{count}.json"
        file.write_text(json.dumps(pod))
        return self._runtime.call("create", "-p", str(file)).strip()


def _took(runtime: HyperRuntime, old: str, new: str) -> float:
    words = [*runtime.program, "replace", "-t", "0", "-o", old, "-n", new, "--timeline"]
    done = subprocess.run(words, env=runtime.environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
    lines = done.stderr.splitlines()
    return moment(lines, "guest   process ") - moment(lines, "replace begins")


def _start_of(count: int) -> str:
    return f"start, containers: {count}"


def report(figures: Mapping[str, Any]) -> str:
    rows = [
        (f"{driver}, {what}", *spread(each), ratio(each, spent[_start_of(COUNTS[0])]))
        for driver, spent in figures.items()
        for what, each in spent.items()
    ]
    return "\n\n".join(
        (
            "Without a network, milliseconds: `hyper start`, shell to shell, and `hyper replace` from the"
            " request to the new container's first instruction (the original: 95):",
            table(("", "min", "median", "max", "of one container's start"), rows),
        )
    )
