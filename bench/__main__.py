"""``make bench``: what hyper costs, against Docker with runc and with gVisor, in one run on one machine.

    python -m bench [--rounds N] [--against REVISION] [PART ...]

Without parts, all but the long ones.  Writes bench/results.json, bench/results.md, bench/results.svg and
the figures of README.md; what another run measured of other parts is kept, with its date.  --against
measures this tree against another revision of it, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from bench import against, burst, crowd, listing, memory, pods, pool, soak, start, throughput
from bench.chart import Panel, chart
from bench.site import Site, site

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
_BEGIN, _END = "<!-- figures -->", "<!-- /figures -->"


class Part(NamedTuple):
    """``measure`` gives what ``report`` can show, as JSON has it."""

    title: str
    measure: Callable[[Site, int], dict[str, Any]]
    report: Callable[[Mapping[str, Any]], str]
    is_long: bool = False


PARTS = {
    "start": Part("Start", start.measure, start.report),
    "pods": Part("Pods", pods.measure, pods.report),
    "pool": Part("A warm pool", pool.measure, pool.report),
    "list": Part("Listing", listing.measure, listing.report),
    "memory": Part("Memory", memory.measure, memory.report),
    "burst": Part("A burst", burst.measure, burst.report),
    "throughput": Part("Throughput", throughput.measure, throughput.report),
    "crowd": Part("A crowd", crowd.measure, crowd.report, is_long=True),
    "soak": Part("Again and again", soak.measure, soak.report, is_long=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--all", action="store_true", help="the long ones too")
    parser.add_argument("--rounds", type=int, default=30, help="(30); what takes long has a tenth of them")
    parser.add_argument("--against", metavar="REVISION", help="a commit of git")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    if asked.against:
        print(against.compare(asked.against, asked.rounds))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with site() as place:
        for name in asked.parts or [name for name, part in PARTS.items() if asked.all or not part.is_long]:
            results[name] = _measured(PARTS[name], place, asked.rounds)
            _write(results)
            print(_section(name, results[name]))


def _stop(number: int, frame: object) -> NoReturn:
    """As Ctrl-C does: what runs is ended, and nothing is left."""
    raise SystemExit(128 + number)


def _measured(part: Part, place: Site, rounds: int) -> dict[str, Any]:
    figures = part.measure(place, rounds)
    return {"date": time.strftime("%Y-%m-%d"), "machine": _machine(), "rounds": rounds, "figures": figures}


def _write(results: Mapping[str, Any]) -> None:
    """After each part: a part that fails takes nothing of the others with it."""
    found = {name: results[name] for name in PARTS if name in results}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    report = "\n".join(_section(name, result) for name, result in found.items())
    (HERE / "results.md").write_text(report)
    (HERE / "results.svg").write_text(_picture(found))
    _show_in_readme(report)


def _section(name: str, result: Mapping[str, Any]) -> str:
    measured = f"{result['date']}, {result['machine']}, {result['rounds']} rounds."
    return f"### {PARTS[name].title}\n{measured}\n\n{PARTS[name].report(result['figures'])}\n"


def _picture(results: Mapping[str, Any]) -> str:
    kinds = {
        "start": (start.bars, "run --rm busybox true, no network, shell to shell", "ms"),
        "burst": (burst.bars, f"{burst.COUNT} containers asked for at once, until all run", "s"),
        "memory": (memory.bars, "memory that an idle container costs the host", "MB"),
    }
    panels = [
        Panel(title=title, unit=unit, bars=bars(results[name]["figures"]))
        for name, (bars, title, unit) in kinds.items()
        if name in results
    ]
    newest = max(results.values(), key=lambda result: str(result["date"]))
    return chart(panels, note=f"Medians, {newest['date']}, {newest['machine']}. Less is better.")


def _show_in_readme(report: str) -> None:
    """Put the newest figures where the README has its place for them."""
    readme = HERE.parent / "README.md"
    before, _, rest = readme.read_text().partition(_BEGIN)
    picture = "![Bars: start, burst and memory of hyper's drivers and of Docker](bench/results.svg)"
    shown = f"{_BEGIN}\n{picture}\n\n{report}\n`make bench` measures it again.\n{_END}"
    readme.write_text(f"{before}{shown}{rest.partition(_END)[2]}")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release().partition('-')[0]}"


if __name__ == "__main__":
    main()
