"""``make bench``: what a start costs, against Docker, in one run on one machine.

    python -m bench [--rounds N]

Writes bench/results.json, bench/results.md and the figures of README.md, and prints them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.measure import Times, command, side_by_side, table
from bench.peers import docker
from bench.pods import Pods
from bench.pods import report as pods_report
from hypercontainer.client import Client

HERE = Path(__file__).parent
HYPER = str(Path(sys.executable).parent / "hyper")
IMAGE = "busybox"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="hyper-bench-") as name:
        directory = Path(name)
        image = directory / "busybox.tar"
        subprocess.run([sys.executable, "tools/make_image.py", "busybox", image], check=True)
        environment = {**os.environ, "HYPER_ROOT": str(directory / "hyper")}
        try:
            results = _all(directory, image, environment, rounds)
        finally:
            _stop_daemon(directory / "hyper")
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    report = _report(results)
    (HERE / "results.md").write_text(report)
    _show_in_readme(report)
    print(report)


def _all(directory: Path, image: Path, environment: dict[str, str], rounds: int) -> dict[str, Any]:
    _hyper(environment, "load", "-i", str(image))
    drivers = _drivers(environment)
    with docker(directory, image) as engine:
        contenders = {
            f"hyper, {driver}{network}": command(
                HYPER, "run", "--rm", "--hypervisor", driver, *flags, IMAGE, "true", environment=environment
            )
            for network, flags in ((", no network", ("--network", "none")), ("", ()))
            for driver in drivers
        }
        if engine is not None:
            contenders["docker run (runc), no network"] = command(
                *engine, "run", "--rm", "--network", "none", IMAGE, "true"
            )
            contenders["docker run (runc)"] = command(*engine, "run", "--rm", IMAGE, "true")
        contenders["hyper list"] = command(HYPER, "list", environment=environment)
        times = side_by_side(contenders, rounds=rounds)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": _machine(),
        "rounds": rounds,
        "run": {name: list(each.each) for name, each in times.items()},
        "pods": {
            driver: Pods(HYPER, driver, directory, environment).measure(max(rounds // 3, 1))
            for driver in drivers
        },
        "memory": {driver: _memory(environment, driver) for driver in drivers},
    }


def _drivers(environment: dict[str, str]) -> list[str]:
    doctor = json.loads(_hyper(environment, "doctor", "--format", "json"))
    return [driver["name"] for driver in doctor["drivers"] if driver["works"]]


def _memory(environment: dict[str, str], driver: str) -> dict[str, Any]:
    """Bytes and more that an idle busybox pod of 32 MiB uses, seen from inside and outside."""
    _hyper(
        environment,
        "run",
        "-d",
        "--name",
        "idle",
        "--memory",
        "32m",
        "--hypervisor",
        driver,
        IMAGE,
        "sleep",
        "600",
    )
    try:
        time.sleep(2)
        return Client(Path(environment["HYPER_ROOT"]) / "run/hyper.sock").pods.statistics("idle")
    finally:
        _hyper(environment, "rm", "-f", "idle")


def _hyper(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([HYPER, *words], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"hyper {' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def _stop_daemon(root: Path) -> None:
    try:
        pid = int((root / "run" / "hyperd.lock").read_text())
        os.kill(pid, 15)
    except (OSError, ValueError):
        return
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.05)


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release().partition('-')[0]}"


def _report(results: dict[str, Any]) -> str:
    times = {name: Times(tuple(each)) for name, each in results["run"].items()}
    rows = [
        (name, f"{each.min:.0f}", f"{each.median:.0f}", f"{each.max:.0f}", _ratio(name, times))
        for name, each in times.items()
    ]
    memory = [
        (driver, *(f"{each[key] / 1e6:.1f}" for key in ("memory_used", "vmm_rss", "vmm_pss", "vmm_private")))
        for driver, each in results["memory"].items()
    ]
    return "\n".join(
        (
            f"Measured {results['date']} on {results['machine']}, {results['rounds']} rounds in one run.",
            "",
            "`run --rm busybox true`, shell to shell, milliseconds:",
            "",
            table(("what", "min", "median", "max", "of docker's median"), rows),
            "",
            "Without a network, milliseconds: `hyper start`, shell to shell, and `hyper replace` from the",
            "request to the new container's first instruction:",
            "",
            pods_report(results["pods"]),
            "",
            "An idle busybox pod of 32 MiB, MB:",
            "",
            table(("driver", "used in the guest", "VMM RSS", "VMM PSS", "VMM private"), memory),
            "",
        )
    )


def _show_in_readme(report: str) -> None:
    """Put the newest figures where the README has its place for them."""
    readme = HERE.parent / "README.md"
    begin, end = "<!-- figures -->", "<!-- /figures -->"
    before, _, rest = readme.read_text().partition(begin)
    after = rest.partition(end)[2]
    readme.write_text(f"{before}{begin}\n{report}\n`make bench` measures it again.\n{end}{after}")


def _ratio(name: str, times: dict[str, Times]) -> str:
    peer = "docker run (runc), no network" if "no network" in name else "docker run (runc)"
    if peer not in times or not name.startswith("hyper,"):
        return ""
    return f"{times[name].median / times[peer].median:.2f}"


if __name__ == "__main__":
    main()
