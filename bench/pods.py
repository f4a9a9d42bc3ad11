"""What a start costs by the number of containers, and how fast a pod takes the machine of another."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from bench.measure import Times, table

COUNTS = (1, 10)
_CONTAINER = {"image": "busybox", "command": ["sleep", "600"]}


class Pods:
    """Pods of one driver, by ``hyper``, without a network."""

    def __init__(self, hyper: str, driver: str, directory: Path, environment: Mapping[str, str]) -> None:
        self._hyper = hyper
        self._driver = driver
        self._directory = directory
        self._environment = environment

    def measure(self, rounds: int) -> dict[str, list[float]]:
        """Milliseconds by what was done, one round of each in turns."""
        spent: dict[str, list[float]] = {}
        for _ in range(rounds):
            for count in COUNTS:
                spent.setdefault(f"start, containers: {count}", []).append(self._start(count))
            spent.setdefault("replace", []).append(self._replace())
        return spent

    def _start(self, count: int) -> float:
        """Shell to shell; the pod is created before."""
        pod = self._create(count)
        began = time.perf_counter()
        self._run("start", pod)
        took = (time.perf_counter() - began) * 1e3
        self._run("rm", "-f", pod)
        return took

    def _replace(self) -> float:
        """From hyperd's taking the request to the first instruction of the new container."""
        old, new = self._create(1), self._create(1)
        self._run("start", old)
        lines = self._run("replace", "-t", "0", "-o", old, "-n", new, "--timeline").stderr.splitlines()
        took = _at(lines, " process ", skip="process starts") - _at(lines, "replace begins")
        self._run("rm", "-f", old, new)
        return took

    def _create(self, count: int) -> str:
        pod = {"containers": [_CONTAINER] * count, "hypervisor": self._driver, "network": "none"}
        file = self._directory / f"pod-{count}.json"
        file.write_text(json.dumps(pod))
        return self._run("create", "-p", str(file)).stdout.strip()

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._hyper, *words], env=self._environment, capture_output=True, text=True, check=True
        )


def _at(lines: list[str], what: str, *, skip: str = "\n") -> float:
    """When a mark of the timeline was, in milliseconds."""
    return next(float(line.split()[0]) for line in lines if what in line and skip not in line)


def report(pods: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Tables of what ``measure`` gave for each driver."""
    rows = []
    for driver, spent in pods.items():
        for what, each in spent.items():
            times = Times(tuple(each))
            ratio = times.median / Times(tuple(spent[f"start, containers: {COUNTS[0]}"])).median
            rows.append(
                (
                    driver,
                    what,
                    *(f"{value:.0f}" for value in (times.min, times.median, times.max)),
                    f"{ratio:.2f}",
                )
            )
    return table(("driver", "what", "min", "median", "max", "of one container's start"), rows)
