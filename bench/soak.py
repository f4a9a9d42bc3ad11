"""Ten thousand short runs, four at a time, with tools/soak.py: none may fail, nothing may be left."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from bench.measure import Failure, table
from bench.runtimes import IMAGE
from bench.site import ROOT, Site
from hypercontainer.engine.memory import of_process

RUNS = 10_000
_SAID = re.compile(r"(\d+) runs in ([\d.]+) s.*?(\d+) failed, (\d+) left behind", re.DOTALL)


def measure(site: Site, rounds: int) -> dict[str, Any]:
    """Of the first driver; of fewer runs when fewer rounds are asked."""
    runtime, runs = site.hypers[0], min(RUNS, rounds * RUNS // 30)
    words = ["--runs", str(runs), "--parallel", "4", "--hypervisor", runtime.driver, "--image", IMAGE]
    runtime.warm()
    before = of_process(site.daemon).rss
    command = [sys.executable, str(ROOT / "tools/soak.py"), *words]
    done = subprocess.run(command, env=runtime.environment, capture_output=True, text=True, check=False)
    found = _SAID.search(done.stdout)
    if found is None:
        raise Failure(f"soak.py ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}")
    count, seconds, failed, left = found.groups()
    return {
        "driver": runtime.name,
        "runs": int(count),
        "seconds": float(seconds),
        "failed": int(failed),
        "left": int(left),
        "daemon": [before, of_process(site.daemon).rss],
    }


def report(figures: Mapping[str, Any]) -> str:
    before, after = (size / 1e6 for size in figures["daemon"])
    row = (
        figures["driver"],
        *(str(figures[key]) for key in ("runs", "failed", "left")),
        f"{figures['seconds'] / figures['runs'] * 1e3:.0f}",
        f"{before:.0f}",
        f"{after:.0f}",
    )
    heads = ("", "runs", "failed", "left behind", "ms for each", "hyperd RSS before, MB", "after")
    return f"Short runs, four at a time:\n\n{table(heads, [row])}"
