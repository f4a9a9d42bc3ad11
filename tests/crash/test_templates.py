"""hyperd is killed while it makes a template: the next one has no half of it, and makes it after all."""

from __future__ import annotations

import pytest

from hypercontainer.errors import HyperError
from tests.crash.conftest import LONG
from tests.crash.site import MANY, Site

SHORT = 3  # steps, when not all


@pytest.mark.timeout(3600 if LONG else 300)
def test_hyperd_may_die_at_any_step_of_making_a_template(tcg: Site) -> None:
    before = tcg.kills
    number = _points(tcg)
    steps = range(1, number + 1) if LONG else [1 + number * n // (SHORT + 1) for n in range(1, SHORT + 1)]
    for step in steps:
        _die_once(tcg, step)
    assert tcg.kills > before, "nothing was killed"
    print(f"template: {tcg.kills - before} kills, {number} points")


def _points(site: Site) -> int:
    """How many points there are when nothing goes wrong."""
    site.make()
    site.arm(MANY)
    _await_template(site)
    number = MANY - site.disarm()
    site.clear()
    return number


def _die_once(site: Site, step: int) -> None:
    site.client.templates.prune()
    site.make()
    site.arm(step)
    _await_template(site)
    site.disarm()
    site.start()
    site.settle()
    assert site.state("p") == "running"
    assert not [*(site.paths.run / "templates").glob("*"), *(site.paths.cache / "templates").glob("*.draft")]
    site.client.templates.prune()
    site.make(name="another")
    _await_template(site)
    assert len(site.client.templates.list()) == 1
    site.clear()


def _await_template(site: Site) -> None:
    """Until one was made, or hyperd has died of it."""

    def is_over() -> bool:
        try:
            return bool(site.client.templates.list()) and not any((site.paths.run / "templates").glob("*"))
        except HyperError:
            return site.process() is None

    site.wait_until(is_over, "a template is made", timeout=120)
