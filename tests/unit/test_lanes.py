"""What a lane's report is good for: it must not call a run good that proved nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.lanes import report

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
