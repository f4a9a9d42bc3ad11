"""What a guest's processes have of the processor: their registers, and under uml the one that they run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.checks import built, start_pod
from tests.e2e.hyper import Hyper
from tests.support.waiting import until

CHECKS = ("calls", "threads", "signals", "frames", "forks", "vforks", "debuggers")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("registers", tmp_path_factory.mktemp("registers"))


@pytest.fixture
def pod(hyper: Hyper, program: Path) -> Iterator[Hyper]:
    start_pod(hyper, program)
    yield hyper
    hyper.remove_all()


@pytest.mark.every_driver
def test_a_process_keeps_its_vector_registers(pod: Hyper) -> None:
    for check in CHECKS:
        done = pod("exec", "p", "/registers", check)
        assert (done.status, done.err) == (0, ""), check


def test_a_machine_that_works_is_on_one_processor_and_moves_when_it_may(pod: Hyper) -> None:
    """Its kernel's thread and the processes of its guest (drivers/hyper_traps_user.c)."""
    if len(os.sched_getaffinity(0)) == 1:
        pytest.fail("a host with one processor cannot show it")
    kernel = int(pod.json("list", "vm")[0]["pid"])
    until(lambda: len(os.sched_getaffinity(kernel)) > 1)  # asleep
    busy = pod.spawn("exec", "p", "sh", "-c", "while :; do stat / >/dev/null; done")
    try:
        until(lambda: len(os.sched_getaffinity(kernel)) == 1)
        until(lambda: len(os.sched_getaffinity(kernel)) > 1)
    finally:
        busy.kill()
        busy.communicate()
