"""Test hyper on a host that this one isn't: a whole one, emulated, with real hypervisors in it.

    python -m tools.lanes kvm                 the lane's tests
    python -m tools.lanes kvm -- -x -k pause  other arguments for pytest

Leaves ``junit.xml`` and logs in ``build/lanes/NAME``.  The exit status is 0 when every test passed or was
refused by a capability that the driver declares false.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.lanes import emulator, image, outer, packages, payload, report, watch
from tools.lanes.image import Image
from tools.lanes.lane import LANES, Lane

FAULTS = (
    watch.BootError,
    watch.LaneError,
    emulator.EmulatorError,
    packages.PackageError,
    payload.PayloadError,
    report.ReportError,
)

BOOTS = 2  # the second when the first did not come up, and said so


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.lanes", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("lane", choices=list(LANES))
    parser.add_argument("pytest", nargs="*", help="arguments for pytest instead of the lane's")
    asked = parser.parse_args()
    results = payload.CHECKOUT / "build/lanes" / asked.lane
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the outer guest ends with us
    try:
        lane = LANES[asked.lane]
        return _run(lane, asked.pytest or lane.pytest(), results)
    except FAULTS as error:
        print(f"lane {asked.lane}: {error}", file=sys.stderr)
        return 2


def _run(lane: Lane, pytest: Sequence[str], results: Path) -> int:
    began = time.monotonic()
    program, program_is_new = emulator.find_or_build()
    found, image_is_new = image.find_or_build(lane)
    ready = time.monotonic()
    kept = "built" if program_is_new or image_is_new else "there"
    print(f"lane {lane.name}: emulator and image were {kept}: {ready - began:.1f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="hyper-lane-") as directory:
        filled = payload.append(found, lane, pytest, Path(directory))
        boots = _boot(program, lane, filled, Path(directory), results)
    summary = report.read(results)
    cpu = os.times().children_user + os.times().children_system  # a busy host makes the other longer
    took = (
        f"{time.monotonic() - ready:.0f} s, {cpu:.0f} s of CPU, {boots} {'boot' if boots == 1 else 'boots'}"
    )
    print(f"lane {lane.name}: {summary}; {took} of the outer guest; see {results}")
    return 0 if summary.is_good else 1


def _boot(program: Path, lane: Lane, filled: Image, work: Path, results: Path) -> int:
    """How many boots it took."""
    for boots in range(1, BOOTS):
        try:
            outer.run(program, lane, filled, work, results, watch.Deadlines())
        except watch.BootError as error:
            print(f"lane: boot {boots} of the outer guest failed, and is tried again: {error}")
        else:
            return boots
    outer.run(program, lane, filled, work, results, watch.Deadlines())
    return BOOTS


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C.UTF-8"
    sys.exit(main())
