"""hyperd is killed at random moments while two clients type verbs: what each was told stays true."""

from __future__ import annotations

import random
import threading
import time

import pytest

from tests.crash.conftest import LONG
from tests.crash.site import Site

SECONDS = 90.0 if LONG else 12.0
SEEDS = range(4 if LONG else 1)

AFTER = {"create": "created", "run": "running", "start": "running", "stop": "created", "rm": "absent"}


class Typist:
    """Types verbs at pods of its own, and remembers what it was told of each."""

    def __init__(self, site: Site, seed: str, prefix: str) -> None:
        self._site = site
        self._random = random.Random(seed)
        self._names = [f"{prefix}{number}" for number in range(3)]
        self.told: dict[str, str] = {}
        self.failure: BaseException | None = None

    def type_until(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self._type(self._random.choice(self._names), self._random.choice(list(AFTER)))
        except BaseException as error:
            self.failure = error

    def _type(self, name: str, verb: str) -> None:
        """A verb that fails may have done its work or not: then nothing is known of its pod."""
        made = ("--network", "none", "-m", "48m", "--name", name, "busybox", "sleep", "1000")
        words = {
            "create": ("create", *made),
            "run": ("run", "-d", *made),
            "start": ("start", name),
            "stop": ("stop", "-t", "1", name),
            "rm": ("rm", "-f", name),
        }
        if self._site.run(*words[verb]).status == 0:
            self.told[name] = AFTER[verb]
        else:
            self.told.pop(name, None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_two_clients_are_told_the_truth_by_hyperds_that_are_killed(site: Site, seed: int) -> None:
    typists = [Typist(site, f"{seed}{prefix}", prefix) for prefix in "ab"]
    stop = threading.Event()
    threads = [threading.Thread(target=typist.type_until, args=(stop,)) for typist in typists]
    for thread in threads:
        thread.start()
    moments = random.Random(seed)
    deadline, before = time.monotonic() + SECONDS, site.kills
    try:
        while time.monotonic() < deadline:
            time.sleep(moments.uniform(0.05, 1.5))
            site.kill()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [typist.failure for typist in typists] == [None, None]
    site.start()
    site.settle()
    told = {name: state for typist in typists for name, state in typist.told.items()}
    assert {name: site.state(name) for name in told} == told, site.last_words()
    print(f"{site.kills - before} kills, seed {seed}")
    site.clear()
