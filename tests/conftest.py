"""What all rings share: asyncio in debug mode, strictness in CI, and that nothing is left running.

A test that needs something absent is skipped with the reason.  With HYPER_STRICT=1, as in CI, such a
skip fails instead, unless its reason says "not on this host:", as no install could help then, or
"this driver has no": the driver declares that it does not promise this.

A run of the tests fails when a hyperd or a machine that it started outlives it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator

import pytest

from tests.support import processes

_STRICT = os.environ.get("HYPER_STRICT") == "1"
os.environ["HYPER_TEST_NAMESPACE"] = (
    "1"  # the driver of no machine at all may run here (hypervisors/namespace)
)
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # of a shell's background job: programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault(processes.SESSION, str(os.getpid()))  # workers of xdist have it from their controller
_LEFT = pytest.StashKey[list[str]]()
_ON_THEIR_WAY_S = 10.0  # for processes that have been told to end, on a busy host
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


@pytest.hookimpl(trylast=True)  # behind xdist, whose workers have ended then
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return
    left = _left_running(session.config)
    session.config.stash[_LEFT] = [str(each) for each in left]
    for each in left:
        each.process.kill()
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _left_running(config: pytest.Config) -> list[processes.Seen]:
    directory = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    deadline = time.monotonic() + _ON_THEIR_WAY_S
    while (left := processes.left_by_session(directory)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left := config.stash.get(_LEFT, []):
        terminalreporter.section("left running by the tests, and killed now", red=True)
        for line in left:
            terminalreporter.line(line)
