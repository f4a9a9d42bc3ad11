"""hyperd is killed between any two steps of any verb, and the next one has lost nothing and leaves nothing.

For each verb and each of its steps: hyperd dies there (``hypercontainer.faults``), another one starts and
settles, and then every pod is in a legal state that matches what exists, nothing is orphaned, what the
user was told is true, the verb typed again has a sensible outcome, and ``rm -f`` leaves the host as it was.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.crash.conftest import LONG
from tests.crash.images import pullable
from tests.crash.site import Site
from tests.crash.verbs import VERBS, Verb

SHORT = 2  # steps of each verb, when not all


def of_driver(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "verb", [verb for verb in VERBS if verb.driver == name], ids=lambda verb: verb.name
    )


@pytest.mark.timeout(3600 if LONG else 120)
@of_driver("namespace")
def test_hyperd_may_die_at_any_step_of(verb: Verb, site: Site, tmp_path: Path) -> None:
    with pullable(site, tmp_path) if verb.registry else nullcontext():
        every_step(verb, site)


@pytest.mark.timeout(3600 if LONG else 120)
@of_driver("uml")
def test_hyperd_with_networks_may_die_at_any_step_of(verb: Verb, uml: Site) -> None:
    every_step(verb, uml)


def every_step(verb: Verb, site: Site) -> None:
    """Kill at each step, or in the short form at a few, until the verb ends before hyperd does."""
    before = site.kills
    number = _count(verb, site)
    for step in range(1, number + 20) if LONG else _some(number):
        if not _die_once(verb, site, step) and LONG:
            break
    assert site.kills > before, "nothing was killed"
    print(f"{verb.name}: {site.kills - before} kills, {number} points")


def _count(verb: Verb, site: Site) -> int:
    """How many points the verb has, when nothing goes wrong."""
    verb.prepare(site)
    number = site.points(verb.act)
    _clear(verb, site)
    return number


def _some(number: int) -> list[int]:
    """The same few steps each time, spread evenly between the first and the last."""
    return sorted({1 + number * index // (SHORT + 1) for index in range(1, SHORT + 1)})


def _die_once(verb: Verb, site: Site, step: int) -> bool:
    """Whether hyperd has died: a verb that did not come so far just went well."""
    verb.prepare(site)
    site.arm(step)
    result = verb.act(site)
    died = site.disarm() == 0
    site.start()
    where = f"{verb.name}, killed at point {step}: {result}\n{site.last_words()}"
    try:
        site.settle()
        verb.check(site, result)
        verb.act(site)  # again: well done, or an error that says why not
        site.settle()
        _clear(verb, site)
    except AssertionError as error:
        raise AssertionError(f"{where}\n{error}") from error
    return died


def _clear(verb: Verb, site: Site) -> None:
    site.clear()
    verb.clear(site)
    site.settle()
