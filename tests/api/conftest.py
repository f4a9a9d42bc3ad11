"""What tests of the engine share: a store with an image is made once and copied."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.engine.engine import Engine
from tests.api.engines import an_engine, load


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that has the image, to be copied."""
    root = tmp_path_factory.mktemp("stocked")

    async def stock() -> None:
        async with an_engine(root) as engine:
            await load(engine, "busybox")

    asyncio.run(stock())
    return root


@pytest.fixture
def root(stocked: Path, tmp_path: Path) -> Path:
    shutil.copytree(stocked / "lib/images", tmp_path / "lib/images", symlinks=True)
    return tmp_path


@pytest.fixture
async def engine(root: Path) -> AsyncIterator[Engine]:
    async with an_engine(root) as engine:
        yield engine
        for pod in engine.pods():
            await engine.remove_pod(pod.id, force=True)
