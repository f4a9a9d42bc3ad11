from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hypercontainer.config import Paths, Settings
from hypercontainer.network.bridge import BridgeNetworks
from tests.network.laboratory import Laboratory, kill, own_namespace

Start = Callable[..., BridgeNetworks]


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    if os.geteuid() != 0:
        pytest.skip("needs root for network namespaces")
    with own_namespace():
        built = Laboratory()
        try:
            yield built
        finally:
            built.close()


@pytest.fixture
def paths() -> Iterator[Paths]:
    """Short ones: unix sockets live below them."""
    with TemporaryDirectory(prefix="hyper-net-") as root:
        yield Paths(state=Path(root) / "lib", run=Path(root) / "run", config=Path(root) / "etc")


@pytest.fixture
def start(paths: Paths) -> Iterator[Start]:
    """Starts daemons' networks: each call is a new daemon, on the same state unless told otherwise."""
    started: list[BridgeNetworks] = []

    def start_one(settings: Settings | None = None, at: Paths = paths) -> BridgeNetworks:
        at.state.mkdir(exist_ok=True)
        started.append(BridgeNetworks(settings or Settings(), at))
        return started[-1]

    yield start_one
    for networks in started:
        kill(networks)


@pytest.fixture
def networks(start: Start) -> BridgeNetworks:
    return start()
