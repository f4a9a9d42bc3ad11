from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hypercontainer.config import Settings
from hypercontainer.images.store import Images
from tests.support.faulty import Faulty, faulty
from tests.support.registry import PASSWORD, USER, RegistryServer, running_registry


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def images(root: Path) -> Iterator[Images]:
    store = Images(root, settings=Settings())
    yield store
    store.close()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
async def proxy(registry: RegistryServer) -> AsyncIterator[Faulty]:
    """Plain HTTP before the registry, with the password put in."""
    async with faulty(f"https://{registry.host}") as server:
        server.own_credentials = (USER, PASSWORD)
        yield server
