"""What a lane's run came to, out of its JUnit file."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

HONEST = "this driver has no "  # a capability that the driver declares false


class ReportError(Exception):
    """The tests left no report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    tests: int
    failed: int
    refused: int  # skipped by a capability that the driver declares false
    skipped: int  # for any other reason, of which a lane has none
    status: int  # pytest's exit status

    @property
    def is_good(self) -> bool:
        return self.tests > self.refused and not (self.failed or self.skipped or self.status)

    def __str__(self) -> str:
        passed = self.tests - self.failed - self.refused - self.skipped
        return f"{passed} passed, {self.failed} failed, {self.refused} refused, {self.skipped} skipped"


def read(results: Path) -> Summary:
    """Of ``junit.xml`` and ``status`` in ``results``; raises ReportError."""
    if not (results / "junit.xml").exists():
        raise ReportError(f"the tests left no report; see {results / 'console.log'}")
    cases = list(ET.parse(results / "junit.xml").getroot().iter("testcase"))
    skips = [skip.get("message", "") for case in cases for skip in case.findall("skipped")]
    refused = sum(HONEST in message for message in skips)
    return Summary(
        tests=len(cases),
        failed=sum(case.find("failure") is not None or case.find("error") is not None for case in cases),
        refused=refused,
        skipped=len(skips) - refused,
        status=int((results / "status").read_text()),
    )
