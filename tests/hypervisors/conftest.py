"""The drivers that the promises are tested on: each that can run here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.hypervisors.machines import MUST_RUN, Place, driver_names, load_driver, make_initramfs


@pytest.fixture(scope="session")
def initramfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_initramfs(tmp_path_factory.mktemp("initramfs"))


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Why each driver cannot run here, or None."""
    cache = tmp_path_factory.mktemp("cache")
    return {name: asyncio.run(load_driver(name).missing(cache=cache)) for name in driver_names()}


@pytest.fixture(params=driver_names())
def driver(request: pytest.FixtureRequest, verdicts: dict[str, str | None]) -> str:
    name = str(request.param)
    if reason := verdicts[name]:
        if name in MUST_RUN:
            pytest.fail(f"{name} must run here: {reason}")
        pytest.skip(f"not on this host: {name}: {reason}")
    return name


@pytest.fixture
async def place(driver: str, tmp_path: Path, initramfs: Path) -> AsyncIterator[Place]:
    """An empty root; every machine that a test leaves there is ended."""
    place = Place(hypervisor=load_driver(driver), root=tmp_path, initramfs=initramfs)
    yield place
    for machine in place.machines:
        await machine.kill()
