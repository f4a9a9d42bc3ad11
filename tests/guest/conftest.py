"""hyperstart twice: as it ships, and built with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.hypervisors.namespace import Namespace
from tests.guest.laboratory import Pod, booted, build, make_image, make_initramfs


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session", params=["hyperstart", "hyperstart.asan"])
def initramfs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := asyncio.run(Namespace().missing(cache=tmp_path_factory.mktemp("cache"))):
        pytest.skip(f"not on this host: {reason}")
    return make_initramfs(build(request.param), tmp_path_factory.mktemp("initramfs"))


@pytest.fixture
async def machine(initramfs: Path, image: Path, tmp_path: Path) -> AsyncIterator[Pod]:
    """hyperstart after boot."""
    async with asyncio.timeout(60), booted(initramfs, image, tmp_path) as pod:
        yield pod


@pytest.fixture
async def bare(machine: Pod) -> Pod:
    """With a pod, and no container yet."""
    await machine.set_up()
    return machine


@pytest.fixture
async def pod(bare: Pod) -> Pod:
    """With a pod and its container c1."""
    await bare.create()
    return bare
