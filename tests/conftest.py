"""What all rings share: asyncio in debug mode, and strictness in CI.

A test that needs something absent is skipped with the reason.  With HYPER_STRICT=1, as in CI, such a
skip fails instead, unless its reason says "not on this host:", as no install could help then, or
"this driver has no": the driver declares that it does not promise this.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest

_STRICT = os.environ.get("HYPER_STRICT") == "1"
os.environ["HYPER_TEST_NAMESPACE"] = (
    "1"  # the driver of no machine at all may run here (hypervisors/namespace)
)
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # of a shell's background job: programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
_HONEST = ("not on this host:", "this driver has no ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if _STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(words in reason for words in _HONEST):
            report.outcome = "failed"
            report.longrepr = f"skipped, and this exists to be run here: {reason}"
    return report
