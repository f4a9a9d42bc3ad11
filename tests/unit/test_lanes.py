"""A lane's end: no run is called good that proved nothing, and a guest that hangs is ended, and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tools.lanes import hang, report, watch

PASSED = '<testcase name="one"/>'
REFUSED = '<testcase name="two"><skipped message="this driver has no second CPU"/></testcase>'
SKIPPED = '<testcase name="three"><skipped message="not on this host: kvm: no /dev/kvm"/></testcase>'
FAILED = '<testcase name="four"><failure message="it broke"/></testcase>'
BROKEN = '<testcase name="five"><error message="its fixture broke"/></testcase>'


def read(directory: Path, *cases: str, status: int = 0) -> report.Summary:
    (directory / "junit.xml").write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    (directory / "status").write_text(f"{status}\n")
    return report.read(directory)


def test_passes_and_refusals_by_capability_are_good(tmp_path: Path) -> None:
    summary = read(tmp_path, PASSED, REFUSED)
    assert summary.is_good
    assert str(summary) == "1 passed, 0 failed, 1 refused, 0 skipped"


@pytest.mark.parametrize("case", [SKIPPED, FAILED, BROKEN])
def test_a_lane_with_anything_else_is_not_good(tmp_path: Path, case: str) -> None:
    assert not read(tmp_path, PASSED, REFUSED, case).is_good


def test_a_lane_that_ran_nothing_or_crashed_is_not_good(tmp_path: Path) -> None:
    assert not read(tmp_path).is_good
    assert not read(tmp_path, REFUSED).is_good
    assert not read(tmp_path, PASSED, status=3).is_good
    (tmp_path / "junit.xml").unlink()
    with pytest.raises(report.ReportError, match="no report"):
        report.read(tmp_path)


# --- The outer guest ---

UP = b"lane: up after 1 s\n"


def say(*lines: bytes, then: float = 0) -> Iterator[bytes]:
    yield from lines
    time.sleep(then)


def explain(file: IO[str]) -> None:
    file.write("it looped\n")


def test_a_guest_is_followed_to_its_end(tmp_path: Path) -> None:
    watch.follow(say(b"hello\n", UP, b"lane: over after 2 s\n"), tmp_path, watch.Deadlines(), explain)
    assert (tmp_path / "console.log").read_text().split("\n")[0] == "hello"
    assert not (tmp_path / watch.HANG).exists()


@pytest.mark.parametrize("end", [0, 5])
def test_a_guest_that_does_not_come_up_is_another_fault_than_one_that_does_not_end(
    tmp_path: Path, end: float
) -> None:
    with pytest.raises(watch.BootError, match="last words: what"):
        watch.follow(say(b"what\n", then=end), tmp_path, watch.Deadlines(up=1, explained=0.1), explain)
    with pytest.raises(watch.LaneError, match="last words: lane: up"):
        watch.follow(say(UP, then=end), tmp_path, watch.Deadlines(over=0.5, explained=0.1), explain)


def test_a_guest_that_falls_silent_is_asked_why(tmp_path: Path) -> None:
    with pytest.raises(watch.LaneError, match=r"silent for 0 s; what it did is in .*hang\.txt"):
        watch.follow(say(UP, then=5), tmp_path, watch.Deadlines(silent=0.3, explained=0.1), explain)
    assert (tmp_path / watch.HANG).read_text() == "it looped\n"


def test_a_guest_that_talks_for_ever_is_ended(tmp_path: Path) -> None:
    def talk() -> Iterator[bytes]:
        yield UP
        while True:
            yield b"still here\n"
            time.sleep(0.05)

    with pytest.raises(watch.LaneError, match="took longer"):
        watch.follow(talk(), tmp_path, watch.Deadlines(over=0.5, explained=0.1), explain)


def test_qemu_says_what_the_cpu_of_a_guest_that_hangs_does(tmp_path: Path) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("there is no QEMU: apt-get install qemu-system-x86")
    monitor = tmp_path / "monitor.sock"
    options = ["-machine", "pc", "-nodefaults", "-display", "none", "-serial", "stdio"]
    command, pipe = [qemu, *options, "-qmp", f"unix:{monitor},server=on,wait=off"], subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe) as vmm,
        (tmp_path / "why").open("w") as file,
    ):
        try:
            while not monitor.exists():
                time.sleep(0.01)
            assert vmm.stdin
            hang.explain(monitor, vmm.stdin.fileno(), file, on_xen=False)
        finally:
            vmm.kill()
    said = (tmp_path / "why").read_text()
    assert said.count("EIP=") == hang.SAMPLES
    assert "VM status: running" in said
    assert "does not answer" not in said


def test_a_qemu_that_hangs_itself_is_said_to(tmp_path: Path) -> None:
    with (tmp_path / "why").open("w") as file:
        hang.explain(tmp_path / "gone.sock", os.open(os.devnull, os.O_WRONLY), file, on_xen=True)
    assert "QEMU itself does not answer" in (tmp_path / "why").read_text()
