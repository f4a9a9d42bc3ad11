"""What all rings share: asyncio in debug mode, and strictness in CI.

A test that needs something absent is skipped with the reason.  With HYPER_STRICT=1, as in CI, such a
skip fails instead, unless its reason begins with "not on this host:": then no install could help.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

_STRICT = os.environ.get("HYPER_STRICT") == "1"
_IMPOSSIBLE = "not on this host:"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if _STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if _IMPOSSIBLE not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped, and this exists to be run here: {reason}"
    return report
