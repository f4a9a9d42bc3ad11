"""What a guest's processes have of memory: their pages, what faults tell them, and how much is taken."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hyper import Hyper

PROGRAM = Path(__file__).parent / "programs/memory.c"
CHECKS = ("contents", "threads", "forks", "files", "telling", "barriers", "sparse", "scattered")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("memory") / "memory"
    subprocess.run(["musl-gcc", "-static", "-O2", "-Wall", "-o", built, PROGRAM], check=True)
    return built


@pytest.fixture
def pod(hyper: Hyper, program: Path) -> Iterator[Hyper]:
    hyper.ok("run", "-d", "--name", "p", "busybox", "sleep", "1000")
    hyper.ok("cp", str(program), "p:/memory")
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
