"""What a guest's processes have of memory: their pages, what faults tell them, and how much is taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.checks import built, start_pod
from tests.e2e.hyper import Hyper

CHECKS = ("contents", "threads", "forks", "files", "telling", "barriers", "sparse", "scattered")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("memory", tmp_path_factory.mktemp("memory"))


@pytest.fixture
def pod(hyper: Hyper, program: Path) -> Iterator[Hyper]:
    start_pod(hyper, program)
    yield hyper
    hyper.remove_all()


@pytest.mark.every_driver
def test_memory_holds_what_was_written_and_faults_are_told(pod: Hyper) -> None:
    for check in CHECKS:
        done = pod("exec", "p", "/memory", check)
        assert (done.status, done.err) == (0, ""), check


def test_who_writes_page_after_page_gets_some_ahead(pod: Hyper) -> None:
    """Each fault costs much under uml (drivers/hyper_faults.c)."""
    pod.ok("exec", "p", "/memory", "ahead")
