"""An engine of its own, in the test's process: for what is seen from inside hyperd."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypercontainer.config import Paths, Settings
from hypercontainer.engine.engine import Engine
from hypercontainer.hypervisors import base
from hypercontainer.model.pod import AddedContainer, PodSpec
from tests.support.images import cached_busybox_layer, docker_archive
from tests.support.waiting import PATIENCE_S

SLEEP = ("sleep", "1000")


@contextlib.asynccontextmanager
async def an_engine(root: Path, **settings: Any) -> AsyncIterator[Engine]:
    """Open it on ``root``; in the same root again it finds all that it had."""
    paths = Paths(state=root / "lib", run=root / "run", config=root / "etc")
    settings = {"hypervisor": "uml"} | settings
    driver = base.load(settings["hypervisor"])
    (root / "cache").mkdir(exist_ok=True)
    if reason := await driver.missing(cache=root / "cache"):
        pytest.skip(f"{driver.name}: {reason}")
    engine = await Engine.open(paths, Settings(**settings))
    try:
        yield engine
    finally:
        await engine.close()


async def load(engine: Engine, name: str, *, extra: bytes | None = None) -> None:
    """busybox as ``name`` into the store of ``engine``, with another layer if one is given."""
    path = engine.host.paths.state / "archive.tar"
    layers = [cached_busybox_layer(), *([extra] if extra else [])]
    docker_archive(path, layers=layers, config={"Cmd": ["sh"]}, tags=[f"{name}:latest"])

    async def chunks() -> AsyncIterator[bytes]:
        yield path.read_bytes()

    async for _ in engine.images.load(chunks()):
        pass
    path.unlink()


def a_spec(*containers: dict[str, Any], **fields: Any) -> PodSpec:
    """A small pod without a network; each container is busybox that sleeps, unless it says otherwise."""
    whole = [{"image": "busybox", "command": SLEEP, "stop_signal": "KILL", **each} for each in containers]
    document = {"network": "none", "memory_mib": 64, "containers": whole, **fields}
    return msgspec.convert(document, PodSpec)


def added(*volumes: dict[str, Any], **container: Any) -> AddedContainer:
    """A container as ``a_spec`` has it, for a pod that there is, with volumes of its own."""
    own = msgspec.to_builtins(a_spec(container).containers[0])
    return msgspec.convert({"container": own, "volumes": volumes}, AddedContainer)


def shell(script: str, **fields: Any) -> dict[str, Any]:
    return {"command": ("sh", "-c", script), **fields}


async def until(condition: Callable[[], bool], *, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        await asyncio.sleep(0.01)


async def until_printed(engine: Engine, container: str, text: str) -> None:
    """Until a container that runs has printed ``text`` and nothing else."""
    deadline = time.monotonic() + PATIENCE_S
    while await printed(engine, container) != text:
        assert time.monotonic() < deadline, await printed(engine, container)
        await asyncio.sleep(0.02)


async def printed(engine: Engine, container: str) -> str:
    """All that the container has printed."""
    return b"".join([record.data async for record in engine.logs(container)]).decode()
