"""The drivers that the promises are tested on: each that can run here."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.hypervisors.machines import (
    COPIES,
    LANE,
    MUST_RUN,
    Place,
    driver_names,
    load_driver,
    make_initramfs,
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a lane, what is the same however a machine was started is seen with booted ones only.

    Its CPU is emulated, and slow.  Left to copies are start and end, memory, clock and entropy, slots and
    NICs, pause, and being found again; where there is a CPU, all promises are seen with both.
    """
    if LANE:
        again = [item for item in items if _is_copy(item) and item.get_closest_marker("however_started")]
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if item not in again]


def _is_copy(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and (
        hasattr(item, "callspec") and str(item.callspec.params.get("driver")).endswith(COPIES)
    )


@pytest.fixture(scope="session")
def initramfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_initramfs(tmp_path_factory.mktemp("initramfs"))


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Why each driver cannot run here, or None."""
    cache = tmp_path_factory.mktemp("cache")
    return {name: asyncio.run(load_driver(name).missing(cache=cache)) for name in driver_names()}


def ways() -> list[str]:
    """Each driver, and once more with copies of a template where it has them."""
    names = driver_names()
    return names + [name + COPIES for name in names if load_driver(name).capabilities.templates]


@pytest.fixture(params=ways())
def driver(request: pytest.FixtureRequest, verdicts: dict[str, str | None]) -> str:
    name = str(request.param).removesuffix(COPIES)
    if reason := verdicts[name]:
        if name in MUST_RUN:
            pytest.fail(f"{name} must run here: {reason}")
        pytest.skip(f"not on this host: {name}: {reason}")
    return str(request.param)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where the templates of a driver are kept for all tests."""

    @functools.cache
    def directory(driver: str) -> Path:
        return tmp_path_factory.mktemp(f"templates-{driver}")

    return directory


@pytest.fixture
async def place(
    driver: str, tmp_path: Path, initramfs: Path, templates: Callable[[str], Path]
) -> AsyncIterator[Place]:
    """An empty root; every machine that a test leaves there is ended."""
    name = driver.removesuffix(COPIES)
    kept = templates(name) if driver != name else None
    place = Place(hypervisor=load_driver(name), root=tmp_path, initramfs=initramfs, templates=kept)
    yield place
    for machine in place.machines:
        await machine.kill()
