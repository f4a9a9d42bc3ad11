"""hyperd is killed while machines wait, and while a pod takes one: the next one leaves none without a pod."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from hypercontainer.errors import HyperError
from tests.crash.conftest import LONG
from tests.crash.site import Site

SHORT = 5  # steps, when not all
MEMORY_MIB = 48  # of the pods that Site makes


@pytest.fixture
def pooled(uml: Site) -> Iterator[Site]:
    """Its hyperd has a machine that waits; those after it have none, so that whatever is left is a fault."""
    uml.stop()
    _fill(uml)
    yield uml
    uml.stop()
    uml.start()


def _fill(site: Site) -> None:
    site.hyper.settings["pool_memory_mib"] = MEMORY_MIB
    site.start()
    site.hyper.settings.clear()
    site.make(name="first")
    site.client.pods.remove("first", force=True)
    site.wait_until(lambda: site.client.system.info().pool_mib == MEMORY_MIB, "a machine waits", timeout=60)


def test_machines_that_wait_end_with_the_next_hyperd(pooled: Site) -> None:
    pooled.kill()
    pooled.start()
    pooled.settle()
    pooled.clear()


@pytest.mark.timeout(3600 if LONG else 300)
def test_hyperd_may_die_at_any_step_of_giving_a_machine_to_a_pod(pooled: Site) -> None:
    number = pooled.points(lambda site: site.make(name="counted"))
    pooled.client.pods.remove("counted", force=True)
    before = pooled.kills
    steps = range(1, number + 1) if LONG else [1 + number * n // (SHORT + 1) for n in range(1, SHORT + 1)]
    for step in steps:
        _die_once(pooled, step)
    assert pooled.kills > before, "nothing was killed"
    print(f"pool: {pooled.kills - before} kills, {number} points")


def _die_once(site: Site, step: int) -> None:
    site.stop()
    _fill(site)
    site.arm(step)
    with contextlib.suppress(HyperError, OSError):  # it died before it could answer
        site.make()
    site.disarm()
    site.stop()
    site.start()
    site.settle()
    if site.state("p") == "running":
        assert site.hyper.ok("exec", "p", "echo", "works") == "works"
    site.clear()
