"""Tars in and out of containers, and clients that stop in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypercontainer.engine.engine import Engine
from hypercontainer.errors import Unavailable
from tests.api.engines import a_spec, an_engine, shell, until_printed
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.needs_machine


@pytest.fixture
async def engine(root: Path) -> AsyncIterator[Engine]:
    """With little patience."""
    async with an_engine(root, copy_stall_s=0.3) as engine:
        yield engine
        for pod in engine.pods():
            await engine.remove_pod(pod.id, force=True)


async def one_byte_of_a_tar() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.sleep(60)


async def test_a_client_that_sends_nothing_more_leaves_the_pod_to_others(engine: Engine) -> None:
    await engine.create_pod(a_spec({}, name="p"))
    with pytest.raises(Unavailable, match="the client has sent nothing"):
        await engine.unpack("p", "/", one_byte_of_a_tar(), keep_owners=False)
    assert not engine.machines()
    await engine.start_pod("p")


async def test_a_client_that_takes_nothing_more_leaves_the_pod_to_others(engine: Engine) -> None:
    await engine.create_pod(a_spec(shell("dd if=/dev/zero of=/big bs=1M count=8 2>&-"), name="p"))
    await engine.start_pod("p")
    await engine.wait_pod("p")
    pieces = engine.pack("p", "/big", follow=False)
    assert await anext(pieces)
    await asyncio.wait_for(engine.start_pod("p"), PATIENCE_S)
    with pytest.raises(Unavailable, match="the client has taken nothing"):
        async for _ in pieces:
            pass


async def test_a_client_of_a_pod_that_runs_may_take_its_time(engine: Engine) -> None:
    await engine.create_pod(
        a_spec(shell("dd if=/dev/zero of=/big bs=1M count=8 2>&-; echo written; exec sleep 1000"), name="p")
    )
    await engine.start_pod("p")
    await until_printed(engine, "p", "written\n")
    size = 0
    async for piece in engine.pack("p", "/big", follow=False):
        if not size:
            await asyncio.sleep(0.6)
        size += len(piece)
    assert size > 8 << 20
